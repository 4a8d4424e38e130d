"""fastText's arithmetic for many short texts at once, four to eight times as fast as one call each.

A text is the mean of the vectors of its features, which are its words and their character n-grams (Bojanowski et al.
2017); the sum over one word is always the same, so it is computed once and remembered. The labels are the leaves of a
Huffman tree with a logistic decision at every node (Joulin et al. 2016). Only models of this shape are taken, small
ones, and only if they give the same shares as fastText itself; `Table.of` says None for any other.

What a text gets does not depend on the texts beside it: there is no BLAS here, whose sums change with the shape.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from langadapt.core.fasttext_file import pruned_buckets

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

# Rows of 16 numbers: lid.176.ftz has 50,000. Whole models have millions, and are left to fastText.
MOST_NUMBERS = 1 << 22
# 2^17 words take about 40 MB; then all are forgotten, which costs a third more than never forgetting.
MOST_WORDS = 1 << 17
MOST_CHARACTERS = 1 << 21
# fastText takes the logarithm of a share plus this.
_LITTLE = np.float32(1e-5)
_END = "</s>"
_LABEL = "__label__"
_FNV_START, _FNV_PRIME = 2166136261, np.uint32(16777619)
_TRIALS = (
    "the quick brown fox jumps over the lazy dog",
    "árvíztűrő tükörfúrógép és más szavak, amelyek hosszúak",
    "Съешь ещё этих мягких французских булок",
    "ภาษาไทยเป็นภาษาที่มีระดับเสียง",
    "a 1 𐍈𐌰 __label__x x",
)


@dataclass(frozen=True, slots=True)
class Shares:
    """For each text the likeliest label and its share, and the share of the accepted ones among the five likeliest."""

    label: list[str]
    share: list[float]
    accepted: list[float]


class _Words(dict[str, int]):
    """Word -> place; what is new gets the next place and waits in `fresh`."""

    def __init__(self) -> None:
        super().__init__()
        self.fresh: list[str] = []

    def __missing__(self, word: str) -> int:
        place = self[word] = len(self)
        self.fresh.append(word)
        return place


class Table:
    """One model; `shares` judges texts with it."""

    def __init__(self, model: Any, path: Path) -> None:
        """Use `of`. `model` is fastText's own object (`.f` of the wrapper)."""
        args = model.getArgs()
        vocabulary, _ = model.getVocab("replace")
        self._known = {word: number for number, word in enumerate(vocabulary)}
        self._least, self._most, self._buckets = int(args.minn), int(args.maxn), int(args.bucket)
        pruned = pruned_buckets(path)
        if pruned is None:
            self._row_of = np.arange(self._buckets, dtype=np.int32)
        else:
            self._row_of = np.full(max(1, self._buckets), -1, np.int32)
            self._row_of[pruned[:, 0]] = pruned[:, 1]
        self._row_of[self._row_of >= 0] += len(vocabulary)
        self._rows = _rows(model, int(self._row_of.max(initial=len(vocabulary) - 1)) + 1, int(args.dim))
        self.labels, counts = model.getLabels("strict")
        self._tree = _Tree(list(counts), np.array(model.getOutputMatrix(), np.float32))
        self._words = _Words()
        self._sums = np.zeros((0, args.dim + 1), np.float32)
        self._characters = 0
        self._forget()

    @classmethod
    def of(cls, model: Any, path: Path) -> "Table | None":
        """The table of a model, or None where fastText has to be asked itself."""
        args = model.getArgs()
        buckets = int(args.bucket) if pruned_buckets(path) is None else 0
        whole = (buckets + len(model.getVocab("replace")[0])) * int(args.dim) <= MOST_NUMBERS
        if args.loss.name != "hs" or args.wordNgrams != 1 or args.qout or args.maxn <= 0 or not whole:
            return None
        table = cls(model, path)
        return table if table._is_right(model) else None

    def _is_right(self, model: Any) -> bool:
        shares = self._tree.leaves(self._means(list(_TRIALS)))
        for column, text in enumerate(_TRIALS):
            for share, label in model.predict(text + "\n", 5, 0.0, "strict"):
                if not abs(share - shares[self.labels.index(label), column]) < 1e-3:
                    return False
        return True

    def shares(self, texts: Sequence[str], names: Sequence[str], accepted: Numbers) -> Shares:
        """Judge all texts, which have no line ends in them; `names` is what the labels are called, `accepted` which
        of them are added up."""
        if not texts:
            return Shares([], [], [])
        leaves = self._tree.leaves(self._means(texts))
        top = leaves.argmax(axis=0)
        total = np.zeros(len(texts), np.float32)
        for label in accepted:
            own = leaves[label]
            among = (leaves > own).sum(axis=0) < 5
            total += np.where(among, own, np.float32(0))
        share = np.minimum(1, leaves[top, np.arange(len(texts))])
        return Shares([names[label] for label in top.tolist()], share.tolist(), np.minimum(1, total).tolist())

    def _means(self, texts: Sequence[str]) -> Floats:
        """Mean vector of each text, [dim, texts]."""
        text = f" {_END} ".join(texts)
        if text.count(_END) >= len(texts) or "\0" in text:
            # fastText stops at a word that is its sign for the end, and takes NUL for a space
            texts = [_before_end(part.replace("\0", " ")) for part in texts]
            text = f" {_END} ".join(texts)
        words = text.split()
        words.append(_END)
        if len(self._words) > MOST_WORDS or self._characters > MOST_CHARACTERS:
            self._forget()
        places = np.frombuffer(array("i", map(self._words.__getitem__, words)), np.int32)
        if self._words.fresh:
            self._learn()
        # the sign for the end has place 0
        ends = np.flatnonzero(places == 0)
        starts = np.zeros(len(ends), np.int64)
        starts[1:] = ends[:-1] + 1
        sums = np.add.reduceat(self._sums[places], starts, axis=0)
        means: Floats = np.ascontiguousarray(sums[:, :-1].T)
        means /= np.maximum(sums[:, -1], 1)
        return means

    def _forget(self) -> None:
        self._words.clear()
        self._words.fresh = []
        self._sums = np.zeros((1024, self._sums.shape[1]), np.float32)
        self._characters = 0
        self._words[_END] = 0
        if _END in self._known:
            self._sums[0, :-1] = self._rows[self._known[_END]]
            self._sums[0, -1] = 1

    def _learn(self) -> None:
        fresh, self._words.fresh = self._words.fresh, []
        if len(self._words) > len(self._sums):
            larger = np.zeros((max(len(self._words), 2 * len(self._sums)), self._sums.shape[1]), np.float32)
            larger[: len(self._sums)] = self._sums
            self._sums = larger
        self._characters += sum(map(len, fresh))
        part = self._sums[len(self._words) - len(fresh) : len(self._words)]
        part[:] = 0
        words, rows = self._features(fresh)
        if len(words):
            counts = np.bincount(words, minlength=len(fresh))
            some = counts > 0
            starts = (np.cumsum(counts) - counts)[some]
            part[some, :-1] = np.add.reduceat(self._rows[rows], starts, axis=0)
            part[:, -1] = counts

    def _features(self, fresh: Sequence[str]) -> tuple[Numbers, Numbers]:
        """(number of the word, row) of all features, in the order of the words."""
        words, rows = [], []
        known = [(number, self._known.get(word, -1)) for number, word in enumerate(fresh)]
        inside = np.array([pair for pair in known if pair[1] >= 0], np.int64).reshape(-1, 2)
        words.append(inside[:, 0])
        rows.append(inside[:, 1])
        # a word that looks like a label is none to fastText
        marked = ["" if word.startswith(_LABEL) else f"<{word}>" for word in fresh]
        lengths = np.array([len(word) for word in marked], np.int64)
        owner = np.repeat(np.arange(len(fresh)), lengths)
        last = np.repeat(np.cumsum(lengths), lengths) - 1
        first = last - np.repeat(lengths, lengths) + 1
        letters = _Utf8("".join(marked))
        at = np.arange(len(owner))
        hashes = np.full(len(at), _FNV_START, np.uint32)
        for length in range(1, self._most + 1):
            fits = at + (length - 1) <= last[at]
            at, hashes = at[fits], letters.add(hashes[fits], at[fits] + (length - 1))
            if length >= self._least:
                found = self._row_of[hashes % np.uint32(self._buckets)]
                there = found >= 0
                if length == 1:
                    there &= (at != first[at]) & (at != last[at])
                words.append(owner[at[there]])
                rows.append(found[there])
        all_words = np.concatenate(words)
        order = np.argsort(all_words, kind="stable")
        return all_words[order], np.concatenate(rows)[order]


