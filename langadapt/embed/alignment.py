"""One space for the words of two languages: the rotation that brings the pairs of a dictionary together."""

from collections.abc import Iterable

import numpy as np

from langadapt.core.errors import DataError
from langadapt.embed.inputs import Floats
from langadapt.embed.vectors import WordVectors


def procrustes(source: Floats, target: Floats) -> Floats:
    """W = U V' with U S V' the SVD of source' target: the orthogonal W that minimises the norm of source W - target.

    (Schoenemann 1966.) Computed in float64.
    """
    left, _, right = np.linalg.svd(source.astype(np.float64).T @ target.astype(np.float64))
    rotation: Floats = (left @ right).astype(np.float32)
    return rotation


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
    source, target = _wide(base.table[first], width), _wide(new.table[second], width)
    return procrustes(source, target)[: base.width], len(first)


def _wide(table: Floats, width: int) -> Floats:
    return np.pad(table, ((0, 0), (0, width - table.shape[1])))
