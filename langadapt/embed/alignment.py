"""One space for the words of two languages: the rotation that brings the pairs of a dictionary together."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from langadapt.core.errors import DataError
from langadapt.embed.nearest import neighbors, unit
from langadapt.embed.rotation import procrustes, widened
from langadapt.embed.types import Floats, Ints
from langadapt.embed.vectors import WordVectors

# One base word in ten is kept out of the fit that is tried; more than 1,000 say no more, fewer than 20 nothing.
_EVERY, _MOST_TRIED, _FEWEST_TRIED = 10, 1000, 20


def dictionary_places(pairs: Iterable[tuple[str, ...]], base: WordVectors, new: WordVectors) -> tuple[Ints, Ints, Ints]:
    """(lines in the base's table, lines in the new one, how often) of word pairs that both tables know.

    Every pair counts in every spelling: as it stands, in lower case, in Title case, each of these with each. Where two
    spellings are one and the same it counts for both, so that what is in lower case weighs most (as in WECHSEL's code).
    """
    ours, theirs = base.index(), new.index()
    found: Counter[tuple[int, int]] = Counter()
    for pair in pairs:
        first, second = pair[0], pair[1]
        firsts = [ours[word] for word in (first, first.lower(), first.title()) if word in ours]
        seconds = [theirs[word] for word in (second, second.lower(), second.title()) if word in theirs]
        found.update(product(firsts, seconds))
    places = np.array(list(found), dtype=np.int64).reshape(-1, 2)
    return places[:, 0], places[:, 1], np.array(list(found.values()), dtype=np.int64)


@dataclass(frozen=True)
class Alignment:
    """`rotation` [base width, width of the wider]: base vectors times it lie in the space of the new ones.

    `accuracy`: share of `tried` base words, kept out of another fit of the same kind, whose nearest new word is one of
    those in the dictionary. None where the dictionary is too small to tell.
    """

    rotation: Floats
    pairs: int
    accuracy: float | None
    tried: int


def aligned(base: WordVectors, new: WordVectors, pairs: Iterable[tuple[str, ...]]) -> Alignment:
    """Of two widths the smaller space becomes a part of the larger. DataError if no pair is in both tables."""
    first, second, counts = dictionary_places(pairs, base, new)
    if not len(first):
        raise DataError(
            "no pair of the dictionary is in both tables of word vectors",
            where="dictionary",
            hint="a line is `base word<TAB>new word`; is the order right, and are these the languages of the vectors?",
        )
    width = max(base.width, new.width)

    def fit(chosen: "np.ndarray[Any, np.dtype[np.bool_]]") -> Floats:
        source = widened(base.table[first[chosen]], width).astype(np.float64) * counts[chosen, None]
        target = widened(new.table[second[chosen]], width)
        return procrustes(source, target).astype(np.float32)[: base.width]

    words = np.unique(first)
    out = words[:: max(_EVERY, len(words) // _MOST_TRIED + 1)]
    accuracy = None
    if len(out) >= _FEWEST_TRIED:
        kept = ~np.isin(first, out)
        queries, keys = unit(base.table[out] @ fit(kept)), unit(widened(new.table, width))
        nearest = neighbors(queries, keys, 1)[1][:, 0]
        right = set(zip(first.tolist(), second.tolist(), strict=True))
        accuracy = sum(pair in right for pair in zip(out.tolist(), nearest.tolist(), strict=True)) / len(out)
    return Alignment(fit(np.ones(len(first), dtype=np.bool_)), len(first), accuracy, len(out))
