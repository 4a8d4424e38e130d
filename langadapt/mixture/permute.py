"""Keyed permutation of 0..size-1 without a table: a Feistel network with cycle walking."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

# Four rounds are the least that mixes both halves into each other twice; six leave no visible structure
# in neighbouring outputs at sizes as small as 16, and a round costs 1.5 µs.
ROUNDS = 6
_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB

Words = npt.NDArray[np.uint64]


def mix64(value: int) -> int:
    """Bijective scrambling of a 64-bit word (Steele, Lea and Flood 2014: the finaliser of SplitMix64)."""
    value = ((value ^ (value >> 30)) * _FIRST) & _WORD
    value = ((value ^ (value >> 27)) * _SECOND) & _WORD
    return value ^ (value >> 31)


def mix64_many(values: Words) -> Words:
    """`mix64` of every element."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_FIRST)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_SECOND)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class Permutation:
    """A bijection of range(size), fixed by a 128-bit key; `size` may be anything from 1 to 2**62."""

    size: int
    key: int
    _half: int = field(init=False, repr=False, compare=False)
    _mask: int = field(init=False, repr=False, compare=False)
    _keys: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 1 << 62:
            raise ValueError(f"a permutation of {self.size} things")
        bits = (self.size - 1).bit_length()
        half = max(1, (bits + 1) // 2)
        low, high = self.key & _WORD, (self.key >> 64) & _WORD
        keys = tuple(mix64((mix64((low + _GOLDEN * (number + 1)) & _WORD)) ^ high) for number in range(ROUNDS))
        object.__setattr__(self, "_half", half)
        object.__setattr__(self, "_mask", (1 << half) - 1)
        object.__setattr__(self, "_keys", keys)

    def __call__(self, index: int) -> int:
        """Where `index` goes; the domain is under four times `size`, so walking ends after 4 steps on average."""
        if not 0 <= index < self.size:
            raise IndexError(f"{index} is not in range({self.size})")
        while True:
            index = self._round_trip(index)
            if index < self.size:
                return index

    def inverse(self, index: int) -> int:
        """What goes to `index`."""
        if not 0 <= index < self.size:
            raise IndexError(f"{index} is not in range({self.size})")
        while True:
            left, right = index >> self._half, index & self._mask
            for key in reversed(self._keys):
                left, right = right ^ (mix64(left ^ key) & self._mask), left
            index = left << self._half | right
            if index < self.size:
                return index

    def _round_trip(self, index: int) -> int:
        left, right = index >> self._half, index & self._mask
        for key in self._keys:
            left, right = right, left ^ (mix64(right ^ key) & self._mask)
        return left << self._half | right

    def many(self, indices: Words) -> Words:
        """The same for an array of uint64."""
        result = indices.astype(np.uint64)
        if result.size and int(result.max()) >= self.size:
            raise IndexError(f"{int(result.max())} is not in range({self.size})")
        half, mask = np.uint64(self._half), np.uint64(self._mask)
        todo = np.arange(result.size)
        while todo.size:
            left, right = result[todo] >> half, result[todo] & mask
            for key in self._keys:
                left, right = right, left ^ (mix64_many(right ^ np.uint64(key)) & mask)
            walked = left << half | right
            result[todo] = walked
            todo = todo[walked >= self.size]
        return result
