"""Continued pair merging on integer ids: the part of vocabulary learning that every merge-based family shares."""

import heapq
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from langadapt.core.progress import Task

_SHIFT = 32
_MASK = (1 << _SHIFT) - 1
_NONE = -1


@dataclass(frozen=True, slots=True)
class Learned:
    """One merge: tokens `left` and `right` became `id`; the pair stood at `count` places at that moment."""

    left: int
    right: int
    id: int
    count: int


class PairLearner:
    """Merges the most frequent allowed pair again and again, as byte-pair encoding does, from a given segmentation.

    Texts are one linked list of positions, so a merge costs its occurrences and not the length of the words
    around them (scripts without spaces have words of hundreds of tokens). The heap is lazy: counts of a pair of
    known tokens only fall, so an entry that is too high is put back with the true count when it comes up.

    Ties go to the smaller bytes of the result, then to the shorter left half: the order never depends on ids
    or hashes. A result whose bytes are already a token is skipped, see `skipped`.
    """

    def __init__(
        self,
        segments: Sequence[Sequence[int]],
        weights: Sequence[int],
        contents: dict[int, bytes],
        *,
        next_id: int,
        min_count: int,
        allowed: Callable[[int, int, bytes, bytes], bool],
    ) -> None:
        """`segments[i]` are the ids of a word that occurs `weights[i]` times; `contents` must know every id.

        `allowed(left id, right id, left bytes, right bytes)` says whether two tokens may ever join.
        """
        self.merges: list[Learned] = []
        self.saved: list[int] = []
        """Tokens that each merge saved: the pairs it joined. `Learned.count` is more where a pair overlaps itself."""
        self.skipped: dict[bytes, int] = {}
        self.contents = dict(contents)
        self._known = set(contents.values())
        self._next_id = next_id
        self._min_count = min_count
        self._allowed = allowed
        self._counts: dict[int, int] = {}
        self._places: dict[int, array[int]] = {}
        self._heap: list[tuple[int, bytes, int, int]] = []
        self._lay_out(segments, weights)

    def _lay_out(self, segments: Sequence[Sequence[int]], weights: Sequence[int]) -> None:
        lengths = np.fromiter((len(segment) for segment in segments), np.int64, len(segments))
        total = int(lengths.sum())
        ids = np.fromiter((number for segment in segments for number in segment), np.int32, total)
        ends = np.zeros(total, bool)
        ends[np.cumsum(lengths[lengths > 0]) - 1] = True
        weight = np.repeat(np.asarray(weights, np.int64), lengths)
        places = np.arange(total, dtype=np.int32)
        following = np.where(ends, _NONE, places + 1).astype(np.int32)
        preceding = np.where(np.concatenate([[True], ends[:-1]]) if total else ends, _NONE, places - 1)
        self._ids = array("i", ids.tobytes())
        self._following = array("i", following.tobytes())
        self._preceding = array("i", preceding.astype(np.int32).tobytes())
        self._weight = array("q", weight.tobytes())

        starts = np.flatnonzero(~ends)
        keys = (ids[starts].astype(np.int64) << _SHIFT) | ids[starts + 1] if len(starts) else np.zeros(0, np.int64)
        order = np.argsort(keys, kind="stable")
        pairs, first = np.unique(keys[order], return_index=True)
        bounds = [*first.tolist(), len(order)]
        sums = np.add.reduceat(weight[starts][order], first) if len(first) else np.zeros(0, np.int64)
        for place, (pair, count) in enumerate(zip(pairs.tolist(), sums.tolist(), strict=True)):
            here = starts[order[bounds[place] : bounds[place + 1]]].astype(np.int32)
            self._consider(pair, count, array("i", here.tobytes()))

    def _consider(self, pair: int, count: int, places: "array[int]") -> None:
        # A pair below the limit is forgotten: its count cannot rise, because both of its tokens exist already.
        if count < self._min_count:
            return
        left, right = pair >> _SHIFT, pair & _MASK
        if self._allowed(left, right, self.contents[left], self.contents[right]):
            self._counts[pair] = count
            self._places[pair] = places
            self._push(pair, count)

    def _push(self, pair: int, count: int) -> None:
        left, right = self.contents[pair >> _SHIFT], self.contents[pair & _MASK]
        heapq.heappush(self._heap, (-count, left + right, len(left), pair))

    def learn(self, until: int, task: Task | None = None) -> bool:
        """Go on until there are `until` merges; False if the text gives no more at `min_count`."""
        while len(self.merges) < until:
            if not self._heap:
                return False
            entry, result, _, pair = heapq.heappop(self._heap)
            count = self._counts[pair]
            if count != -entry:
                if count >= self._min_count:
                    self._push(pair, count)
                continue
            if result in self._known:
                self.skipped[result] = self.skipped.get(result, 0) + count
                continue
            self._merge(pair, count, result)
            if task is not None:
                task.advance()
        return True

    def _merge(self, pair: int, count: int, result: bytes) -> None:
        left, right, new = pair >> _SHIFT, pair & _MASK, self._next_id
        self._next_id += 1
        self.merges.append(Learned(left, right, new, count))
        self.contents[new] = result
        self._known.add(result)
        del self._counts[pair]
        ids, following, preceding, weights = self._ids, self._following, self._preceding, self._weight
        old, gained = self._counts, dict[int, int]()
        places: dict[int, array[int]] = {}
        saved = 0
        for at in self._places.pop(pair):
            if ids[at] != left or (partner := following[at]) == _NONE or ids[partner] != right:
                continue
            weight, before, after = weights[at], preceding[at], following[partner]
            saved += weight
            for lost in (
                (ids[before] << _SHIFT | left) if before != _NONE else _NONE,
                (right << _SHIFT | ids[after]) if after != _NONE else _NONE,
            ):
                if lost in gained:
                    gained[lost] -= weight
                elif lost in old:
                    old[lost] -= weight
            if before != _NONE:
                key = ids[before] << _SHIFT | new
                gained[key] = gained.get(key, 0) + weight
                places.setdefault(key, array("i")).append(before)
            if after != _NONE:
                key = new << _SHIFT | ids[after]
                gained[key] = gained.get(key, 0) + weight
                places.setdefault(key, array("i")).append(at)
                preceding[after] = at
            ids[at], following[at], ids[partner] = new, after, _NONE
        self.saved.append(saved)
        for key, sum_ in gained.items():
            self._consider(key, sum_, places[key])
