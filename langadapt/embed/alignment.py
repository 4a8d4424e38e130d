"""One space for the words of two languages: the rotation that brings the pairs of a dictionary together."""

from collections.abc import Iterable

import numpy as np

from langadapt.core.errors import DataError
from langadapt.embed.inputs import Floats
from langadapt.embed.rotation import procrustes, widened
from langadapt.embed.vectors import WordVectors


def dictionary_places(
    pairs: Iterable[tuple[str, ...]], base: WordVectors, new: WordVectors
) -> tuple[list[int], list[int]]:
    """Lines of the words of each pair in the two tables, in every spelling (as it stands, lower, Title) both know."""
    ours, theirs = base.index(), new.index()
    found: dict[tuple[int, int], None] = {}
    for pair in pairs:
        first, second = pair[0], pair[1]
        for one in dict.fromkeys((first, first.lower(), first.title())):
            for two in dict.fromkeys((second, second.lower(), second.title())):
                if one in ours and two in theirs:
                    found[ours[one], theirs[two]] = None
    return [first for first, _ in found], [second for _, second in found]


def aligned(base: WordVectors, new: WordVectors, pairs: Iterable[tuple[str, ...]]) -> tuple[Floats, int]:
    """(W [base width, new width], number of pairs used): base vectors times W lie in the space of the new ones.

    Of two widths the smaller space becomes a part of the larger. DataError if no pair is in both tables.
    """
    first, second = dictionary_places(pairs, base, new)
    if not first:
        raise DataError(
            "no pair of the dictionary is in both tables of word vectors",
            where="dictionary",
            hint="a line is `base word<TAB>new word`; is the order right, and are these the languages of the vectors?",
        )
    width = max(base.width, new.width)
    source, target = widened(base.table[first], width), widened(new.table[second], width)
    return procrustes(source, target).astype(np.float32)[: base.width], len(first)
