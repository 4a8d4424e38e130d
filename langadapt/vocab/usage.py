"""What a tokenizer makes of a text: its cost, the words it breaks, the tokens it uses, and two tokenizers compared."""

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from langadapt.core.progress import Task
from langadapt.model.spans import PieceReader
from langadapt.vocab.metrics import lines_of, raw_tokenizer, same_ids_share, same_tokens_share, unspaced_script

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The order that Zouhar et al. 2023 (Tokenization and the Noiseless Channel) found to go with translation quality.
ALPHA = 2.5
CHANGED_WORDS = 10
_WORD = re.compile(r"\S+")
_BYTE_PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_BATCH_BYTES = 1_000_000


def renyi_efficiency(counts: np.ndarray, size: int, alpha: float = ALPHA) -> float | None:
    """Rényi entropy of the token frequencies, as a share of what `size` equally frequent tokens would have.

    H = log2(sum of p^alpha) / (1 - alpha), divided by log2(size). None without tokens or with a vocabulary of one.
    """
    total = int(counts.sum())
    if total == 0 or size < 2:
        return None
    shares = counts[counts > 0] / total
    entropy = np.log2(np.sum(shares**alpha)) / (1 - alpha)
    return float(abs(entropy) / np.log2(size))


def tokens_of_words(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[str, int, int]]:
    """(word, first token, last token + 1) of each whitespace-separated word: the tokens that hold a letter of it.

    `offsets` are ranges of characters, in order. A token that reaches over a blank belongs to both words. A word whose
    characters the tokenizer dropped has no token: first and last + 1 are equal.
    """
    words = [match.span() for match in _WORD.finditer(text)]
    if not words:
        return []
    spans = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    # offsets of pieces of one character may be equal, and empty ones (a lone `▁`) hold no letter
    starts, ends = spans[:, 0], np.maximum.accumulate(spans[:, 1])
    begins, finishes = np.array(words, dtype=np.int64).T
    first = np.searchsorted(ends, begins, side="right")
    behind = np.searchsorted(starts, finishes, side="left")
    return [
        (text[begin:finish], int(one), max(int(one), int(last)))
        for (begin, finish), one, last in zip(words, first, behind, strict=True)
    ]


@dataclass
class Word:
    """A word of the text: how often it stands there, the tokens of all its places, and the pieces at its first one."""

    count: int = 0
    tokens: int = 0
    pieces: tuple[str, ...] = ()


@dataclass
class Usage:
    """Counts of one tokenizer over one text; `figures` is what they come to.

    `unspaced` names a script that writes no spaces: then there are no words. `broken` is how many places of words
    take more than one token. `by_word` is None unless asked for.
    """

    tokenizer: "PreTrainedTokenizerBase"
    counts_V: np.ndarray
    documents: int = 0
    bytes: int = 0
    unspaced: str | None = None
    words: int = 0
    broken: int = 0
    by_word: dict[str, Word] | None = None

    @property
    def tokens(self) -> int:
        """Tokens of all texts, no special tokens added."""
        return int(self.counts_V.sum())

    def figures(self) -> dict[str, Any]:
        """The measures by name; None for one that means nothing here."""
        tokens, size = self.tokens, len(self.tokenizer)
        used = int(np.count_nonzero(self.counts_V))
        unknown = self.tokenizer.unk_token_id
        byte_tokens = byte_ids(self.tokenizer)
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "words": self.words or None,
            "tokens": tokens,
            "bytes_per_token": _share(self.bytes, tokens),
            "tokens_per_word": _share(tokens, self.words),
            "continued_words_share": _share(self.broken, self.words),
            "byte_tokens_share": None if byte_tokens is None else _share(self._count(byte_tokens), tokens),
            "unknown_share": None if unknown is None else _share(self._count([int(unknown)]), tokens),
            "renyi_efficiency": renyi_efficiency(self.counts_V, size),
            "renyi_efficiency_of_used": renyi_efficiency(self.counts_V, used),
            "vocabulary": size,
            "used_tokens": used,
            "used_share": _share(used, size),
            "unspaced_script": self.unspaced,
        }

    def _count(self, ids: Sequence[int]) -> int:
        return int(sum(self.counts_V[number] for number in ids if number < len(self.counts_V)))


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def byte_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int] | None:
    """Tokens that are bytes and no characters: `<0xNN>`, or a piece of the byte alphabet that cuts a character.

    None for a tokenizer that has no such token: what it cannot spell becomes the unknown token.
    """
    reader = PieceReader.of(tokenizer)
    found = []
    for piece, number in tokenizer.get_vocab().items():
        if piece in reader.added and not _BYTE_PIECE.fullmatch(piece):
            continue
        if reader.byte_level:
            try:
                reader.read(piece).decode()
            except UnicodeDecodeError:
                found.append(int(number))
        elif _BYTE_PIECE.fullmatch(piece):
            found.append(int(number))
    return sorted(found) or None


