"""Rows that are no sums of old rows: a linear map from another space, or rows that were given."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from langadapt.embed.types import Floats, Ints

# A row must come out as the same bits whichever rows stand beside it, so every product has the same shape.
_LINES_AT_A_TIME = 256


@dataclass(frozen=True)
class Dense:
    """`vectors` [m, d] times `matrix` [d, width] plus `offset` [width], for the m lines of a row map in `lines`.

    They ascend. Without a matrix the vectors are the rows (d = width). Factors are stored, never the product.
    """

    lines: Ints
    vectors: Floats
    matrix: Floats | None = None
    offset: Floats | None = None

    def put_rows(self, rows: Floats, first: int = 0) -> None:
        """Fill its lines in `rows` [n, width], which are those of the whole map from line `first` on."""
        low, high = np.searchsorted(self.lines, [first, first + len(rows)]).tolist()
        for start in range(low, high, _LINES_AT_A_TIME):
            block = self.vectors[start : min(start + _LINES_AT_A_TIME, high)]
            count = len(block)
            if self.matrix is not None:
                padded = np.zeros((_LINES_AT_A_TIME, block.shape[1]), dtype=np.float32)
                padded[:count] = block
                block = (padded @ self.matrix)[:count]
            if self.offset is not None:
                block = block + self.offset
            rows[self.lines[start : start + count] - first] = block

    def arrays(self) -> dict[str, Any]:
        """What is stored of it."""
        found = {"lines": self.lines, "vectors": self.vectors, "matrix": self.matrix, "offset": self.offset}
        return {name: np.ascontiguousarray(value) for name, value in found.items() if value is not None}

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> "Dense":
        """From what `arrays` gave."""
        return cls(arrays["lines"], arrays["vectors"], arrays.get("matrix"), arrays.get("offset"))
