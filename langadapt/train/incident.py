"""What is written down when a step gives a number that is not finite: enough to find the text that did it."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from langadapt.core.errors import TrainingFailed
from langadapt.core.io import fsync_path, pretty_json, write_durably
from langadapt.core.types import Block

# Enough to see how the run came there.
_LOSSES = 100
Decode = Callable[[Sequence[int]], str]


def write_incident(
    folder: Path,
    *,
    step: int,
    positions: Sequence[int],
    blocks: Sequence[Block],
    loss: float,
    norms: Mapping[str, float],
    decode: Decode,
    complaint: str,
    kept: bool,
    losses: Mapping[int, float],
    hint: str,
) -> TrainingFailed:
    """Write `incident-<step>/` with numbers and decoded text, and give the error to raise."""
    place = folder / f"incident-{step:06d}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    report = {
        "step": step,
        "positions": list(positions),
        "blocks": [{"source": block.source, "epoch": block.epoch, "block": block.index} for block in blocks],
        # JSON has no NaN: written as text
        "loss": str(loss),
        "complaint": complaint,
        "losses_before": {str(number): value for number, value in sorted(losses.items())[-_LOSSES:]},
        "gradient_norms": {name: str(value) for name, value in norms.items()},
    }
    write_durably(place / "incident.json", pretty_json(report))
    texts = [
        f"=== position {position}, {block.source}, block {block.index}\n{decode(block.tokens)}\n"
        for position, block in zip(positions, blocks, strict=True)
    ]
    write_durably(place / "text.txt", "\n".join(texts))
    fsync_path(place)
    return TrainingFailed(f"{complaint} at step {step}; {what_is_left(kept)}", where=str(place), hint=hint)


def what_is_left(kept: bool) -> str:
    """What a failed run can go on from, in words."""
    return "the last checkpoint is kept" if kept else "no checkpoint had been written"
