"""Exact duplicates, equal after NFC with white space collapsed; the first by id stays, whatever the file order."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

# So many keys are sorted at once; more cost memory, fewer cost time.
PART = 1 << 20


def content_hash(text: str) -> tuple[int, int]:
    """128 bits of the text with white space collapsed, as two unsigned 64-bit numbers; `text` is NFC already."""
    digest = hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def first_of_each(
    high_N: npt.NDArray[np.uint64], low_N: npt.NDArray[np.uint64], id_N: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint32]:
    """For each of N documents the place of the one to keep: with equal content (high, low) and the smallest id."""
    first = np.empty(len(id_N), np.uint32)
    for part in parts(low_N):
        order = part[np.lexsort((part, id_N[part], low_N[part], high_N[part]))]
        high, low = high_N[order], low_N[order]
        new = np.ones(len(order), bool)
        new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        first[order] = order[new][np.cumsum(new) - 1]
    return first


def parts(keys: npt.NDArray[np.uint64]) -> Iterator[npt.NDArray[np.int64]]:
    """Places of `keys`, divided so that equal keys are together and each part holds about a million: sorting copies."""
    bits = min(8, (len(keys) // PART).bit_length())
    if not bits:
        yield np.arange(len(keys), dtype=np.int64)
        return
    label = np.empty(len(keys), np.uint8)
    for at in range(0, len(keys), PART):
        label[at : at + PART] = keys[at : at + PART] >> np.uint64(64 - bits)
    for value in range(1 << bits):
        yield np.flatnonzero(label == value)


def places_of(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    """Places where the mask is true; in pieces, because numpy finds them as 64-bit numbers."""
    found = [np.flatnonzero(mask[at : at + PART]).astype(np.uint32) + np.uint32(at) for at in range(0, len(mask), PART)]
    return np.concatenate(found) if found else np.zeros(0, np.uint32)


def each(places: npt.NDArray[Any]) -> Iterator[int]:
    """The numbers of an array one by one, without a list of all of them."""
    for at in range(0, len(places), 1 << 16):
        yield from places[at : at + (1 << 16)].tolist()
