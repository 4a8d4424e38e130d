"""Average of the old tokens that translate the new one, by counts: given, or from a dictionary or parallel text"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import numpy as np
from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.core.units import Count
from langadapt.embed.bitext import WordPairs, word_pairs
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap
from langadapt.embed.spelling import spelled
from langadapt.embed.sums import Doubles, added_up
from langadapt.embed.token_counts import TokenCounts
from langadapt.embed.types import Ints, Vocabulary

# A token that begins a word counts twice among those that stand in for another: it says more of what the word means.
_BEGINS_A_WORD = 2.0


class Options(BaseOptions):
    """How words are aligned, and what tokens without a translation get."""

    iterations: int = Field(default=5, ge=1, le=100)
    """Rounds of expectation maximisation over the sentences of `parallel` and the entries of `dictionary`."""

    max_pairs: Count = Field(default=500_000, ge=1)
    """Sentences and entries that are aligned, at most; those of the dictionary come first."""

    min_count: float = Field(default=0.5, ge=0)
    """A pair of words counts if it was met about as often."""

    smoothing: bool = True
    """A token without a translation gets those of tokens that begin with it, and of the longest ones inside it."""


@method(
    needs=("counts|dictionary|parallel", "base_tokenizer", "target_tokenizer"),
    laws=("linear", "convex", "local"),
    cite="Remy et al. 2024, Trans-Tokenization and Cross-lingual Vocabulary Transfers: Language Adaptation of LLMs for "
    "Low-Resource NLP",
)
def counts(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = sum of p(s | new) E_s over old tokens s, p = count(new, s) / count(new).

    Counts stand in a table, or come from words that translate each other, which are found by aligning sentences and
    entries of a dictionary. Tokens without a translation get those of tokens like them, else the mean of their pieces.
    """
    rows = RowMapBuilder(inputs, "counts")
    tokens = sorted(inputs.new_tokens, key=lambda token: token.id)
    if not tokens:
        return rows.build()
    table = TokenCounts(inputs)
    if inputs.has("counts"):
        rows.measured(lines_of_counts=table.add_table(inputs.counts()))
    if inputs.has("dictionary") or inputs.has("parallel"):
        words = _frequent(
            word_pairs(_sentences(inputs), options.max_pairs, options.iterations, inputs.progress), options
        )
        table.add_words(words)
        rows.measured(aligned_sentences=words.sentences, word_pairs=len(words.counts))
    known = _Translations(*table.sums(), inputs.target or inputs.base)
    lines = {place: known.of(token.id, token.content, options.smoothing) for place, token in enumerate(tokens)}
    made = [place for place, (_, ids, _) in lines.items() if len(ids)]
    indptr = np.cumsum([0, *(len(lines[place][1]) for place in made)])
    olds = np.concatenate([np.zeros(0, dtype=np.int64), *(lines[place][1] for place in made)])
    shares = np.concatenate([np.zeros(0), *(lines[place][2] for place in made)])
    rows.many([tokens[place] for place in made], indptr, olds, shares, [lines[place][0] for place in made])
    there = set(made)
    spelled(rows, inputs, [token for place, token in enumerate(tokens) if place not in there], "no translation")
    return rows.build()


def _sentences(inputs: InitInputs) -> Iterator[tuple[str, ...]]:
    """Entries of the dictionary are short sentences."""
    return chain(
        inputs.dictionary() if inputs.has("dictionary") else (), inputs.parallel() if inputs.has("parallel") else ()
    )


def _frequent(pairs: WordPairs, options: Options) -> WordPairs:
    kept = pairs.counts >= options.min_count
    return replace(pairs, left=pairs.left[kept], right=pairs.right[kept], counts=pairs.counts[kept])


class _Translations:
    """p(old token | new token) of all tokens of the new tokenizer that have counts, whether they are new or not."""

    def __init__(self, new: Ints, old: Ints, sums: Doubles, target: Vocabulary) -> None:
        there = sums > 0
        self._old = old[there]
        self._ids, starts = np.unique(new[there], return_index=True)
        self._starts = np.append(starts, there.sum())
        sizes = np.diff(self._starts)
        totals = np.add.reduceat(sums[there], starts) if len(starts) else np.zeros(0)
        self._share = sums[there] / np.repeat(totals, sizes)
        self._place = {id: place for place, id in enumerate(self._ids.tolist())}
        contents = [target.bytes_of(id) for id in self._ids.tolist()]
        self._of_content = {content: place for place, content in enumerate(contents)}
        self._begins = [_BEGINS_A_WORD if content.startswith(b" ") else 1.0 for content in contents]
        self._order = sorted(range(len(contents)), key=contents.__getitem__)
        self._sorted = [contents[place] for place in self._order]

    def of(self, id: int, content: bytes, smoothing: bool) -> tuple[str, Ints, Doubles]:
        """(why, old ids, shares) of a token; no ids if it has no translation, and no relative that has one."""
        if id in self._place:
            return "translations", *self._line(self._place[id])
        relatives = [*self._longer(content), *self._inside(content)] if smoothing and content else []
        lines = [(*self._line(place), self._begins[place]) for place in relatives]
        shares = [shares * weight for _, shares, weight in lines]
        return "translations of tokens like it", *added_up([ids for ids, _, _ in lines], shares)

    def _line(self, place: int) -> tuple[Ints, Doubles]:
        part = slice(self._starts[place], self._starts[place + 1])
        return self._old[part], self._share[part]

    def _longer(self, content: bytes) -> list[int]:
        """Tokens that begin with it."""
        first = bisect_left(self._sorted, content)
        last = bisect_right(self._sorted, content, key=lambda other: other[: len(content)])
        return self._order[first:last]

    def _inside(self, content: bytes) -> list[int]:
        """The longest tokens in it, none of which lies inside another."""
        found, reached = [], 0
        for start in range(len(content)):
            for end in range(len(content), max(start, reached), -1):
                place = self._of_content.get(content[start:end])
                if place is not None:
                    found.append(place)
                    reached = end
                    break
        return found
