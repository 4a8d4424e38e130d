"""What every token id of a tokenizer stands for, in bytes; and how old tokens spell a given string of bytes.

Tokens of two tokenizers are compared as (kind, bytes), never as the strings in the file: byte-level BPE writes `Ġ`
for a space and two characters for one accented letter, other families write something else.
"""

from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np

from langadapt.core.errors import DataError
from langadapt.core.io import read_json_object
from langadapt.model.bare_model import BareModel, bare_model, vocabulary_of
from langadapt.model.spelling import Spelling, byte_piece, family_of, spelling_of
from langadapt.model.tokenizer_check import MAX_BYTES, check_tokenizer

SUPPORTED = ("byte-bpe", "byte-fallback-bpe", "unigram", "wordpiece")

Kind = Literal["text", "special", "added", "hole"]
_TEXT, _SPECIAL, _ADDED, _HOLE = range(4)
_KINDS: tuple[Kind, ...] = ("text", "special", "added", "hole")


@dataclass(frozen=True)
class TokenTable:
    """Tokens by id. `size` is the highest id plus one; an id that no token has is of kind `hole`."""

    folder: Path
    family: str
    pieces: tuple[str | None, ...] = field(repr=False)
    kinds: "np.ndarray[Any, np.dtype[np.uint8]]" = field(repr=False)
    _spelling: Spelling = field(repr=False)
    _model: BareModel = field(repr=False)

    @classmethod
    def from_folder(cls, path: Path) -> "TokenTable":
        """Read `tokenizer.json`. DataError if it is missing, broken, of a family not supported, or has an id twice."""
        file = path / "tokenizer.json"
        if not file.is_file():
            raise DataError(f"`{path}` has no tokenizer.json", hint="save the model together with its fast tokenizer")
        check_tokenizer(path)
        content = read_json_object(file, max_bytes=MAX_BYTES)
        family = family_of(content)
        if family not in SUPPORTED:
            raise DataError(
                f"`{file}`: {family} tokenizers are not supported yet",
                hint=f"supported are {', '.join(SUPPORTED)}: GPT-2, Llama 3, Qwen, SmolLM; Gemma, Llama 2, Mistral; "
                "XLM-R, T5; BERT",
            )
        spelling = spelling_of(content)
        return cls(path, family, *_tokens_by_id(content, file, spelling), spelling, bare_model(content, file))

    @property
    def size(self) -> int:
        """Highest id plus one: the least number of rows a table for this tokenizer needs."""
        return len(self.pieces)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of tokens that are marked special."""
        return frozenset(np.flatnonzero(self.kinds == _SPECIAL).tolist())

    def text_ids(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Ids of tokens that come from the model's own vocabulary, ascending."""
        return np.flatnonzero(self.kinds == _TEXT).astype(np.int64)

    def piece(self, id: int) -> str:
        """The string in tokenizer.json; DataError for a hole."""
        piece = self.pieces[id] if 0 <= id < self.size else None
        if piece is None:
            raise DataError(f"the tokenizer of `{self.folder}` has no token {id}")
        return piece

    def kind_of(self, id: int) -> Kind:
        """`text` (vocabulary of the model), `special`, `added` (matched before the model runs) or `hole`."""
        return _KINDS[int(self.kinds[id])]

    def bytes_of(self, id: int) -> bytes:
        """The bytes a token stands for; they need not be whole UTF-8 characters.

        A WordPiece token that begins a word stands for a space and its text: `on` and `##on` are ` on` and `on`.
        """
        piece = self.piece(id)
        return self._spelling.content(piece) if self.kinds[id] == _TEXT else piece.encode()

    def spell(self, content: bytes) -> list[int]:
        """Ids of text tokens whose bytes join to `content`; empty if there are none that do.

        Only the model stage runs: no normaliser, pre-tokenizer, added tokens or leading-space rule, so no piece
        appears that is not in the bytes.
        """
        if not content:
            return []
        ids: list[int] = []
        for part, is_text in [(content, True)] if self.family == "byte-bpe" else _parts(content):
            if is_text:
                ids += self._model.ids(part, self._spelling)
            else:
                ids += [id for byte in part if (id := self._model.id_of(byte_piece(byte))) is not None]
        # a BPE without unknown token leaves out what it does not know and says nothing; the others give a special one
        fits = all(self.kinds[id] == _TEXT for id in ids) and b"".join(self.bytes_of(id) for id in ids) == content
        return ids if fits else []


def _parts(content: bytes) -> list[tuple[bytes, bool]]:
    """Runs of whole UTF-8 text, and of bytes that are none, in order."""
    letters = content.decode("utf-8", "surrogateescape")
    runs = groupby(letters, key=lambda letter: not "\udc80" <= letter <= "\udcff")
    return [("".join(run).encode("utf-8", "surrogateescape"), is_text) for is_text, run in runs]


def _tokens_by_id(
    content: dict[str, Any], file: Path, spelling: Spelling
) -> tuple[tuple[str | None, ...], "np.ndarray[Any, np.dtype[np.uint8]]"]:
    found: dict[int, tuple[str, int]] = {}
    for piece, id in vocabulary_of(content, file):
        if type(id) is not int or id < 0:
            raise DataError(f"`{file}`: the id of `{piece}` is {id!r}, not a number from 0 upwards")
        if id in found:
            raise DataError(f"`{file}`: `{found[id][0]}` and `{piece}` have the same id {id}")
        found[id] = (piece, _TEXT)
    for entry in content.get("added_tokens") or ():
        id, piece = entry["id"], entry["content"]
        if id in found and found[id][0] != piece:
            raise DataError(f"`{file}`: `{found[id][0]}` and `{piece}` have the same id {id}")
        found[id] = (piece, _SPECIAL if entry.get("special") else _ADDED)
    size = max(found) + 1
    if size > 16 * len(found) + 1024:
        raise DataError(f"`{file}` has {len(found):,} tokens, but ids up to {size - 1:,}")
    pieces: list[str | None] = [None] * size
    kinds = np.full(size, _HOLE, dtype=np.uint8)
    for id, (piece, kind) in found.items():
        pieces[id], kinds[id] = piece, kind
        if kind == _TEXT:
            spelling.content(piece)
    return tuple(pieces), kinds
