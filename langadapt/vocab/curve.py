"""How many tokens: what each new one saves, from the learner's own running total.

A merge saves exactly as many tokens as it joins pairs, and merges are nested: the first n of a long run are the run of
length n. So one run gives the tokens of the training words at every size, exactly, as long as no token is left out
afterwards. Leaving out rare ones and learning others instead (prune.py) makes the tokenizer of a size a little better
than its point here. The rejected alternative, held-out text cut with a dozen prefixes, costs a pass each and has noise
of the size of what is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

# What "more" means wherever somebody asks whether more tokens are worth it.
NEXT = 1000
# With `size: auto`: stop where the next 1,000 tokens save less than this share of all tokens of the text.
LEAST_SAVING = 0.005
# Sizes that `auto` may stop at are multiples of this: a finer answer would be chance.
GRAIN = 100
_POINTS = 30

Why = Literal["saving", "limit", "text"]


@dataclass(frozen=True)
class Curve:
    """`tokens` and `size` (bytes) of the training words before; `saved[i]` is what the new token i+1 saves of them.

    `complete` if the text gives no more tokens than these.
    """

    tokens: int
    size: int
    saved: Sequence[int]
    complete: bool

    @cached_property
    def _total(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(self.saved, np.int64))])

    def tokens_with(self, added: int) -> int:
        """Tokens of the training words with the first `added` new tokens."""
        return self.tokens - int(self._total[min(added, len(self.saved))])

    def next_saving(self, added: int) -> int | None:
        """Tokens that 1,000 more save (or all that the text still gives); None if that was not learned."""
        if added + NEXT > len(self.saved) and not self.complete:
            return None
        return self.tokens_with(added) - self.tokens_with(added + NEXT)

    def stop(self, limit: int) -> tuple[int, Why] | None:
        """The first size at which 1,000 more tokens save too little, at most `limit`; None if more must be learned."""
        for added in range(0, limit, GRAIN):
            saving = self.next_saving(added)
            if saving is None:
                return None
            if added >= len(self.saved):
                return len(self.saved), "text"
            if saving < LEAST_SAVING * self.tokens_with(added):
                return added, "saving"
        if self.next_saving(limit) is None:
            return None
        return (limit, "limit") if limit <= len(self.saved) else (len(self.saved), "text")

    def points(self) -> list[dict[str, int | float | None]]:
        """About 30 sizes, evenly spaced but closer at the beginning, where the curve is steep, and the last one."""
        step = _step(len(self.saved))
        sizes = {0, step // 8, step // 4, step // 2, *range(step, len(self.saved) + 1, step), len(self.saved)}
        return [self._point(added) for added in sorted(sizes)]

    def _point(self, added: int) -> dict[str, int | float | None]:
        tokens, saving = self.tokens_with(added), self.next_saving(added)
        return {
            "added": added,
            "bytes_per_token": round(self.size / tokens, 4) if tokens else None,
            "saved_by_next_1000": saving,
            "share_saved_by_next_1000": None if saving is None or not tokens else round(saving / tokens, 6),
        }

    def record(self, unit: int = 1) -> dict[str, Any]:
        """What curve.json holds. `unit` is what one occurrence in the smallest language counts, see shares.py."""
        points = self.points()
        for point in points:
            if point["saved_by_next_1000"] is not None:
                point["saved_by_next_1000"] = round(point["saved_by_next_1000"] / unit)
        return {
            "measured_on": "training words, before rare tokens are left out",
            "bytes": round(self.size / unit),
            "tokens": round(self.tokens / unit),
            "complete": self.complete,
            "points": points,
        }


def _step(most: int) -> int:
    """A round step that goes into `most` about 30 times."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if most <= _POINTS * factor * step:
                return factor * step
        step *= 10
