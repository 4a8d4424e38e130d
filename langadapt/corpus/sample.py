"""What a corpus will weigh, from a sample: for the price of a step before it runs."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from langadapt.core.unpack import PARQUET, open_file, packing
from langadapt.corpus.collect import Collector, Rules
from langadapt.corpus.read import FileReader, ReadSettings
from langadapt.corpus.spool import KEPT, Spool
from langadapt.corpus.tally import Tally

# Judging this much takes a tenth of a second; reading on to find representative documents is much cheaper.
JUDGED_BYTES = 400_000
READ_BYTES = 16_000_000
# Text in Latin script packs to about 30 %, Greek or Thai to about 22 %.
PACKED_RATIO = 3.5


@dataclass(frozen=True)
class Sample:
    """Predicted sizes; `raw_bytes` is the unpacked input."""

    files: int
    raw_bytes: int
    documents: int
    bytes: int
    words: int
    lines: int
    """Lines of documents with several: those are counted to find boilerplate."""


def sample(files: Sequence[Path], settings: ReadSettings, rules: Rules) -> Sample:
    """Look at documents spread over the first 16 MB and scale up. Duplicates are not looked for."""
    total = sum(_unpacked(file) for file in files)
    step = max(1, min(total, READ_BYTES) // JUDGED_BYTES)
    spool = Spool(io.BytesIO(), Tally())
    collector = Collector(rules, spool)
    read = seen = 0
    looked_at = lines = 0
    for file in files:
        for raw in FileReader(file, settings).documents():
            size = len(raw.text.encode())
            read += size
            if seen % step == 0:
                collector.take(raw)
                looked_at += size
                ends = raw.text.count("\n")
                lines += ends + 1 if ends else 0
            seen += 1
            if read > READ_BYTES:
                break
        if read > READ_BYTES:
            break
    collector.flush()
    if not looked_at:
        return Sample(len(files), total, 0, 0, 0, 0)
    whole = read if read <= READ_BYTES else max(read, total)
    scale = whole / looked_at
    kept = np.flatnonzero(np.frombuffer(spool.gone, np.uint8) == KEPT) if spool.gone else np.zeros(0, np.int64)
    return Sample(
        len(files),
        total,
        round(len(kept) * scale),
        round(int(spool.sizes.take(kept).sum(dtype=np.int64)) * scale),
        round(int(spool.words.take(kept).sum(dtype=np.int64)) * scale),
        round(lines * scale),
    )


def _unpacked(file: Path) -> int:
    size = file.stat().st_size
    with open_file(file) as stream:
        head = stream.peek(4)[:4]
    return round(size * PACKED_RATIO) if packing(head) is not None or head == PARQUET else size
