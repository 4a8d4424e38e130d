"""Whose turn it is at each place of a stretch of the stream over which shares do not change."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from langadapt.core.errors import DataError
from langadapt.mixture.quota import fill

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Turns:
    """A table of sum(counts) turns, repeated from position `start` on; `bases` are the turns each source had before.

    Counts are exact at multiples of its length. A source with a count of 0 has no turn here.
    """

    start: int
    counts: tuple[int, ...]
    bases: tuple[int, ...]
    _table: list[int] = field(init=False, repr=False, compare=False)
    _ordinals: list[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if min(self.counts) < 0 or sum(self.counts) < 1:
            raise DataError("a stage of a mixture plan has at least one turn")
        table = fill(self.counts)
        seen = [0] * len(self.counts)
        ordinals = []
        for source in table:
            ordinals.append(seen[source])
            seen[source] += 1
        object.__setattr__(self, "_table", table)
        object.__setattr__(self, "_ordinals", ordinals)

    @property
    def slots(self) -> int:
        """Length of the table."""
        return len(self._table)

    def at(self, position: int) -> tuple[int, int]:
        """(source, which of its turns from the beginning of the stream on) at a position, `start` or more."""
        cycle, slot = divmod(position - self.start, self.slots)
        source = self._table[slot]
        return source, self.bases[source] + cycle * self.counts[source] + self._ordinals[slot]

    def at_many(self, first: int, stop: int) -> tuple[Numbers, Numbers]:
        """`at` for positions first..stop-1, as arrays of sources and turns."""
        cycles, slots = np.divmod(np.arange(first - self.start, stop - self.start), self.slots)
        sources = np.array(self._table)[slots]
        counts, bases = np.array(self.counts), np.array(self.bases)
        return sources, bases[sources] + cycles * counts[sources] + np.array(self._ordinals)[slots]

    def before(self, position: int) -> list[int]:
        """Turns of each source before a position, those before `start` included."""
        cycles, slot = divmod(position - self.start, self.slots)
        rest: Any = np.bincount(self._table[:slot], minlength=len(self.counts)) if slot else [0] * len(self.counts)
        return [
            base + cycles * count + int(more) for base, count, more in zip(self.bases, self.counts, rest, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"start": self.start, "slots": self.slots, "counts": list(self.counts), "bases": list(self.bases)}
