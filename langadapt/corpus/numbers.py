"""One number a text, on disk but for the last ones: what a corpus of many short texts cannot keep in memory."""

import os
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

# So many are kept before they are written, and read at once: half a MB.
CHUNK = 1 << 16
_KINDS = {"Q": np.uint64, "I": np.uint32}

Array = npt.NDArray[Any]


class Numbers:
    """Numbers of one kind (`Q`: 64 bits, `I`: 32 bits) in the order in which they were appended."""

    def __init__(self, kind: Literal["Q", "I"], folder: Path | None = None) -> None:
        """`folder` is where the file goes if one is needed; by default where the system keeps temporary files."""
        self._kind, self._folder = kind, folder
        self._tail = array(kind)
        self._size = self._tail.itemsize
        self._file: IO[bytes] | None = None
        self._written = 0

    def __len__(self) -> int:
        return self._written + len(self._tail)

    def append(self, number: int) -> None:
        """One more."""
        self._tail.append(number)
        if len(self._tail) >= CHUNK:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (gone with this object)
            self._file.write(self._tail.tobytes())
            self._file.flush()
            self._written += len(self._tail)
            self._tail = array(self._kind)

    def put(self, place: int, number: int) -> None:
        """Another number for a place that has one."""
        if self._file is None or place >= self._written:
            self._tail[place - self._written] = number
        else:
            os.pwrite(self._file.fileno(), array(self._kind, [number]).tobytes(), place * self._size)

    def part(self, start: int, stop: int) -> Array:
        """Those from `start` to before `stop`."""
        found = []
        if self._file is not None and start < self._written:
            count = min(stop, self._written) - start
            data = os.pread(self._file.fileno(), count * self._size, start * self._size)
            found.append(np.frombuffer(data, _KINDS[self._kind]))
        tail = self._tail[max(0, start - self._written) : max(0, stop - self._written)]
        if tail or not found:
            found.append(np.array(tail, _KINDS[self._kind]))
        return np.concatenate(found) if len(found) > 1 else found[0]

    def chunks(self) -> Iterator[tuple[slice, Array]]:
        """All of them, in pieces, with the places of each."""
        for start in range(0, len(self), CHUNK):
            place = slice(start, min(start + CHUNK, len(self)))
            yield place, self.part(place.start, place.stop)

    def take(self, places: Array) -> Array:
        """Those at `places`, which may be in any order; costs a look at the file from the first to the last of them."""
        order = np.argsort(places, kind="stable")
        ordered = places[order]
        found = np.empty(len(places), _KINDS[self._kind])
        at = 0
        while at < len(ordered):
            start = int(ordered[at]) // CHUNK * CHUNK
            end = int(np.searchsorted(ordered, start + CHUNK))
            last = int(ordered[end - 1]) + 1
            found[order[at:end]] = self.part(start, last)[ordered[at:end].astype(np.int64) - start]
            at = end
        return found

    def copy(self) -> "Numbers":
        """The same numbers once more."""
        other = Numbers(self._kind, self._folder)
        for _, part in self.chunks():
            for number in part.tolist():
                other.append(number)
        return other

    def split(self, most: int) -> Iterator[tuple[Array, Array]]:
        """(places, numbers), divided so that equal numbers are together and a part holds about `most` of them.

        The parts are in the order of the numbers, which must be spread evenly (hashes); places are in theirs.
        """
        bits = min(16, (len(self) // most).bit_length())
        for value in range(1 << bits):
            places, numbers = [np.zeros(0, np.uint32)], [np.zeros(0, _KINDS[self._kind])]
            for place, part in self.chunks():
                here = np.arange(len(part)) if not bits else np.flatnonzero(part >> np.uint64(64 - bits) == value)
                places.append((here + place.start).astype(np.uint32))
                numbers.append(part[here])
            yield np.concatenate(places), np.concatenate(numbers)
