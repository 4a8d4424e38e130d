"""Puts together what the training loop is handed: text by step, probes, a journal."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from langadapt.core.progress import Progress
from langadapt.core.types import Block
from langadapt.model.compute import Compute
from langadapt.model.load import load_tokenizer
from langadapt.train.branch import Places
from langadapt.train.checkpoint import Checkpoints
from langadapt.train.journal import Journal
from langadapt.train.loop import Surroundings
from langadapt.train.probe import Probe


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
