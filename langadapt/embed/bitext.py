"""Which words of two languages translate each other, from pairs of sentences.

IBM model 1 (Brown et al. 1993) in both directions, with a preference for words at like places and one for no partner
at all (Dyer et al. 2013, fast_align, without its learned tension and its Bayesian prior):

    P(base word at i comes from new word at j)  ~  exp(-4 |i/m - j/n|) t(base word | new word)

t is learned by expectation maximisation. A link counts as the product of what the two directions say of it, so that a
rare word, which one direction links to everything around it, does not (Liang et al. 2006).
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from langadapt.core import interrupt
from langadapt.core.progress import Progress
from langadapt.embed.sums import Doubles, added_up
from langadapt.embed.types import Ints
from langadapt.embed.words import words_of

_TENSION = 4.0
_NO_PARTNER = 0.08
# A sentence of more words is left out. So are pairs behind so many links: 40 million are about 1 GB.
_LONGEST = 100
MOST_LINKS = 40_000_000
_LINKS_AT_A_TIME = 1_000_000
# What the two directions together hold for less likely is no translation.
_LEAST = 0.05


@dataclass(frozen=True)
class WordPairs:
    """Pair k is base word `base[left[k]]` and new word `new[right[k]]`, and was met about `counts[k]` times."""

    base: list[str]
    new: list[str]
    left: Ints
    right: Ints
    counts: Doubles
    sentences: int


@dataclass
class _Side:
    """The words of one language. Words that differ by case are one class, which is what the model sees."""

    words: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    class_of: "array[int]" = field(default_factory=lambda: array("q"))
    sentences: "array[int]" = field(default_factory=lambda: array("q"))
    lengths: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, words: list[str]) -> None:
        self.lengths.append(len(words))
        for word in words:
            if word not in self.words:
                self.words[word] = len(self.words)
                self.class_of.append(self.classes.setdefault(word.lower(), len(self.classes)))
            self.sentences.append(self.words[word])

    def frequencies(self) -> Doubles:
        """Share of each class in all words."""
        found = np.bincount(np.array(self.class_of)[np.array(self.sentences)], minlength=len(self.classes))
        return np.asarray(found / found.sum())


@dataclass(frozen=True)
class _Block:
    """Sentence pairs of m base and n new words: their words [pairs, m] and [pairs, n], and the place of each link in
    the table of word pairs [pairs, n, m]."""

    base: Ints
    new: Ints
    links: "np.ndarray[Any, np.dtype[np.int32]]"

    def near(self) -> Doubles:
        """exp(-4 |i/m - j/n|) as [n, m]."""
        n, m = self.links.shape[1:]
        places = np.abs((np.arange(n)[:, None] + 0.5) / n - (np.arange(m)[None, :] + 0.5) / m)
        return np.asarray(np.exp(-_TENSION * places))


def word_pairs(sentences: Iterable[tuple[str, ...]], max_pairs: int, iterations: int, progress: Progress) -> WordPairs:
    """Align at most `max_pairs` pairs (base sentence, new sentence) and count the links by words."""
    base, new = _Side(), _Side()
    links = 0
    pairs = islice(sentences, max_pairs)
    for pair in progress.track(pairs, "reading sentence pairs", unit="pairs", every=1000):
        first, second = words_of(pair[0]), words_of(pair[1])
        if 0 < len(first) <= _LONGEST and 0 < len(second) <= _LONGEST:
            base.add(first)
            new.add(second)
            links += len(first) * len(second)
        if links > MOST_LINKS:
            progress.warn(f"the first {len(base.lengths):,} sentence pairs are aligned: more would not fit in memory")
            break
    if not links:
        nothing: Ints = np.zeros(0, dtype=np.int64)
        return WordPairs([], [], nothing, nothing, np.zeros(0), 0)
    model = _Model(base, new)
    rounds = range(iterations)
    for _ in progress.track(rounds, f"aligning {len(base.lengths):,} pairs", total=iterations, unit="rounds"):
        model.learn()
    left, right, counts = model.links()
    return WordPairs(list(base.words), list(new.words), left, right, counts, len(base.lengths))


class _Model:
    """t in both directions for every pair of classes that stands in one pair of sentences."""

    def __init__(self, base: _Side, new: _Side) -> None:
        self._base, self._new = base, new
        self._classes = np.array(base.class_of), np.array(new.class_of)
        self._alone = base.frequencies(), new.frequencies()
        keys = [np.unique(self._keys(ours, theirs)) for ours, theirs in _shapes(base, new)]
        self._pairs: Ints = np.unique(np.concatenate(keys))
        self._blocks = [_Block(ours, theirs, self._places(ours, theirs)) for ours, theirs in _shapes(base, new)]
        self._of_base, self._of_new = self._pairs % len(base.classes), self._pairs // len(base.classes)
        self._base_by_new, self._new_by_base = np.ones(len(self._pairs)), np.ones(len(self._pairs))

    def _keys(self, base: Ints, new: Ints) -> Ints:
        """Pairs of classes [pairs, n, m] as numbers."""
        ours, theirs = self._classes[0][base], self._classes[1][new]
        return np.asarray(theirs[:, :, None] * len(self._base.classes) + ours[:, None, :])

    def _places(self, base: Ints, new: Ints) -> "np.ndarray[Any, np.dtype[np.int32]]":
        # looked up in rising order, for that is a hundred times faster than at random
        keys, where = np.unique(self._keys(base, new), return_inverse=True)
        places = np.searchsorted(self._pairs, keys).astype(np.int32)
        return places[where.reshape(len(base), new.shape[1], base.shape[1])]

    def learn(self) -> None:
        """One step of expectation maximisation in both directions."""
        first, second = np.zeros(len(self._pairs)), np.zeros(len(self._pairs))
        for block in self._blocks:
            interrupt.poll()
            by_new, by_base = self._likely(block)
            np.add.at(first, block.links.ravel(), by_new.ravel())
            np.add.at(second, block.links.ravel(), by_base.ravel())
        self._base_by_new = first / np.maximum(np.bincount(self._of_new, weights=first), 1e-300)[self._of_new]
        self._new_by_base = second / np.maximum(np.bincount(self._of_base, weights=second), 1e-300)[self._of_base]

    def _likely(self, block: _Block) -> tuple[Doubles, Doubles]:
        """Probability of each link [pairs, n, m]: that the base word comes from the new one, and the other way."""
        near = block.near()
        by_new = near / near.sum(axis=0) * self._base_by_new[block.links] * (1 - _NO_PARTNER)
        by_base = near / near.sum(axis=1)[:, None] * self._new_by_base[block.links] * (1 - _NO_PARTNER)
        alone = [frequency[classes[words]] for frequency, classes, words in self._sides(block)]
        by_new /= by_new.sum(axis=1, keepdims=True) + _NO_PARTNER * alone[0][:, None, :]
        by_base /= by_base.sum(axis=2, keepdims=True) + _NO_PARTNER * alone[1][:, :, None]
        return by_new, by_base

    def _sides(self, block: _Block) -> Iterator[tuple[Doubles, Any, Ints]]:
        return zip(self._alone, self._classes, (block.base, block.new), strict=True)

    def links(self) -> tuple[Ints, Ints, Doubles]:
        """(base words, new words, counts) by new word and then by base word."""
        keys: list[Ints] = []
        counts: list[Doubles] = []
        for block in self._blocks:
            by_new, by_base = self._likely(block)
            both = by_new * by_base
            words = block.new[:, :, None] * len(self._base.words) + block.base[:, None, :]
            likely = both > _LEAST
            keys.append(words[likely])
            counts.append(both[likely])
        found, sums = added_up(keys, counts)
        return found % len(self._base.words), found // len(self._base.words), sums


def _shapes(base: _Side, new: _Side) -> Iterator[tuple[Ints, Ints]]:
    """Sentence pairs of equal lengths together, in blocks: (base words [pairs, m], new words [pairs, n])."""
    m, n = np.array(base.lengths), np.array(new.lengths)
    ours, theirs = np.array(base.sentences), np.array(new.sentences)
    starts = np.cumsum(m) - m, np.cumsum(n) - n
    order = np.lexsort((n, m))
    borders = np.flatnonzero((np.diff(m[order]) != 0) | (np.diff(n[order]) != 0)) + 1
    for shape in np.split(order, borders):
        width, height = int(m[shape[0]]), int(n[shape[0]])
        step = max(1, _LINKS_AT_A_TIME // (width * height))
        for first in range(0, len(shape), step):
            part = shape[first : first + step]
            yield (
                ours[starts[0][part][:, None] + np.arange(width)],
                theirs[starts[1][part][:, None] + np.arange(height)],
            )
