"""Texts that share keys become clusters; the keys wait on disk, so memory holds 8 bytes a text and one band."""

import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from langadapt.core import interrupt
from langadapt.corpus.dedup import PART, parts
from langadapt.corpus.neardup import BANDS, band_keys

# Fits the caches: with larger batches the same work takes a third longer.
BATCH_CHARACTERS = 1 << 17

Places = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.uint32]
# (where a block of keys begins in the file, how many texts it holds)
Blocks = list[tuple[int, int]]


def near_duplicates(texts: Iterable[tuple[int, str]], count: int, folder: Path) -> Numbers:
    """Clusters of near-duplicates among `count` numbered texts: for each text the smallest number of its cluster.

    A text stands alone if it is not among `texts` or has too few shingles. The result does not depend on the order.
    """
    parent = np.arange(count, dtype=np.uint32)
    with tempfile.TemporaryFile(dir=folder) as file:
        found = array("I")
        blocks = _spill(texts, file, found)
        if not found:
            return parent
        numbers = np.frombuffer(found, np.uint32)
        keys = np.empty(len(numbers), np.uint64)
        for band in range(BANDS):
            _read_band(file, blocks, band, keys)
            for first, second in _equal(keys):
                interrupt.poll()
                union(parent, numbers[first], numbers[second])
    _settle(parent)
    return parent


def _spill(texts: Iterable[tuple[int, str]], file: IO[bytes], found: "array[int]") -> Blocks:
    blocks: Blocks = []
    end = 0
    for numbers, batch in _batches(texts):
        keys, enough = band_keys(batch)
        if keys.shape[1]:
            file.write(keys.tobytes())
            found.extend(np.array(numbers, np.uint32)[enough].tolist())
            blocks.append((end, keys.shape[1]))
            end += keys.nbytes
    return blocks


def _batches(texts: Iterable[tuple[int, str]]) -> Iterator[tuple[list[int], list[str]]]:
    numbers: list[int] = []
    batch: list[str] = []
    size = 0
    for number, text in texts:
        numbers.append(number)
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield numbers, batch
            numbers, batch, size = [], [], 0
    if batch:
        yield numbers, batch


def _read_band(file: IO[bytes], blocks: Blocks, band: int, keys: npt.NDArray[np.uint64]) -> None:
    filled = 0
    for at, count in blocks:
        file.seek(at + band * count * 8)
        keys[filled : filled + count] = np.frombuffer(file.read(count * 8), np.uint64)
        filled += count


def _equal(keys: npt.NDArray[np.uint64]) -> Iterator[tuple[Places, Places]]:
    """Pairs of places with equal keys, enough of them to connect all places of one key."""
    for part in parts(keys):
        order = part[np.argsort(keys[part])]
        same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
        yield order[same], order[same + 1]


def roots(parent: Numbers, places: Numbers) -> Numbers:
    """Follow `parent` to the end from all `places` at once."""
    found = parent[places]
    while True:
        above = parent[found]
        if np.array_equal(above, found):
            return found
        found = above


def union(parent: Numbers, first: Numbers, second: Numbers) -> None:
    """Join the trees of each pair, in place; the smaller root wins, so that a root is the smallest of its cluster."""
    while len(first):
        one, other = roots(parent, first), roots(parent, second)
        # short paths for the next time
        parent[first], parent[second] = one, other
        apart = one != other
        first, second, one, other = first[apart], second[apart], one[apart], other[apart]
        # of several pairs with one larger root the smallest partner wins now, the others in the next round
        np.minimum.at(parent, np.maximum(one, other), np.minimum(one, other))


def _settle(parent: Numbers) -> None:
    """Let every text point at its root; in pieces, because indexing copies."""
    for at in range(0, len(parent), PART):
        piece = slice(at, at + PART)
        parent[piece] = roots(parent, parent[piece])
