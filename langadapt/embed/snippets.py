"""Where new tokens stand in text: short stretches of a corpus, each cut by the new tokenizer and by the old one."""

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from langadapt.core.errors import DataError
from langadapt.core.types import Snippet

# A text as (ids, byte offset behind each token).
Cut = tuple[tuple[int, ...], tuple[int, ...]]
Ints32 = np.ndarray[Any, np.dtype[np.int32]]
_PARTS = ("new", "old", "new_at", "old_at")


@dataclass(frozen=True)
class Snippets:
    """Many snippets in flat arrays: 1 kB each. `counts` says in how many each of the wanted tokens stands."""

    values: dict[str, Ints32]
    ends: dict[str, "np.ndarray[Any, np.dtype[np.int64]]"]
    counts: dict[int, int]
    texts: int

    def __len__(self) -> int:
        return len(self.ends["new"]) - 1

    def __getitem__(self, at: int) -> Snippet:
        return Snippet(*(self.values[part][self.ends[part][at] : self.ends[part][at + 1]] for part in _PARTS))

    def longest(self) -> tuple[int, int]:
        """Most tokens of one snippet under the new and under the old tokenizer."""
        new, old = (int(np.diff(self.ends[part]).max(initial=0)) for part in ("new", "old"))
        return new, old

    def tokens(self) -> tuple[int, int]:
        """Tokens of all snippets under the new and under the old tokenizer."""
        return int(self.ends["new"][-1]), int(self.ends["old"][-1])


def find_snippets(
    texts: Iterable[str],
    cut_new: Callable[[str], Cut],
    cut_old: Callable[[str], Cut],
    wanted: Collection[int],
    *,
    each: int,
    tokens: int,
    most: int | None = None,
) -> Snippets:
    """Stretches of about `tokens` new tokens, read once in order, so that each wanted token stands in `each` of them.

    Texts are cut into stretches one after the other; a stretch is taken while one of its wanted tokens stands in
    fewer than `each` that were, so at most `each` times the wanted tokens are kept, however long the text is. Reading
    ends when all have enough, or with `most` stretches. DataError if no text holds a wanted token.
    """
    counts = dict.fromkeys(sorted(wanted), 0)
    values = {part: array("i") for part in _PARTS}
    ends = {part: array("q", [0]) for part in _PARTS}
    read, hungry = 0, len(counts)
    for text in texts:
        if hungry == 0 or (most is not None and len(ends["new"]) > most):
            break
        read += 1
        for snippet in _stretches(cut_new(text), cut_old(text), counts, tokens):
            there = {int(id) for id in snippet[0] if id in counts}
            if not any(counts[id] < each for id in there):
                continue
            for id in there:
                counts[id] += 1
                hungry -= counts[id] == each
            for part, numbers in zip(_PARTS, snippet, strict=True):
                values[part].extend(numbers)
                ends[part].append(len(values[part]))
            if most is not None and len(ends["new"]) > most:
                break
    if len(ends["new"]) == 1:
        raise DataError(
            f"none of the {len(counts):,} new tokens stands in the text",
            where="corpus",
            hint="give text in the language that the tokens were made for",
        )
    flat = {part: np.frombuffer(values[part], dtype=np.int32) for part in _PARTS}
    return Snippets(flat, {part: np.frombuffer(ends[part], dtype=np.int64) for part in _PARTS}, counts, read)


def _stretches(new: Cut, old: Cut, wanted: Collection[int], tokens: int) -> Iterator[tuple[list[int], ...]]:
    """(new ids, old ids, places in new, places in old) of each stretch of a text that holds a wanted token."""
    place_in_old = {end: at for at, end in enumerate(old[1])}
    ids, ends = new
    # a token that ends where the next one ends has no bytes of its own: the last of them is at that place
    common = [at for at, end in enumerate(ends) if end in place_in_old and (at + 1 == len(ends) or ends[at + 1] != end)]
    for first, last in pairwise(_bounds(common, tokens)):
        begin = next((at for at in range(first, last) if ids[at] in wanted), None)
        if begin is None:
            continue
        start = place_in_old[ends[first - 1]] + 1 if first else 0
        stop = place_in_old[ends[last - 1]] + 1
        here = [at for at in common if begin <= at < last]
        yield (
            list(ids[first:last]),
            list(old[0][start:stop]),
            [at - first for at in here],
            [place_in_old[ends[at]] - start for at in here],
        )


def _bounds(common: list[int], tokens: int) -> list[int]:
    """Where stretches begin and end (places in new): behind tokens that end in both, `tokens` or a few more apart."""
    found = [0]
    for at in common:
        if at + 1 - found[-1] >= tokens:
            found.append(at + 1)
    if common and common[-1] + 1 > found[-1]:
        found.append(common[-1] + 1)
    return found
