"""Exact duplicates, equal after NFC with white space collapsed; the first by id stays, whatever the file order."""

import hashlib

import numpy as np
import numpy.typing as npt


def content_hash(text: str) -> tuple[int, int]:
    """128 bits of the text with white space collapsed, as two unsigned 64-bit numbers; `text` is NFC already."""
    digest = hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def first_of_each(
    high_N: npt.NDArray[np.uint64], low_N: npt.NDArray[np.uint64], id_N: npt.NDArray[np.uint64]
) -> npt.NDArray[np.bool_]:
    """Which of N documents to keep: of those with equal content (high, low) the one with the smallest id."""
    order = np.lexsort((id_N, low_N, high_N))
    high, low = high_N[order], low_N[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    keep = np.zeros(len(order), dtype=bool)
    keep[order] = first
    return keep
