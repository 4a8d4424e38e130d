"""One pass over the text into a spool on disk; in memory stay about 50 bytes a document, whatever the corpus weighs."""

import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from langadapt.core.io import canonical_json
from langadapt.core.progress import Task
from langadapt.corpus.dedup import first_of_each
from langadapt.corpus.filters import Filter
from langadapt.corpus.langid import MAX_FOREIGN_SHARE, Detector, Lines
from langadapt.corpus.lines import Line
from langadapt.corpus.normalise import normalise
from langadapt.corpus.read import FileReader, RawDocument
from langadapt.corpus.split import PARTS
from langadapt.corpus.store import DROPPED, HELD_OUT, TRAIN, document_id, finish, gzip_writer, show_id, to_line
from langadapt.corpus.tally import Tally

PREVIEW = 200
_KEPT, _GONE = 0, 1
# In `detected`: text that the detector could not tell, which is kept.
UNSURE = "unsure"

Index = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Rules:
    """What a document has to satisfy; `detector` is None where the language cannot be judged."""

    lang: str
    filters: tuple[Filter, ...]
    detector: Detector | None
    min_probability: float


@dataclass
class Spool:
    """Records of kept and dropped texts, in reading order, with an index in memory."""

    file: IO[bytes]
    tally: Tally
    ids: "array[int]" = field(default_factory=lambda: array("Q"))
    high: "array[int]" = field(default_factory=lambda: array("Q"))
    low: "array[int]" = field(default_factory=lambda: array("Q"))
    starts: "array[int]" = field(default_factory=lambda: array("Q"))
    sizes: "array[int]" = field(default_factory=lambda: array("Q"))
    words: "array[int]" = field(default_factory=lambda: array("Q"))
    gone: "array[int]" = field(default_factory=lambda: array("B"))
    _end: int = 0

    def add(self, number: int, content: tuple[int, int], record: bytes, size: int, words: int, gone: int) -> None:
        """Append one record."""
        self.ids.append(number)
        self.high.append(content[0])
        self.low.append(content[1])
        self.starts.append(self._end)
        self.sizes.append(size)
        self.words.append(words)
        self.gone.append(gone)
        self.file.write(record)
        self._end += len(record)

    def lose(self, raw: RawDocument, text: str, reason: str, *, size: int, number: int, whole: bool = True) -> None:
        """Record what will not be in the corpus."""
        where = f"{raw.source}:{raw.line}"
        self.tally.drop(reason, size, where, documents=1 if whole else 0)
        self.add(number, (0, 0), lost_line(show_id(number), where, reason, text, size), size, 0, _GONE)


def lost_line(name: str, where: str, reason: str, text: str, size: int) -> bytes:
    """One line of dropped.jsonl.gz."""
    record = {"bytes": size, "id": name, "reason": reason, "text": text[:PREVIEW], "where": where}
    return (canonical_json(record) + "\n").encode()


@dataclass
class Collector:
    """Takes raw documents, decides on each, spools the outcome; `detected` counts bytes by language label."""

    rules: Rules
    spool: Spool
    detected: dict[str, int] = field(default_factory=dict)
    judged_bytes: int = 0
    accepted_bytes: int = 0

    def read(self, reader: FileReader, task: Task) -> None:
        """Take in one file."""
        reader.tally = self.spool.tally
        reader.on_loss = self._line_lost(reader)
        for raw in reader.documents():
            self.take(raw)
            task.advance(len(raw.text))

    def take(self, raw: RawDocument) -> None:
        """Normalise and judge one document."""
        where = f"{raw.source}:{raw.line}"
        text = normalise(raw.text, self.spool.tally, where)
        if not text:
            return
        removed, removed_size = "", 0
        reason = None
        if self.rules.detector is not None:
            text, removed, removed_size, reason = self._judge(text, self.rules.detector)
        document, content = finish(raw, self.rules.lang, text)
        number = int(document.id, 16)
        size = len(text.encode())
        if reason is None:
            reason = next((found for check in self.rules.filters if (found := check(text)) is not None), None)
        if removed_size:
            self.spool.lose(raw, removed, "foreign-lines", size=removed_size, number=number, whole=False)
        if reason is not None:
            self.spool.lose(raw, text, reason, size=size, number=number)
        else:
            self.spool.add(number, content, to_line(document), size, len(text.split()), _KEPT)

    def _judge(self, text: str, detector: Detector) -> tuple[str, str, int, str | None]:
        """(text to keep, a sample of removed lines, their bytes, reason to drop the whole)."""
        if "\n" in text:
            found = detector.judge_lines(text)
        else:
            found = Lines(text, detector.judge_document(text), "", {})
        size = len(text.encode())
        lost = min(size, sum(found.lost.values()))
        if found.verdict is None and not lost:
            return text, "", 0, None
        self.judged_bytes += size
        for label, part in found.lost.items():
            self._saw(label, part)
        verdict = found.verdict
        rival = False
        unlikely = verdict is not None and verdict.probability < self.rules.min_probability
        if verdict is not None:
            rival = unlikely and verdict.names_a_rival(found.rest)
            self._saw(UNSURE if unlikely and not rival else verdict.label, size - lost)
        if lost > MAX_FOREIGN_SHARE * size or rival:
            return text, "", 0, "other-language"
        self.accepted_bytes += size - lost
        return found.rest, found.first_lost, lost, None

    def _saw(self, label: str, size: int) -> None:
        self.detected[label] = self.detected.get(label, 0) + size

    def _line_lost(self, reader: FileReader) -> Callable[[Line, str], None]:
        source = reader.path.name.removesuffix(".gz")

        def lost(line: Line, reason: str) -> None:
            number = document_id(source, line.offset, (0, 0))
            where = f"{source}:{line.number}"
            preview = line.data[: 4 * PREVIEW].decode("utf-8", "replace")
            record = lost_line(show_id(number), where, reason, preview, len(line.data))
            self.spool.add(number, (0, 0), record, len(line.data), 0, _GONE)

        return lost


