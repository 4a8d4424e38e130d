"""A line of a stored row map in words: of which old rows a new row is the sum, and why."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from langadapt.embed.builder import MOST_PIECES
from langadapt.embed.rowmap import RowMap

# Weights smaller than this are said together, as `and n more`.
_SMALLEST = 0.005


@dataclass(frozen=True)
class Explained:
    """One row: `parts` are (weight, old id, old piece), the heaviest first; an old id of -1 is the mean of `mean_of`.

    Of a line with more than 16 entries `more` are not in `parts`, and have `more_weight` together. `dense` says what a
    row is made of that is no sum of old rows, `noise` is in standard deviations of the old rows, `refined` counts the
    snippets of refine-embeddings that moved the row away from all this.
    """

    id: int
    piece: str
    content: bytes
    method: str
    why: str
    parts: tuple[tuple[float, int, str], ...]
    more: int = 0
    more_weight: float = 0.0
    mean_of: int = 0
    noise: float = 0.0
    correlated: bool = False
    dense: str | None = None
    refined: int = 0

    def formula(self, spell: Callable[[str], str] = str) -> str:
        """`0.86 x `ág` + 0.14 x `orsz``; `spell` turns an old piece into text."""
        terms: list[str] = []
        for weight, id, piece in self.parts:
            shown = f"mean of {self.mean_of:,} text rows" if id < 0 else f"`{spell(piece)}`"
            sign = ("- " if weight < 0 else "+ ") if terms else ("-" if weight < 0 else "")
            terms.append(f"{sign}{abs(weight):.2f} {shown}" if weight != 1 or terms else shown)
        if self.more:
            terms.append(f"and {self.more:,} more of {self.more_weight:.2f} together")
        if self.dense is not None:
            terms.append(self.dense)
        if self.noise:
            kind = "of the rows' covariance" if self.correlated else "in each dimension"
            terms.append(f"+ noise of {self.noise:.3g} standard deviations {kind}")
        return " ".join(terms) + (f", then refined on {self.refined:,} snippets" if self.refined else "")


def line_of(rows: RowMap, id: int) -> int | None:
    """The line of a new id in a map, if it has one."""
    line = int(np.searchsorted(rows.new_ids, id))
    return line if line < len(rows.new_ids) and int(rows.new_ids[line]) == id else None


def explain(rows: RowMap, line: int) -> Explained:
    """What the map and its provenance say of one line."""
    note = rows.provenance[line]
    part = slice(rows.indptr[line], rows.indptr[line + 1])
    ids, values = rows.indices[part], rows.values[part]
    if len(ids) > MOST_PIECES:
        order = np.argsort(-np.abs(values), kind="stable")
        ids, values = ids[order], values[order]
    # the provenance names the pieces in this order, and has no name for the mean
    names = iter(note.get("pieces", ()))
    named = [
        (float(value), -1 if id == rows.old_rows else id, "" if id == rows.old_rows else str(next(names, id)))
        for id, value in zip(ids[:MOST_PIECES].tolist(), values, strict=False)
    ]
    heavy = [entry for entry in named if abs(entry[0]) >= _SMALLEST] or named
    rest = float(values.sum()) - sum(weight for weight, _, _ in heavy)
    return Explained(
        id=int(rows.new_ids[line]),
        piece=str(note["piece"]),
        content=bytes.fromhex(str(note["hex"])),
        method=str(note["method"]),
        why=str(note["why"]),
        refined=int(note.get("refined", {}).get("snippets", 0)),
        parts=tuple(sorted(heavy, key=lambda entry: -abs(entry[0]))),
        more=len(ids) - len(heavy),
        more_weight=rest if len(ids) > len(heavy) else 0.0,
        mean_of=len(rows.population),
        noise=float(rows.noise[line]),
        correlated=bool(rows.correlated[line]),
        dense=_dense(rows, line),
    )


def _dense(rows: RowMap, line: int) -> str | None:
    for part in rows.dense:
        if line in part.lines:
            if part.matrix is None:
                return f"{part.vectors.shape[1]} numbers that were given, which are the same for every base"
            plus = " plus an offset" if part.offset is not None else ""
            return (
                f"a vector of {part.vectors.shape[1]} numbers times a matrix [{part.matrix.shape[0]}, "
                f"{part.matrix.shape[1]}]{plus}, which are the same for every base"
            )
    return None
