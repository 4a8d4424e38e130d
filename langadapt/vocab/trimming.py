"""Which tokens a text never needs, the least used first: leaves of the tree of merges.

For WordPiece and Unigram, where tokens are not built of others, see least_used.py. The rest is about BPE.

Why kept text keeps its segmentation. A BPE model merges, again and again, the neighbours whose merge has the lowest
rank. Take a word all of whose tokens are kept. Every token that came up on the way to them is a part of a kept token,
and by the leaf rule it is kept as well. So each merge that the old model made is still there (both parts and the
result are kept), it was the first by rank among more merges than there are now, and the kept merges have their old
order: the new model makes the same merge. At the end no old merge fits, so no kept one does. Nothing else is used:
neither counts nor the corpus.

Parts of a token are those of its *last* merge when its own characters are merged alone, which are the same wherever
the token comes up, because merges around it never looked inside.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from langadapt.core.errors import DataError
from langadapt.model.spelling import SPACE_MARK, byte_piece, family_of
from langadapt.vocab import least_used
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all
from langadapt.vocab.uses import uses_on


@dataclass(frozen=True)
class Trimmed:
    """What stays, why, and how often the text uses it.

    Reasons: special, byte, character, chat, used; in BPE also part, in Unigram also lowest score.
    """

    kept: frozenset[int]
    reasons: Mapping[int, str]
    uses: Mapping[int, int]


def parts_of(base: TokenizerFile) -> dict[int, tuple[int, int]]:
    """Token -> the two tokens that its last merge joins, for each token that merges make of its own characters."""
    vocab: dict[str, int] = base.model["vocab"]
    ranks: dict[tuple[str, str], int] = {}
    for rank, pair in enumerate(base.merges):
        ranks.setdefault(pair, rank)
    found = {}
    for piece, number in vocab.items():
        last = _last_merge(piece, ranks)
        if last is not None:
            found[number] = vocab[last[0]], vocab[last[1]]
    return found


def _last_merge(piece: str, ranks: Mapping[tuple[str, str], int]) -> tuple[str, str] | None:
    symbols = list(piece)
    while len(symbols) > 1:
        best = min(
            (rank, place)
            for place in range(len(symbols) - 1)
            if (rank := ranks.get((symbols[place], symbols[place + 1]), _NEVER)) is not None
        )
        if best[0] == _NEVER:
            return None
        place = best[1]
        if len(symbols) == 2:
            return symbols[0], symbols[1]
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    return None


_NEVER = 1 << 60


def trim(
    base: TokenizerFile,
    words: Mapping[str, int],
    chat: Iterable[str],
    *,
    min_count: int,
    size: int | None = None,
) -> Trimmed:
    """Remove leaves with fewer than `min_count` uses, then the least used, until `size` tokens are left.

    `words` are pre-tokens with counts, `chat` those of the chat template, whose tokens always stay. What a removed
    token was used for is counted for its two parts, which replace it in the text. DataError if `size` is too small.
    """
    if "merges" not in base.model:
        return _trim_pieces(base, words, chat, min_count, size)
    parts = parts_of(base)
    uses = uses_on(base, words)
    must = _must_stay(base, words, chat)
    kept = set(base.pieces.values())
    builders = dict.fromkeys(kept, 0)
    for left, right in parts.values():
        builders[left] += 1
        builders[right] += 1
    expected = {number: uses.get(number, 0) for number in kept}
    # of equally rare ones the higher id goes first: it was learned later
    heap = [(expected[number], -number) for number in kept if not builders[number] and number not in must]
    heapq.heapify(heap)
    while heap and (heap[0][0] < min_count or (size is not None and len(kept) > size)):
        count, number = heapq.heappop(heap)
        number = -number
        kept.remove(number)
        for part in parts.get(number, ()):
            builders[part] -= 1
            expected[part] += count
            if not builders[part] and part not in must:
                heapq.heappush(heap, (expected[part], -part))
    _insist_on_size(base, len(kept), size)
    reasons = {number: must.get(number, "used" if uses.get(number) else "part") for number in kept}
    return Trimmed(frozenset(kept), reasons, uses)


def _trim_pieces(
    base: TokenizerFile, words: Mapping[str, int], chat: Iterable[str], min_count: int, size: int | None
) -> Trimmed:
    """The same where no token is built of others. All characters stay: text with one would become unknown."""
    stay = least_used.always_stay(base)
    for ids in encode_all(base.model_stage(), sorted(set(chat))):
        for number in ids:
            stay.setdefault(number, "chat")
    everything = set(base.pieces.values())
    least = 0 if size is None else len(everything) - size
    going = least_used.rarest(base, words, stay, below=min_count, least=least)
    kept = everything - {slot.id for slot in going}
    _insist_on_size(base, len(kept), size)
    return Trimmed(frozenset(kept), {number: stay.get(number, "used") for number in kept}, uses_on(base, words))


def _insist_on_size(base: TokenizerFile, kept: int, size: int | None) -> None:
    if size is not None and kept > size:
        raise DataError(
            f"{kept:,} tokens cannot go (special, bytes, characters, chat template): `size` is {size:,}",
            where=base.place,
        )


def _must_stay(base: TokenizerFile, words: Mapping[str, int], chat: Iterable[str]) -> dict[int, str]:
    """Tokens that no count decides about -> why."""
    vocab: dict[str, int] = base.model["vocab"]
    must = dict.fromkeys(base.added.values(), "special")
    unknown = vocab.get(base.model.get("unk_token") or "")
    if unknown is not None:
        must.setdefault(unknown, "special")
    lone = family_of(base.spec) != "byte-bpe"
    for piece in map(byte_piece, range(256)) if lone else (piece for piece in vocab if len(piece) == 1):
        if piece in vocab:
            must.setdefault(vocab[piece], "byte")
    letters = sorted({letter for word in words for letter in _letters(base, word)})
    # the mark for spaces too: written byte by byte it would not be turned back into a space
    for letter in [*letters, SPACE_MARK]:
        if letter in vocab:
            must.setdefault(vocab[letter], "character")
    for ids in encode_all(base.model_stage(), sorted(set(chat))):
        for number in ids:
            must.setdefault(number, "chat")
    return must


def _letters(base: TokenizerFile, word: str) -> Sequence[str]:
    """The characters of a word, each as the file writes it."""
    text = base.spelling.content(word).decode("utf-8", "replace")
    return [base.spelling.piece(letter.encode()) for letter in text if letter != "\ufffd"]


def changed_words(
    base: TokenizerFile, new: TokenizerFile, words: Mapping[str, int], ids: Mapping[int, int]
) -> tuple[int, int]:
    """How many word types are cut otherwise than before, and how often they occur; without those it could not read."""
    types = sorted(words)
    pairs = zip(types, encode_all(base.model_stage(), types), encode_all(new.model_stage(), types), strict=True)
    changed = [
        word
        for word, before, after in pairs
        if base.unknown not in before and [ids.get(number, -1) for number in before] != after
    ]
    return len(changed), sum(words[word] for word in changed)