@dataclass(frozen=True)
class Written:
    """What went into the two splits."""

    documents: int
    bytes: int
    words: int
    held_out_documents: int
    held_out_bytes: int


def write(spool: Spool, source: IO[bytes], folder: Path, *, held_out_share: float, max_bytes: int | None) -> Written:
    """Deduplicate, cap, split, and write the three files of a corpus, ordered by id."""
    ids, high, low, sizes, words = (
        np.frombuffer(column, dtype=np.uint64) if len(column) else np.zeros(0, np.uint64)
        for column in (spool.ids, spool.high, spool.low, spool.sizes, spool.words)
    )
    kept = np.frombuffer(spool.gone, dtype=np.uint8) == _KEPT if len(spool.gone) else np.zeros(0, bool)
    places = np.flatnonzero(kept)
    first = first_of_each(high[places], low[places], ids[places])
    duplicate = np.zeros(len(ids), bool)
    duplicate[places[~first]] = True
    over = np.zeros(len(ids), bool)
    if max_bytes is not None:
        unique = places[first]
        # by content, so that a cap takes the same texts whatever else the files hold beside them
        by_content = unique[np.lexsort((low[unique], high[unique]))]
        over[by_content[np.cumsum(sizes[by_content]) > max_bytes]] = True
    for name, mask in (("duplicate", duplicate), ("over-max-bytes", over)):
        if mask.any():
            spool.tally.drop(name, int(sizes[mask].sum()), "", documents=int(mask.sum()))
    held = kept & ((low % np.uint64(PARTS)) < round(held_out_share * PARTS))
    final = kept & ~duplicate & ~over
    _write_files(spool, source, folder, ids, duplicate, over, held)
    train, out = final & ~held, final & held
    return Written(
        int(train.sum()), int(sizes[train].sum()), int(words[train].sum()), int(out.sum()), int(sizes[out].sum())
    )


def _write_files(
    spool: Spool,
    source: IO[bytes],
    folder: Path,
    ids: Index,
    duplicate: npt.NDArray[np.bool_],
    over: npt.NDArray[np.bool_],
    held: npt.NDArray[np.bool_],
) -> None:
    gone = spool.gone
    # equal ids are the same line of two equal files, or lines and whole of one document: order by the rest as well
    order = np.lexsort((np.asarray(spool.sizes, np.uint64), np.asarray(gone, np.uint8), ids))
    with (
        gzip_writer(folder / TRAIN) as train,
        gzip_writer(folder / HELD_OUT) as held_out,
        gzip_writer(folder / DROPPED) as dropped,
    ):
        for place in order.tolist():
            source.seek(spool.starts[place])
            line = source.readline()
            if gone[place] != _KEPT:
                dropped.write(line)
            elif duplicate[place] or over[place]:
                value = json.loads(line)
                reason = "duplicate" if duplicate[place] else "over-max-bytes"
                dropped.write(lost_line(value["id"], value["source"], reason, value["text"], spool.sizes[place]))
            else:
                (held_out if held[place] else train).write(line)
