"""Counts of pairs of tokens: read from a table, or spread over the tokens of words that translate each other."""

from collections.abc import Iterable, Sequence
from math import gcd, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from langadapt.core import interrupt
from langadapt.core.errors import DataError
from langadapt.embed.bitext import WordPairs
from langadapt.embed.inputs import InitInputs
from langadapt.embed.sums import Doubles, added_up
from langadapt.embed.types import Ints

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_WORDS_AT_A_TIME = 20_000
# Of unknown tokens in a table, as many are named in the error.
_SHOWN = 3


class TokenCounts:
    """Sums by pair (id of the new tokenizer, id of a text token of the base); other pairs are left out."""

    def __init__(self, inputs: InitInputs) -> None:
        self._inputs = inputs
        self._rows = inputs.old_rows
        self._text = np.isin(np.arange(self._rows), inputs.population)
        self._keys: list[Ints] = []
        self._sums: list[Doubles] = []

    def add(self, new: Any, old: Any, counts: Any) -> None:
        """Three arrays of one length."""
        new, old = np.asarray(new, dtype=np.int64), np.asarray(old, dtype=np.int64)
        kept = (old < self._rows) & self._text[np.minimum(old, self._rows - 1)]
        self._keys.append(new[kept] * self._rows + old[kept])
        self._sums.append(np.asarray(counts, dtype=np.float64)[kept])

    def sums(self) -> tuple[Ints, Ints, Doubles]:
        """(new ids, old ids, counts), by new id and then by old id."""
        self._add_up()
        return self._keys[0] // self._rows, self._keys[0] % self._rows, self._sums[0]

    def _add_up(self) -> None:
        keys, sums = added_up(self._keys, self._sums)
        self._keys, self._sums = [keys], [sums]

    def add_table(self, lines: Iterable[Sequence[str]]) -> int:
        """Lines (base token, new token, count), tokens as tokenizer.json writes them; returns how many were used.

        DataError for a count that is none, and if not one line names tokens of both.
        """
        inputs, target = self._inputs, self._inputs.target or self._inputs.base
        ours = {inputs.base.piece(id): id for id in inputs.population.tolist()}
        ids: dict[str, int] = inputs.target_tokenizer().get_vocab()
        found: list[tuple[int, int, float]] = []
        unknown: list[str] = []
        for line in lines:
            count = _number(line)
            if line[0] in ours and line[1] in ids:
                found.append((ids[line[1]], ours[line[0]], count))
            else:
                unknown.append(line[0] if line[0] not in ours else line[1])
        if not found:
            shown = "`, `".join(unknown[:_SHOWN])
            example = f"{inputs.base.piece(int(inputs.population[-1]))}<TAB>{target.piece(max(ids.values()))}<TAB>3"
            raise DataError(
                f"no line has a token of the base and one of the new tokenizer (`{shown}` are none)",
                where="counts",
                hint=f"write tokens as tokenizer.json does, the base's first, such as `{example}`",
            )
        if unknown:
            inputs.progress.warn(f"{len(unknown):,} lines of counts name tokens that are none, such as `{unknown[0]}`")
        self.add(*zip(*found, strict=True))
        return len(found)

    def add_words(self, pairs: WordPairs) -> None:
        """Spread the count of each pair of words over their tokens, as the words stand and behind a space.

        Half of a count goes to all pairs of tokens alike, half to tokens at like places: both words are stretched to
        the same number of tokens, and what then stands side by side belongs together.
        """
        for start in range(0, len(pairs.counts), _WORDS_AT_A_TIME):
            interrupt.poll()
            part = slice(start, start + _WORDS_AT_A_TIME)
            old = [pairs.base[id] for id in pairs.left[part].tolist()]
            new = [pairs.new[id] for id in pairs.right[part].tolist()]
            for prefix in ("", " "):
                ours = _cut(self._inputs.base_tokenizer(), prefix, old)
                theirs = _cut(self._inputs.target_tokenizer(), prefix, new)
                self._spread(ours, theirs, pairs.counts[part])
            self._add_up()

    def _spread(self, old: list[list[int]], new: list[list[int]], counts: Doubles) -> None:
        shapes: dict[tuple[int, int], list[int]] = {}
        for place, (ours, theirs) in enumerate(zip(old, new, strict=True)):
            if ours and theirs:
                shapes.setdefault((len(ours), len(theirs)), []).append(place)
        for (m, n), places in sorted(shapes.items()):
            weights = counts[places][:, None, None] * spread(m, n)
            olds = np.array([old[place] for place in places])[:, None, :]
            news = np.array([new[place] for place in places])[:, :, None]
            new_ids, old_ids = (np.broadcast_to(ids, weights.shape).ravel() for ids in (news, olds))
            self.add(new_ids, old_ids, weights.ravel())


def spread(m: int, n: int) -> Doubles:
    """Shares [n, m] of n new tokens and m old ones in a pair of words; their sum is 1."""
    length = m * n // gcd(m, n)
    places = np.arange(length)
    beside = np.zeros((n, m))
    np.add.at(beside, (places * n // length, places * m // length), 1 / length)
    return np.asarray((beside + 1 / (n * m)) / 2)


def _cut(tokenizer: "Tokenizer", prefix: str, words: list[str]) -> list[list[int]]:
    found = tokenizer.encode_batch([prefix + word for word in words], add_special_tokens=False)
    return [encoding.ids for encoding in found]


def _number(line: Sequence[str]) -> float:
    """The count of a line."""
    try:
        count = float(line[2])
    except ValueError:
        count = float("nan")
    if not (isfinite(count) and count >= 0):
        raise DataError(
            f"the count of `{line[0]}` and `{line[1]}` is {line[2]!r}",
            where="counts",
            hint="write `base token<TAB>new token<TAB>count`, and a count as 12 or 0.5",
        )
    return count
