"""Exact duplicates, equal after NFC with white space collapsed; the first by id stays, whatever the file order."""

import hashlib
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from langadapt.corpus.numbers import Numbers

# So many keys are sorted at once; more cost memory, fewer cost time.
PART = 1 << 20
_HALVES = struct.Struct(">QQ")


def content_hash(text: str) -> tuple[int, int]:
    """128 bits of the text with white space collapsed, as two unsigned 64-bit numbers; `text` is NFC already."""
    return words_hash(text.split())


def words_hash(words: list[str]) -> tuple[int, int]:
    """`content_hash` of a text that is split already."""
    digest = hashlib.blake2b(" ".join(words).encode(), digest_size=16).digest()
    high, low = _HALVES.unpack(digest)
    return high, low


def first_of_each(high: Numbers, low: Numbers, ids: Numbers) -> npt.NDArray[np.uint32]:
    """For each document the place of the one to keep: with equal content (high, low) and the smallest id."""
    first = np.empty(len(ids), np.uint32)
    for part, low_N in low.split(PART):
        high_N, id_N = high.take(part), ids.take(part)
        order = np.lexsort((part, id_N, low_N, high_N))
        high_N, low_N, part = high_N[order], low_N[order], part[order]
        new = np.ones(len(order), bool)
        new[1:] = (high_N[1:] != high_N[:-1]) | (low_N[1:] != low_N[:-1])
        first[part] = part[new][np.cumsum(new) - 1]
    return first


def places_of(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    """Places where the mask is true; in pieces, because numpy finds them as 64-bit numbers."""
    found = [np.flatnonzero(mask[at : at + PART]).astype(np.uint32) + np.uint32(at) for at in range(0, len(mask), PART)]
    return np.concatenate(found) if found else np.zeros(0, np.uint32)


def each(places: npt.NDArray[Any]) -> Iterator[int]:
    """The numbers of an array one by one, without a list of all of them."""
    for at in range(0, len(places), 1 << 16):
        yield from places[at : at + (1 << 16)].tolist()
