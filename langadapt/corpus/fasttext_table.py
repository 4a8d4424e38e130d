"""fastText's arithmetic for many short texts at once, several times as fast as one call each.

A text is the mean of the vectors of its features, which are its words and their character n-grams (Bojanowski et al.
2017); the sum over one word is always the same, so it is computed once and remembered. The labels are the leaves of a
Huffman tree with a logistic decision at every node (Joulin et al. 2016). Only models of this shape are taken, small
ones, and only if they give the same shares as fastText itself; `Table.of` says None for any other.

What a text gets does not depend on the texts beside it: there is no BLAS here, whose sums change with the shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from langadapt.core.fasttext_file import pruned_buckets
from langadapt.core.rng import stream
from langadapt.corpus.neardup import mix64

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

# Rows of 16 numbers: lid.176.ftz has 50,000. Whole models have millions, and are left to fastText.
MOST_NUMBERS = 1 << 22
# 2^17 words take about 12 MB; then all are forgotten, and learnt again as they come.
MOST_WORDS = 1 << 17
_SLOTS = 1 << 18
# Texts that are computed together: fewer cost more time, more cost memory (1.5 kB for each label and 1,000 texts).
AT_ONCE, MOST_AT_ONCE = 100_000, 1000
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


class Table:
    """One model; `shares` judges texts with it."""

    def __init__(self, model: Any, path: Path) -> None:
        """Use `of`. `model` is fastText's own object (`.f` of the wrapper)."""
        args = model.getArgs()
        vocabulary, _ = model.getVocab("replace")
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
        self._known = HashTable()
        self._known.add(Words(" ".join(vocabulary) + "\n").hashes)
        self._end = np.zeros(args.dim + 1, np.float32)
        if _END in vocabulary:
            self._end[:-1] = self._rows[vocabulary.index(_END)]
            self._end[-1] = 1
        self._forget()

    @classmethod
    def of(cls, model: Any, path: Path) -> "Table | None":
        """The table of a model, or None where fastText has to be asked itself."""
        args = model.getArgs()
        buckets = int(args.bucket) if pruned_buckets(path) is None else 0
        vocabulary = len(model.getVocab("replace")[0])
        small = (buckets + vocabulary) * int(args.dim) <= MOST_NUMBERS and vocabulary <= MOST_WORDS
        if args.loss.name != "hs" or args.wordNgrams != 1 or args.qout or args.maxn <= 0 or not small:
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
        """Judge all texts, which have no white space but blanks; `names` is what the labels are called, `accepted`
        which of them are added up."""
        found = Shares([], [], [])
        size = first = 0
        for number, text in enumerate(texts):
            size += len(text)
            if size >= AT_ONCE or number - first >= MOST_AT_ONCE or number == len(texts) - 1:
                leaves = self._tree.leaves(self._means(texts[first : number + 1]))
                top = leaves.argmax(axis=0)
                total = np.zeros(len(top), np.float32)
                for label in accepted:
                    own = leaves[label]
                    among = (leaves > own).sum(axis=0) < 5
                    total += np.where(among, own, np.float32(0))
                found.label.extend(names[label] for label in top.tolist())
                found.share.extend(np.minimum(1, leaves[top, np.arange(len(top))]).tolist())
                found.accepted.extend(np.minimum(1, total).tolist())
                size, first = 0, number + 1
        return found

    def _means(self, texts: Sequence[str]) -> Floats:
        """Mean vector of each text, [dim, texts]."""
        text = "\n".join(texts)
        if _END in text:
            # fastText stops at a word that is its sign for the end
            text = "\n".join(map(_before_end, texts))
        words = Words(text + "\n")
        if len(self._places) > MOST_WORDS:
            self._forget()
        places = self._places.find(words.hashes)
        new = np.flatnonzero(places < 0)
        if len(new):
            # one of each; which of several equal ones does not matter
            new = new[np.unique(words.hashes[new], return_index=True)[1]]
            self._places.add(words.hashes[new])
            self._learn(words, new)
            places = self._places.find(words.hashes)
        sums = np.zeros((len(texts), len(self._end)), np.float32)
        starts = np.cumsum(words.of_text) - words.of_text
        some = words.of_text > 0
        if len(places):
            sums[some] = np.add.reduceat(self._sums[places], starts[some], axis=0)
        sums += self._end
        means: Floats = np.ascontiguousarray(sums[:, :-1].T)
        means /= np.maximum(sums[:, -1], 1)
        return means

    def _forget(self) -> None:
        self._places = HashTable()
        self._sums = np.zeros((1024, len(self._end)), np.float32)

    def _learn(self, words: "Words", new: Numbers) -> None:
        first, count = len(self._places) - len(new), len(self._places)
        if count > len(self._sums):
            larger = np.zeros((max(count, 2 * len(self._sums)), self._sums.shape[1]), np.float32)
            larger[: len(self._sums)] = self._sums
            self._sums = larger
        part = self._sums[first:count]
        part[:] = 0
        owners, rows = self._features(words, new)
        if len(owners):
            counts = np.bincount(owners, minlength=len(new))
            some = counts > 0
            starts = (np.cumsum(counts) - counts)[some]
            part[some, :-1] = np.add.reduceat(self._rows[rows], starts, axis=0)
            part[:, -1] = counts

    def _features(self, words: "Words", new: Numbers) -> tuple[Numbers, Numbers]:
        """(number among the new words, row) of all features, in the order of the words."""
        known = self._known.find(words.hashes[new])
        owners, rows = [np.flatnonzero(known >= 0)], [known[known >= 0]]
        codes, owner = words.marked(new)
        lengths = np.bincount(owner, minlength=len(new))
        ends = np.cumsum(lengths)
        last = ends[owner] - 1
        first = ends[owner] - lengths[owner]
        letters = _Utf8(codes)
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
                owners.append(owner[at[there]])
                rows.append(found[there])
        all_owners = np.concatenate(owners)
        order = np.argsort(all_owners, kind="stable")
        return all_owners[order], np.concatenate(rows)[order].astype(np.int64)


