"""How often words end with each new token, kept up to date while tokens are dropped.

A word that a dropped token was not in is cut as before: longest-match cutting never looked past the tokens that it
took, and the best of many ways to cut stays the best when others go. So only some words are cut again:

- those that held a dropped token;
- those with the unknown token, which may hide one;
- where tokens have scores and the lowest of all went: an unknown character costs a fixed sum more than that one, so
  words with a character that is no token may be cut in another way. In all other words a token of one character is
  always better than an unknown one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from langadapt.vocab.tokenizer_file import encode_all

# Words cut at once: bounds the memory of the library's results (about 1 kB a word).
_BATCH = 20_000

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Words:
    """Words in a fixed order, how often each occurs, and which have a character that is no token (`open`)."""

    words: Sequence[str]
    weights: Ints
    open: NDArray[np.bool_]


class Cuts:
    """Counts of `size` new tokens in the words.

    `stage` makes the model for those of them whose numbers it is given, which get ids from `first` on in that order;
    `scores` are theirs and that of the lowest token of the base, NaN and None where tokens have none.
    """

    def __init__(
        self,
        words: Words,
        stage: Callable[[Ints], Tokenizer],
        size: int,
        *,
        first: int,
        unknown: int | None,
        scores: NDArray[np.float64],
        lowest: float | None,
    ) -> None:
        self._words, self._stage, self._first, self._unknown = words, stage, first, unknown
        self._scores, self._lowest = scores, lowest
        self.there: NDArray[np.bool_] = np.ones(size, bool)
        self._hidden: NDArray[np.bool_] = np.zeros(len(words.words), bool)
        self._word, self._token = self._cut(np.arange(len(words.words)))

    def counts(self) -> Ints:
        """Of each token [size]; 0 of those that were dropped."""
        totals = np.zeros(len(self.there), np.int64)
        np.add.at(totals, self._token, self._words.weights[self._word])
        return totals

    def keep(self, there: NDArray[np.bool_]) -> None:
        """Drop the tokens that are not in `there` [size]."""
        before = self._floor()
        touched = self._hidden.copy()
        touched[self._word[~there[self._token]]] = True
        self.there = self.there & there
        if self._floor() != before:
            touched |= self._words.open
        stay = ~touched[self._word]
        word, token = self._cut(np.flatnonzero(touched))
        self._word = np.concatenate([self._word[stay], word])
        self._token = np.concatenate([self._token[stay], token])

    def _floor(self) -> float | None:
        """The lowest score of all tokens."""
        if self._lowest is None:
            return None
        return float(np.nanmin(self._scores[self.there], initial=self._lowest))

    def _cut(self, which: Ints) -> tuple[Ints, Ints]:
        """Word and token wherever one of these words ends with a new token."""
        numbers = np.flatnonzero(self.there)
        model = self._stage(numbers)
        words, tokens = [which[:0]], [numbers[:0]]
        for start in range(0, len(which), _BATCH):
            part = which[start : start + _BATCH]
            cut = list(encode_all(model, [self._words.words[number] for number in part]))
            ids = np.fromiter((number for segment in cut for number in segment), np.int64)
            owner = np.repeat(part, [len(segment) for segment in cut])
            new = ids >= self._first
            words.append(owner[new])
            tokens.append(numbers[ids[new] - self._first])
            self._hidden[part] = False
            self._hidden[owner[ids == (-1 if self._unknown is None else self._unknown)]] = True
        return np.concatenate(words), np.concatenate(tokens)