def measure(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, by_word: bool = False, bar: Task | None = None
) -> Usage:
    """Encode each text whole and count. A `bar` counts bytes."""
    raw = raw_tokenizer(tokenizer)
    usage = Usage(tokenizer, np.zeros(len(tokenizer), dtype=np.int64), unspaced=unspaced_script(texts))
    usage.by_word = {} if by_word else None
    for batch in _batches(texts):
        for text, encoding in zip(batch, raw.encode_batch(batch, add_special_tokens=False), strict=True):
            found = np.bincount(np.array(encoding.ids, dtype=np.int64), minlength=len(usage.counts_V))
            # a file may number its tokens past its size
            usage.counts_V = np.pad(usage.counts_V, (0, len(found) - len(usage.counts_V))) + found
            if usage.unspaced is None:
                _add_words(usage, text, encoding)
        size = sum(len(text.encode()) for text in batch)
        usage.documents, usage.bytes = usage.documents + len(batch), usage.bytes + size
        if bar is not None:
            bar.advance(size)
    return usage


def _add_words(usage: Usage, text: str, encoding: Any) -> None:
    found = tokens_of_words(text, encoding.offsets)
    usage.words += len(found)
    usage.broken += sum(behind - first > 1 for _, first, behind in found)
    if usage.by_word is None:
        return
    ids = encoding.ids
    for name, first, behind in found:
        word = usage.by_word.setdefault(name, Word())
        if not word.count:
            # by the ids: an encoding shows what an unknown token stands for, not that it is one
            word.pieces = tuple(map(str, usage.tokenizer.convert_ids_to_tokens(ids[first:behind])))
        word.count += 1
        word.tokens += behind - first


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def readable(reader: PieceReader, pieces: Sequence[str]) -> str:
    """Pieces with a bar between them, as text; a character that is cut inside shows as `·`, one for each part."""
    return "|".join(reader.read(piece).decode("utf-8", "replace").replace("\ufffd", "·") for piece in pieces)


def compared(
    first: Usage,
    second: Usage,
    texts: Sequence[str],
    first_keys: Sequence[Hashable],
    second_keys: Sequence[Hashable],
) -> dict[str, Any]:
    """Shares of text with equal tokens and ids, tokens that only the second has, words on which they differ most.

    `first_keys[id]` and `second_keys[id]` say what a token is, see model/token_keys.py. The difference of a word is in
    tokens, of all its places together.
    """
    one, two = first.tokenizer, second.tokenizer
    changes = []
    before, after = first.by_word or {}, second.by_word or {}
    for name, word in before.items():
        other = after[name]
        if other.tokens != word.tokens:
            changes.append((-abs(other.tokens - word.tokens), name))
    readers = PieceReader.of(one), PieceReader.of(two)
    words = []
    for _, name in sorted(changes)[:CHANGED_WORDS]:
        sides = before[name], after[name]
        words.append(
            {
                "word": name,
                "count": sides[0].count,
                "tokens": [side.tokens for side in sides],
                "pieces": [
                    readable(reader, side.pieces).strip(" ") for reader, side in zip(readers, sides, strict=True)
                ],
            }
        )
    lines = lines_of(texts)
    known = {first_keys[number] for number in one.get_vocab().values()}
    own = [number for number in two.get_vocab().values() if second_keys[number] not in known]
    used = sum(number < len(second.counts_V) and second.counts_V[number] > 0 for number in own)
    return {
        "new_tokens": len(own),
        "new_tokens_used": int(used),
        "documents_same_tokens": _rounded(same_tokens_share(one, two, texts, first_keys, second_keys)),
        "lines_same_tokens": _rounded(same_tokens_share(one, two, lines, first_keys, second_keys)),
        "documents_same_ids": _rounded(same_ids_share(one, two, texts)),
        "lines_same_ids": _rounded(same_ids_share(one, two, lines)),
        "changed_words": words,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