class Words:
    """The words of texts that end with a line end each: what stands between blanks, by a 64-bit hash.

    No Python string is made of any: finding these in a dict took longer than all the rest.
    """

    def __init__(self, text: str) -> None:
        self._codes = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
        # NUL separates words for fastText too
        letter = (self._codes != 32) & (self._codes != 10) & (self._codes != 0)
        begins = letter.copy()
        begins[1:] &= ~letter[:-1]
        self._starts = np.flatnonzero(begins)
        ends = letter.copy()
        ends[:-1] &= ~letter[1:]
        self._lengths = np.flatnonzero(ends) - self._starts + 1
        place = np.arange(len(self._codes), dtype=np.int32)
        place -= np.maximum.accumulate(np.where(begins, place, np.int32(0)))
        powers = _powers()
        terms = powers[place & np.int32(len(powers) - 1)]
        terms *= self._codes
        terms[~letter] = 0
        self.hashes = mix64(np.add.reduceat(terms, self._starts)) if len(self._starts) else np.zeros(0, np.uint64)
        line_ends = np.searchsorted(self._starts, np.flatnonzero(self._codes == 10))
        self.of_text = np.diff(line_ends, prepend=0)
        """How many words each text has."""

    def marked(self, chosen: Numbers) -> tuple[npt.NDArray[np.uint32], Numbers]:
        """Letters of the chosen words, each word between `<` and `>`, and the number of the word of each letter.

        A word that looks like a label has none: to fastText it is no word.
        """
        lengths = self._lengths[chosen] + 2
        starts = self._starts[chosen]
        for number in np.flatnonzero(self._codes[starts] == ord("_")).tolist():
            start = self._codes[starts[number] : starts[number] + len(_LABEL)].tolist()
            if start == list(map(ord, _LABEL)):
                lengths[number] = 0
        owner = np.repeat(np.arange(len(chosen)), lengths)
        ends = np.cumsum(lengths)
        inside = np.arange(len(owner)) - (ends - lengths)[owner]
        codes = self._codes[np.minimum(starts[owner] + np.maximum(inside - 1, 0), len(self._codes) - 1)]
        codes[inside == 0] = ord("<")
        codes[(ends - 1)[lengths > 0]] = ord(">")
        return codes, owner


class HashTable:
    """Places of 64-bit hashes in the order in which they were added; open addressing, many at once."""

    def __init__(self) -> None:
        self._keys = np.zeros(_SLOTS, np.uint64)
        self._places = np.zeros(_SLOTS, np.int32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
        """Place of each, -1 where it is not there."""
        slots = (hashes & np.uint64(_SLOTS - 1)).astype(np.int64)
        keys = self._keys[slots]
        places = np.where(keys == hashes, self._places[slots], np.int32(-1))
        search = np.flatnonzero((keys != hashes) & (keys != 0))
        while len(search):
            slots[search] = (slots[search] + 1) & (_SLOTS - 1)
            keys = self._keys[slots[search]]
            here = keys == hashes[search]
            places[search[here]] = self._places[slots[search[here]]]
            search = search[~here & (keys != 0)]
        return places

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Add hashes that are not there and all different."""
        if self._count + len(hashes) > _SLOTS * 3 // 4:
            raise ValueError(f"more than {_SLOTS * 3 // 4:,} words")
        slots = (hashes & np.uint64(_SLOTS - 1)).astype(np.int64)
        left = np.arange(len(hashes))
        while len(left):
            free = left[self._keys[slots[left]] == 0]
            # of several that want one slot the last gets it
            self._keys[slots[free]] = hashes[free]
            won = self._keys[slots[left]] == hashes[left]
            self._places[slots[left[won]]] = self._count + left[won]
            left = left[~won]
            slots[left] = (slots[left] + 1) & (_SLOTS - 1)
        self._count += len(hashes)


@cache
def _powers() -> npt.NDArray[np.uint64]:
    """Odd multipliers for the letters of a word; no text that is judged has as many in one."""
    return stream(0, "fasttext-words").integers(0, 2**64, 512, dtype=np.uint64) | np.uint64(1)


class _Utf8:
    """The bytes of letters, to be hashed; bytes over 127 count as negative numbers (FNV-1a as fastText has it)."""

    def __init__(self, code: npt.NDArray[np.uint32]) -> None:
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
        found = np.empty((self._labels, means.shape[1]), np.float32)
        # in pieces that stay in the processor's cache
        for at in range(0, means.shape[1], 256):
            found[:, at : at + 256] = self._leaves(means[:, at : at + 256])
        return found

    def _leaves(self, means: Floats) -> Floats:
        scores = np.zeros((len(self._weights), means.shape[1]), np.float32)
        products = np.empty_like(scores)
        for column, mean in zip(self._weights.T, means, strict=True):
            np.multiply(column[:, None], mean, out=products)
            scores += products
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
