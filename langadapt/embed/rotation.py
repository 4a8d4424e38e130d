"""The rotation that brings two sets of vectors together, and one width for spaces of two."""

from typing import Any, TypeVar

import numpy as np

Doubles = np.ndarray[Any, np.dtype[np.float64]]
_Number = TypeVar("_Number", np.float32, np.float64)


def procrustes(source: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> Doubles:
    """W = U V' with U S V' the SVD of source' target: the orthogonal W that minimises the norm of source W - target.

    (Schoenemann 1966.) Computed in float64.
    """
    left, _, right = np.linalg.svd(source.astype(np.float64).T @ target.astype(np.float64))
    rotation: Doubles = left @ right
    return rotation


def widened(rows: np.ndarray[Any, np.dtype[_Number]], width: int) -> np.ndarray[Any, np.dtype[_Number]]:
    """Rows [n, width]: with zeros behind, which makes the space a part of a larger one."""
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])))
