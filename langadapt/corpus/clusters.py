"""Texts that share keys become clusters; the keys wait on disk, so memory holds 4 bytes a text and part of a band."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from langadapt.core import interrupt
from langadapt.corpus.dedup import PART
from langadapt.corpus.neardup import BANDS, band_keys
from langadapt.corpus.numbers import CHUNK

# Fits the caches: with larger batches the same work takes a third longer.
BATCH_CHARACTERS = 1 << 17

Numbers = npt.NDArray[np.uint32]
Keys = npt.NDArray[np.uint64]
# (where a block begins in the file, how many texts it holds)
Blocks = list[tuple[int, int]]


def near_duplicates(texts: Iterable[tuple[int, str]], count: int, folder: Path) -> Numbers:
    """Clusters of near-duplicates among texts numbered below `count`: for each the smallest number of its cluster.

    A text stands alone if it is not among `texts` or has too few shingles. The result does not depend on the order.
    """
    parent = np.arange(count, dtype=np.uint32)
    with tempfile.TemporaryFile(dir=folder) as file:
        blocks = _spill(texts, file)
        bits = min(16, (sum(size for _, size in blocks) // PART).bit_length())
        for band in range(BANDS):
            for part in range(1 << bits):
                interrupt.poll()
                numbers, keys = _read(file, blocks, band, bits, part)
                order = np.argsort(keys)
                keys, numbers = keys[order], numbers[order]
                same = np.flatnonzero(keys[1:] == keys[:-1])
                union(parent, numbers[same], numbers[same + 1])
    _settle(parent)
    return parent


def _spill(texts: Iterable[tuple[int, str]], file: IO[bytes]) -> Blocks:
    """Write numbers and keys, band after band, of so many texts at once that they can be read in few pieces."""
    blocks: Blocks = []
    waiting: list[tuple[Numbers, Keys]] = []
    size = end = 0

    def write() -> None:
        nonlocal size, end, waiting
        numbers = np.concatenate([each for each, _ in waiting])
        file.write(numbers.tobytes())
        for band in range(BANDS):
            file.write(np.concatenate([keys[band] for _, keys in waiting]).tobytes())
        blocks.append((end, size))
        end += size * (4 + 8 * BANDS)
        waiting, size = [], 0

    for batch_numbers, batch in _batches(texts):
        keys, enough = band_keys(batch)
        if keys.shape[1]:
            waiting.append((np.array(batch_numbers, np.uint32)[enough], keys))
            size += keys.shape[1]
        if size >= CHUNK:
            write()
    if waiting:
        write()
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


def _read(file: IO[bytes], blocks: Blocks, band: int, bits: int, part: int) -> tuple[Numbers, Keys]:
    """Numbers and keys of one band, only those whose keys begin with the bits of `part`."""
    numbers, keys = [np.zeros(0, np.uint32)], [np.zeros(0, np.uint64)]
    for at, size in blocks:
        file.seek(at + size * (4 + 8 * band))
        found = np.frombuffer(file.read(size * 8), np.uint64)
        file.seek(at)
        owner = np.frombuffer(file.read(size * 4), np.uint32)
        if bits:
            here = np.flatnonzero(found >> np.uint64(64 - bits) == part)
            found, owner = found[here], owner[here]
        numbers.append(owner)
        keys.append(found)
    return np.concatenate(numbers), np.concatenate(keys)


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
