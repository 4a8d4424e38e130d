"""The model stage of a tokenizer alone: no normaliser, pre-tokenizer, added tokens or leading-space rule."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from langadapt.core.errors import DataError
from langadapt.model.spelling import Spelling, family_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class BareModel(Protocol):
    """Cuts text into tokens of the model's own vocabulary."""

    def ids(self, text: bytes, spelling: Spelling) -> list[int]:
        """Ids for bytes that are text (any bytes for byte-level BPE); unknown parts are left out or one special id."""

    def id_of(self, piece: str) -> int | None:
        """Id of a piece, if there is one."""


def bare_model(content: dict[str, Any], file: Path) -> BareModel:
    """The model of a tokenizer.json, after checking what tokenizers would report with a bare Exception."""
    make = {"unigram": _unigram, "wordpiece": _wordpiece}.get(family_of(content), _bpe)
    return make(content["model"], file)


def vocabulary_of(content: dict[str, Any], file: Path) -> Iterable[tuple[str, Any]]:
    """(piece, id) of the model's vocabulary, which Unigram writes as a list of (piece, score)."""
    vocabulary = content["model"].get("vocab")
    if isinstance(vocabulary, dict) and vocabulary:
        return vocabulary.items()
    if family_of(content) == "unigram" and isinstance(vocabulary, list) and vocabulary:
        for entry in vocabulary:
            if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
                raise DataError(f"`{file}`: {entry!r} is not a piece with a score")
            if isinstance(entry[1], bool) or not isinstance(entry[1], int | float):
                raise DataError(f"`{file}`: the score of `{entry[0]}` is {entry[1]!r}, not a number")
        return [(piece, id) for id, (piece, _) in enumerate(vocabulary)]
    raise DataError(f"`{file}` has no vocabulary")


def merges_of(model: dict[str, Any], file: Path) -> list[tuple[str, str]]:
    """The merges of a BPE in rank order, written `["a", "b"]` or `"a b"`; DataError for an entry that is none."""
    vocabulary, found = model["vocab"], []
    for entry in model.get("merges") or ():
        pair = tuple(entry.split(" ")) if isinstance(entry, str) else tuple(entry)
        if len(pair) != 2 or not {pair[0], pair[1], pair[0] + pair[1]} <= vocabulary.keys():
            raise DataError(f"`{file}`: the merge {entry!r} does not join two tokens of the vocabulary into a third")
        found.append((pair[0], pair[1]))
    return found


@dataclass(frozen=True)
class _Whole:
    """A model that takes a pre-token as it is spelled."""

    tokenizer: "Tokenizer"

    def ids(self, text: bytes, spelling: Spelling) -> list[int]:
        found: list[int] = self.tokenizer.encode(spelling.piece(text), add_special_tokens=False).ids
        return found

    def id_of(self, piece: str) -> int | None:
        id: int | None = self.tokenizer.token_to_id(piece)
        return id


@dataclass(frozen=True)
class _Words:
    """WordPiece: one model for the beginning of words, one for what stands inside a word."""

    first: "Tokenizer"
    inside: "Tokenizer"

    def ids(self, text: bytes, spelling: Spelling) -> list[int]:
        head, *words = text.decode().split(" ")
        found: list[int] = self.inside.encode(head, add_special_tokens=False).ids if head else []
        for word in words:
            found += self.first.encode(word, add_special_tokens=False).ids if word else []
        return found

    def id_of(self, piece: str) -> int | None:
        id: int | None = self.first.token_to_id(piece)
        return id


def _bpe(model: dict[str, Any], file: Path) -> BareModel:
    """`ignore_merges` stays off: with it a token that stands in the vocabulary by string would spell itself."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    return _Whole(
        Tokenizer(
            BPE(vocab=model["vocab"], merges=merges_of(model, file), byte_fallback=bool(model.get("byte_fallback")))
        )
    )


def _unigram(model: dict[str, Any], file: Path) -> BareModel:
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram

    vocabulary = [(piece, float(score)) for piece, score in model["vocab"]]
    unknown = model.get("unk_id")
    if type(unknown) is not int or not 0 <= unknown < len(vocabulary):
        raise DataError(f"`{file}`: its unknown token is {unknown!r}, not an id")
    return _Whole(Tokenizer(Unigram(vocabulary, unknown, bool(model.get("byte_fallback")))))


# A word of this many characters would take seconds, and no token is as long.
_LONGEST = 1000


def _wordpiece(model: dict[str, Any], file: Path) -> BareModel:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece

    vocabulary, mark, unknown = model["vocab"], model.get("continuing_subword_prefix"), model.get("unk_token")
    if not isinstance(mark, str) or not mark:
        raise DataError(f"`{file}`: its pieces inside words have no mark")
    if unknown not in vocabulary:
        raise DataError(f"`{file}`: its unknown token {unknown!r} is not in the vocabulary")
    inside = {piece[len(mark) :]: id for piece, id in vocabulary.items() if piece.startswith(mark) and piece != mark}
    options = {"unk_token": unknown, "max_input_chars_per_word": _LONGEST}
    return _Words(
        Tokenizer(WordPiece(vocabulary, continuing_subword_prefix=mark, **options)),
        Tokenizer(WordPiece(inside | {unknown: vocabulary[unknown]}, continuing_subword_prefix="", **options)),
    )
