"""What the training loop is handed, and putting it together: text by step, probes, a journal."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.core.progress import Progress
from langadapt.core.types import Block
from langadapt.model.compute import Compute
from langadapt.model.load import load_tokenizer
from langadapt.train.branch import Places
from langadapt.train.checkpoint import Checkpoints
from langadapt.train.gauge import Gauge
from langadapt.train.incident import Decode
from langadapt.train.journal import Journal
from langadapt.train.probe import Probe


@dataclass(frozen=True)
class Surroundings:
    """What the loop is handed by its caller: where data comes from, how to probe, where to write.

    `batch_at(step)` gives the blocks of a step and `positions_at(step)` their places in the stream; `probe()` bits per
    byte by name (or what `unit` says); `watched` names the probes of languages that must not be forgotten; `plainly()`
    is a context in which the model is as it is measured (not compiled, with the weights that would be written).
    """

    batch_at: Callable[[int], list[Block]]
    positions_at: Callable[[int], list[int]]
    probe: Callable[[], dict[str, float]]
    watched: frozenset[str]
    decode: Decode
    journal: Journal
    checkpoints: Checkpoints
    folder: Path
    progress: Progress
    timing: Callable[[int, float], None] = lambda step, seconds: None
    plainly: Callable[[], AbstractContextManager[None]] = nullcontext
    unit: str = "bits per byte"
    # measured with the probes; a run may be stopped by one
    gauges: Sequence[Gauge] = ()


def surround(
    model: Any,
    base: Path,
    data: Path,
    block: Callable[[int], Block],
    places: Places,
    *,
    separator: int,
    targets: Collection[str],
    compute: Compute,
    folder: Path,
    checkpoints: Checkpoints,
    progress: Progress,
    timing: Callable[[int, float], None],
) -> tuple[Surroundings, Probe]:
    """`base` holds the tokenizer, `data` the probes; `block(position)` reads the stream; the journal is in `folder`.

    Probes in other languages than `targets` are watched.
    """
    tokenizer = load_tokenizer(base)
    probe = Probe(data / "probes.jsonl", model, tokenizer, prefix=separator, compute=compute, progress=progress)
    around = Surroundings(
        batch_at=lambda step: [block(position) for position in places.at(step)],
        positions_at=places.at,
        probe=probe,
        watched=probe.names_outside(set(targets)),
        decode=lambda tokens: str(tokenizer.decode(list(tokens))),
        journal=Journal(folder / "metrics.jsonl", progress.warn),
        checkpoints=checkpoints,
        folder=folder,
        progress=progress,
        timing=timing,
    )
    return around, probe
