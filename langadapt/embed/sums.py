"""Sums by key, for counts that are met one after the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from langadapt.embed.types import Ints

Doubles = np.ndarray[Any, np.dtype[np.float64]]


def added_up(keys: Sequence[Ints], values: Sequence[Any]) -> tuple[Ints, Doubles]:
    """(each key once, ascending; the sum of its values), from pieces of both that belong together."""
    found, where = np.unique(np.concatenate([*keys, np.zeros(0, dtype=np.int64)]), return_inverse=True)
    sums = np.bincount(where.ravel(), weights=np.concatenate([*values, np.zeros(0)]), minlength=len(found))
    return found, sums.astype(np.float64)
