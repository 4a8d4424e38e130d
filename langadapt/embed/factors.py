"""A table as coordinates times a few shared directions: the best approximation of a rank, without the whole SVD."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from langadapt.embed.inputs import InitInputs
from langadapt.embed.types import Floats, Ints

Doubles = np.ndarray[Any, np.dtype[np.float64]]
# 8,192 rows x 4,096 dimensions x 8 bytes = 268 MB.
_ROWS_AT_A_TIME = 8192
# A row must come out as the same bits whichever rows stand beside it, so every product has the same shape.
_LINES_AT_A_TIME = 256
# Directions with less of the largest one's length are rounding noise: coordinates along them would be as well.
_SHORTEST = 1e-6


@dataclass(frozen=True)
class Factors:
    """E = U S V' of the text rows: `directions` P = S_k V_k' [rank, width], `inverse` V_k / S_k [width, rank].

    `energy` is the share of the table's sum of squares that rank k keeps.
    """

    directions: Floats = field(repr=False)
    inverse: Floats = field(repr=False)
    energy: float

    def coordinates(self, rows: Floats) -> Floats:
        """Rows of U for rows of E, in float32 [n, rank]; and for sums of rows the same sums."""
        found = np.zeros((len(rows), self.inverse.shape[1]), dtype=np.float32)
        for start in range(0, len(rows), _LINES_AT_A_TIME):
            block = rows[start : start + _LINES_AT_A_TIME]
            padded = np.zeros((_LINES_AT_A_TIME, rows.shape[1]), dtype=np.float32)
            padded[: len(block)] = block
            found[start : start + len(block)] = (padded @ self.inverse)[: len(block)]
        return found


def factorised(inputs: InitInputs, rank: int) -> Factors:
    """Factors of the text rows of the base table, of at most `rank` and at most the width.

    S and V come from the eigenvalues of E'E [width, width], summed in float64 in blocks, so E is never whole in memory.
    """
    width = inputs.base_rows(slice(0, 1)).shape[1]
    products: Doubles = np.zeros((width, width))
    for start in range(0, len(inputs.population), _ROWS_AT_A_TIME):
        block = inputs.base_rows(inputs.population[start : start + _ROWS_AT_A_TIME]).astype(np.float64)
        products += block.T @ block
    values, vectors = np.linalg.eigh(products)
    lengths = np.sqrt(np.maximum(values[::-1], 0))
    count = min(rank, max(1, int((lengths > _SHORTEST * lengths[0]).sum())))
    chosen, along = lengths[:count], vectors[:, ::-1][:, :count]
    total = float((lengths**2).sum())
    return Factors(
        np.ascontiguousarray(chosen[:, None] * along.T, dtype=np.float32),
        np.ascontiguousarray(along / chosen, dtype=np.float32),
        float((chosen**2).sum()) / total if total else 1.0,
    )


def coordinates_of_sums(inputs: InitInputs, factors: Factors, indptr: Ints, old: Ints, weights: Any) -> Floats:
    """Coordinates [lines, rank] of averages of base rows: line i has the ids `old[indptr[i]:indptr[i + 1]]`.

    The averages themselves are as wide as the model, and never there all at once.
    """
    lines = [np.zeros((0, factors.inverse.shape[1]), dtype=np.float32)]
    for start in range(0, len(indptr) - 1, _LINES_AT_A_TIME):
        bounds = indptr[start : start + _LINES_AT_A_TIME + 1]
        part = slice(bounds[0], bounds[-1])
        values = np.asarray(weights[part], dtype=np.float64)
        at = bounds[:-1] - bounds[0]
        values = values / np.repeat(np.add.reduceat(values, at), np.diff(bounds))
        rows = inputs.base_rows(old[part]) * values[:, None].astype(np.float32)
        lines.append(factors.coordinates(np.add.reduceat(rows, at, axis=0)))
    return np.concatenate(lines)
