"""Which old tokens lie under each new one in running text that both tokenizers have cut, as sums over its occurrences.

Both cuts are lists of ends in bytes. All ends together part the text into stretches that belong to one token of each
cut, so that there are no more pairs than tokens of both, and two binary searches find them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np

from langadapt.embed.sums import Doubles, added_up
from langadapt.embed.types import Ints, Vocabulary
from langadapt.model.cuts import cut_points

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Share = Literal["inside", "tokens", "bytes"]
# A text is cut before spaces into parts of at most this size: some 200 bytes of memory a token.
_PART_BYTES = 100_000
_PARTS_AT_A_TIME = 64
# Sums are added up after so many blocks, never after so many pairs: the order of additions is the same for any tokens.
_BLOCKS_AT_A_TIME = 16


@dataclass(frozen=True)
class _Cut:
    """Tokens of a row of texts that stand behind each other: `ends` in bytes, never falling."""

    ids: Ints
    ends: Ints

    @property
    def lengths(self) -> Ints:
        return np.diff(self.ends, prepend=0)


class _Cutter:
    """One of the two tokenizers."""

    def __init__(self, tokenizer: "Tokenizer", tokens: Vocabulary) -> None:
        self._tokenizer, self._tokens = tokenizer, tokens
        self._contents: dict[int, bytes] = {}

    def cut(self, texts: Sequence[bytes]) -> list[_Cut]:
        """Each text alone; the last token of a text has all that is left of it."""
        encodings = self._tokenizer.encode_batch([text.decode() for text in texts], add_special_tokens=False)
        return [self._placed(encoding, text) for encoding, text in zip(encodings, texts, strict=True)]

    def content(self, id: int) -> bytes:
        found = self._contents.get(id)
        if found is None:
            found = self._contents[id] = self._tokens.bytes_of(id)
        return found

    def _placed(self, encoding: "Encoding", text: bytes) -> _Cut:
        """By the bytes of the tokens where they spell the text, else by the offsets that the tokenizer reports."""
        ids = np.array(encoding.ids, dtype=np.int64)
        pieces = [self.content(id) for id in encoding.ids]
        spelled = b"".join(pieces)
        # families that mark spaces write one before the text that it does not have
        extra = int(spelled == b" " + text)
        if spelled[extra:] == text:
            ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64) - extra
        else:
            ends = _by_offsets(encoding, pieces, text)
        ends[-1:] = len(text)
        return _Cut(ids, np.maximum.accumulate(np.clip(ends, 0, len(text))))


def _by_offsets(encoding: "Encoding", pieces: Sequence[bytes], text: bytes) -> Ints:
    """Ends in bytes of tokens that do not spell the text: what is left out before a token becomes part of it."""
    letters = np.frombuffer(text, dtype=np.uint8)
    position = np.append(np.flatnonzero(letters & 0xC0 != 0x80), len(text))
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    starts, ends = position[offsets[:, 0]], position[offsets[:, 1]]
    # a lone mark of a space is said to have the first letter of the word behind it
    lone = np.array([piece == b" " for piece in pieces[:-1]], dtype=np.bool_)
    lone &= (starts[1:] == starts[:-1]) & (letters[np.minimum(starts[:-1], len(text) - 1)] != ord(" "))
    ends[:-1][lone] = starts[:-1][lone]
    return ends.astype(np.int64)


class Overlaps:
    """Sums of the shares that old tokens have in new ones.

    `wanted` are ids of the new tokenizer, `text_ids` those of the base that may have a share. Each occurrence of a new
    token is worth 1, and is divided among the old tokens under it: alike (`tokens`), alike among those that lie inside
    of it or around it (`inside`), or by the bytes that they share with it (`bytes`).
    """

    def __init__(
        self,
        base: "tuple[Tokenizer, Vocabulary]",
        target: "tuple[Tokenizer, Vocabulary]",
        wanted: Ints,
        text_ids: Ints,
        old_rows: int,
        *,
        share: Share,
        skip_bare_space: bool,
    ) -> None:
        self._old, self._new = _Cutter(*base), _Cutter(*target)
        self._place = np.full(int(wanted.max(initial=0)) + 1, -1, dtype=np.int64)
        self._place[wanted] = np.arange(len(wanted))
        self._counts = np.isin(np.arange(old_rows), text_ids)
        self._bare = np.zeros(old_rows, dtype=np.bool_)
        if skip_bare_space:
            self._bare[[id for id in text_ids.tolist() if base[1].bytes_of(id) == b" "]] = True
        self._share, self._old_rows = share, old_rows
        self._keys: list[Ints] = []
        self._sums: list[Doubles] = []
        self.occurrences = np.zeros(len(wanted), dtype=np.int64)

    def add(self, texts: Iterable[str], most_bytes: int) -> None:
        """Look at texts, up to so many bytes."""
        parts = _parts(texts, most_bytes)
        while block := list(islice(parts, _PARTS_AT_A_TIME)):
            self._add_block(block)
            if len(self._keys) > _BLOCKS_AT_A_TIME:
                self._add_up()

    def sums(self) -> tuple[Ints, Ints, Doubles]:
        """(places in `wanted`, old ids, sums), by place and then by id."""
        self._add_up()
        return self._keys[0] // self._old_rows, self._keys[0] % self._old_rows, self._sums[0]

    def _add_block(self, texts: Sequence[bytes]) -> None:
        old, new = _joined(self._old.cut(texts), self._new.cut(texts), texts)
        ends = np.union1d(old.ends, new.ends)
        shared = np.diff(ends, prepend=0)
        ours, theirs = np.searchsorted(new.ends, ends), np.searchsorted(old.ends, ends)
        ids = new.ids[ours]
        places = np.where(ids < len(self._place), self._place[np.minimum(ids, len(self._place) - 1)], -1)
        olds = old.ids[theirs]
        kept = (shared > 0) & (places >= 0) & (olds < self._old_rows)
        kept &= self._counts[np.minimum(olds, self._old_rows - 1)]
        if self._share == "inside":
            kept &= (shared == new.lengths[ours]) | (shared == old.lengths[theirs])
        ours, places, olds, shared = ours[kept], places[kept], olds[kept], shared[kept]
        # never all that an occurrence has: a token of spaces alone keeps them
        words = np.bincount(ours, weights=~self._bare[olds], minlength=len(new.ids))
        kept = ~self._bare[olds] | (words[ours] == 0)
        ours, places, olds = ours[kept], places[kept], olds[kept]
        weights = shared[kept].astype(np.float64) if self._share == "bytes" else np.ones(len(ours))
        weights /= np.bincount(ours, weights=weights, minlength=len(new.ids))[ours]
        seen = places[np.diff(ours, prepend=-1) > 0]
        self.occurrences += np.bincount(seen, minlength=len(self.occurrences))
        self._keys.append(places * self._old_rows + olds)
        self._sums.append(weights)

    def _add_up(self) -> None:
        keys, sums = added_up(self._keys, self._sums)
        self._keys, self._sums = [keys], [sums]


def _joined(old: Sequence[_Cut], new: Sequence[_Cut], texts: Sequence[bytes]) -> tuple[_Cut, _Cut]:
    """The cuts of all texts as those of one, without texts of which a tokenizer makes nothing."""
    both = [number for number in range(len(texts)) if len(old[number].ids) and len(new[number].ids)]
    starts = np.cumsum([0, *(len(texts[number]) for number in both)])

    def of_all(cuts: Sequence[_Cut]) -> _Cut:
        none = np.zeros(0, dtype=np.int64)
        ids = [cuts[number].ids for number in both]
        ends = [cuts[number].ends + start for number, start in zip(both, starts, strict=False)]
        return _Cut(np.concatenate([*ids, none]), np.concatenate([*ends, none]))

    return of_all(old), of_all(new)


def _parts(texts: Iterable[str], most_bytes: int) -> Iterator[bytes]:
    """The texts in parts of bounded size, until there are enough bytes."""
    taken = 0
    for text in texts:
        content, start = text.encode(), 0
        for end in cut_points(text, _PART_BYTES):
            yield content[start:end]
            start = end
        taken += len(content)
        if taken >= most_bytes:
            return
