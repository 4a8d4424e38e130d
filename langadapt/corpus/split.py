"""Held-out split by content: adding text later moves no old document, and copies stay on one side.

A cluster of near-duplicates is held out by the smallest content hash of its texts. A text that comes in later can
therefore move a cluster only by joining it with a smaller hash than all that are there, and then only if the new hash
falls on the other side: with n texts there and a share of p that is one case in (n + 1) / (2 p (1 - p)), 1 in 51 for
n = 1 and p = 2 %. A text that is near two clusters makes them one, and one of them may move.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

PARTS = 10_000


def is_held_out(content_low: int, share: float) -> bool:
    """`content_low` is the low half of `dedup.content_hash`; `share` is a fraction with a resolution of 1/10,000."""
    return content_low % PARTS < round(share * PARTS)


def held_out(keys: npt.NDArray[np.uint64], share: float) -> npt.NDArray[np.bool_]:
    """`is_held_out` for many keys."""
    found: npt.NDArray[Any] = (keys % np.uint64(PARTS)) < round(share * PARTS)
    return found
