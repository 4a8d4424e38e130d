"""Characters as pieces of their own: what keeps a text readable whatever longer pieces come and go."""

from collections.abc import Iterable

from tokenizers import Tokenizer

from langadapt.model.spelling import byte_piece
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all, stand_in


def letters_of(base: TokenizerFile, piece: str) -> list[str]:
    """A piece's characters, each as a piece of its own is written (WordPiece: all but the first of a word marked)."""
    mark = getattr(base.spelling, "mark", "")
    if not mark:
        return list(piece)
    if piece.startswith(mark) and piece != mark:
        return [mark + letter for letter in piece[len(mark) :]]
    return [piece[:1], *(mark + letter for letter in piece[1:])]


def is_closed(base: TokenizerFile) -> bool:
    """Has every character that stands in a piece one of its own? All files that a trainer wrote are like that.

    Then a word that can be read is made of such characters, and can be read with any longer pieces or with none.
    """
    vocab = base.vocab
    if base.model.get("byte_fallback") and all(byte_piece(byte) in vocab for byte in range(256)):
        return True
    pieces = (piece for piece, id in vocab.items() if piece not in base.added and piece != stand_in(id))
    return all(letter in vocab for piece in pieces for letter in letters_of(base, piece))


def became_unknown(base: TokenizerFile, stage: Tokenizer, unknown: int | None, words: Iterable[str]) -> tuple[str, ...]:
    """Words, sorted, that the base reads and another model, with the token `unknown` for it, does not."""
    types = sorted(words)
    pairs = zip(types, encode_all(base.model_stage(), types), encode_all(stage, types), strict=True)
    return tuple(word for word, before, after in pairs if unknown in after and base.unknown not in before)