class _Utf8:
    """The bytes of letters, to be hashed; bytes over 127 count as negative numbers (FNV-1a as fastText has it)."""

    def __init__(self, text: str) -> None:
        code = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
        self._size = 1 + (code > 0x7F) + (code > 0x7FF) + (code > 0xFFFF)
        self._bytes = []
        heads = np.array([0, 0, 0xC0, 0xE0, 0xF0], np.uint32)
        for place in range(int(self._size.max(initial=1))):
            shift = 6 * np.maximum(self._size - 1 - place, 0).astype(np.uint32)
            byte = (code >> shift) & np.uint32(0x3F) | np.uint32(0x80)
            if place == 0:
                byte = np.where(self._size == 1, code, (code >> shift) | heads[self._size])
            self._bytes.append(byte | np.where(byte > 0x7F, np.uint32(0xFFFFFF00), np.uint32(0)))

    def add(self, hashes: npt.NDArray[np.uint32], letters: Numbers) -> npt.NDArray[np.uint32]:
        """Hashes with one more letter each."""
        hashes = (hashes ^ self._bytes[0][letters]) * _FNV_PRIME
        for place in range(1, len(self._bytes)):
            longer = np.flatnonzero(self._size[letters] > place)
            hashes[longer] = (hashes[longer] ^ self._bytes[place][letters[longer]]) * _FNV_PRIME
        return hashes


