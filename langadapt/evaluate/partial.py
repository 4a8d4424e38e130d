"""Results that survive a kill: one file a (model, set), whole or absent."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langadapt.core.io import canonical_json, read_json_lines, replace_durably
from langadapt.evaluate.segments import ScoringSet
from langadapt.model.score import TextScore


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """What one model scored on one segment; `nll` in nats, None where the model gave no number."""

    document: str
    segment: int
    bytes: int
    nll: float | None
    tokens: int
    unknown_bytes: int


class Partial:
    """The folder of finished pieces of an evaluation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, kind: str, model: str, name: str) -> Path:
        return self.folder / f"{kind}--{model}--{name}.jsonl"

    def has(self, kind: str, model: str, name: str) -> bool:
        """Is this piece finished?"""
        return self._path(kind, model, name).is_file()

    def save(self, kind: str, model: str, name: str, lines: Sequence[Any]) -> None:
        """Write one piece with a single rename."""
        text = "".join(canonical_json(line) + "\n" for line in lines)
        replace_durably(self._path(kind, model, name), text)

    def load(self, kind: str, model: str, name: str) -> list[dict[str, Any]]:
        """Lines of a finished piece."""
        return list(read_json_lines(self._path(kind, model, name)))

    def save_rows(self, model: str, name: str, rows: Sequence[SegmentRow]) -> None:
        """Scores of one model on one set."""
        self.save("scores", model, name, [asdict(row) for row in rows])

    def load_rows(self, model: str, name: str) -> list[SegmentRow]:
        """Scores of one model on one set, as they were saved."""
        return [SegmentRow(**line) for line in self.load("scores", model, name)]


def to_rows(chosen: ScoringSet, scores: Sequence[TextScore]) -> list[SegmentRow]:
    """Pair the scores with the segments they belong to; nats are rounded so that they read back the same."""
    flat = [segment for score in scores for segment in score.segments]
    rows = []
    for segment, score in zip(chosen.segments, flat, strict=True):
        # JSON has no NaN: a model that gives none gets no score
        nll = round(score.nll, 5) if math.isfinite(score.nll) else None
        rows.append(SegmentRow(segment.document, segment.index, score.bytes, nll, score.tokens, score.unknown_bytes))
    return rows