class _Tree:
    """Huffman tree over the labels, built as fastText does; the rows of `weights` are its inner nodes."""

    def __init__(self, counts: Sequence[int], weights: Floats) -> None:
        self._labels, self._weights = len(counts), weights
        nodes = 2 * len(counts) - 1
        weight = [*counts, *[10**15] * (len(counts) - 1)]
        children = np.zeros((len(counts) - 1, 2), np.int64)
        leaf, inner = len(counts) - 1, len(counts)
        for node in range(len(counts), nodes):
            for side in range(2):
                if leaf >= 0 and weight[leaf] < weight[inner]:
                    children[node - len(counts), side], leaf = leaf, leaf - 1
                else:
                    children[node - len(counts), side], inner = inner, inner + 1
            weight[node] = sum(weight[child] for child in children[node - len(counts)])
        self._levels = []
        level = np.array([nodes - 1])
        while len(level):
            self._levels.append((level - len(counts), children[level - len(counts)]))
            below = children[level - len(counts)].ravel()
            level = below[below >= len(counts)]

    def leaves(self, means: Floats) -> Floats:
        """Share of every label for each text, [labels, texts]."""
        scores = np.zeros((len(self._weights), means.shape[1]), np.float32)
        for column, mean in zip(self._weights.T, means, strict=True):
            scores += column[:, None] * mean
        right = 1 / (1 + np.exp(-scores))
        shares = np.empty((2 * self._labels - 1, means.shape[1]), np.float32)
        shares[-1] = 1
        for inner, children in self._levels:
            above, turn = shares[inner + self._labels], right[inner]
            shares[children[:, 0]] = above * (1 - turn + _LITTLE)
            shares[children[:, 1]] = above * (turn + _LITTLE)
        return shares[: self._labels]


def _rows(model: Any, count: int, size: int) -> Floats:
    """All input vectors, unpacked: [count, size]."""
    from fasttext import FastText

    vector = FastText.fasttext.Vector(size)
    seen = np.array(vector, copy=False)
    rows = np.empty((count, size), np.float32)
    for number in range(count):
        model.getInputVector(vector, number)
        rows[number] = seen
    return rows


def _before_end(text: str) -> str:
    words = text.split()
    return " ".join(words[: words.index(_END)] if _END in words else words)
