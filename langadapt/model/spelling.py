"""How a tokenizer writes bytes as pieces: the byte alphabet, text with `▁` for spaces, or with `##` inside words."""

import json
import re
from typing import Any, Protocol

from langadapt.core.errors import DataError
from langadapt.model.bytes_alphabet import to_bytes, to_piece

SPACE_MARK = "▁"
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


class Spelling(Protocol):
    """The way from pieces to bytes and back.

    `word_starts` are the bytes that may stand before the first letter of a word in a pre-token.
    """

    word_starts: tuple[bytes, ...]

    def content(self, piece: str) -> bytes:
        """Bytes that a piece of the model's vocabulary stands for; DataError if it is no piece of this kind."""

    def piece(self, content: bytes) -> str:
        """The string that the model is given for these bytes, which are whole UTF-8 text unless pieces are bytes."""


class ByteLevel:
    """GPT-2's: 256 printable characters for the 256 bytes."""

    word_starts: tuple[bytes, ...] = (b"", b" ")

    def content(self, piece: str) -> bytes:
        """Bytes of a piece, which need not be whole characters."""
        return to_bytes(piece)

    def piece(self, content: bytes) -> str:
        """The same bytes in the alphabet."""
        return to_piece(content)


class ByteFallback:
    """SentencePiece's: text as it is, `▁` for a space; a character without a token is written byte by byte."""

    word_starts: tuple[bytes, ...] = (b"", b" ")

    def content(self, piece: str) -> bytes:
        """Bytes of a piece: one byte for `<0xNN>`, else text."""
        match = _BYTE_PIECE.fullmatch(piece)
        if match:
            return bytes([int(match[1], 16)])
        try:
            return piece.replace(SPACE_MARK, " ").encode()
        except UnicodeEncodeError as error:
            raise DataError(f"the token {piece!r} is no text: {error.reason}") from error

    def piece(self, content: bytes) -> str:
        """Text with its spaces marked; DataError for bytes that are no text."""
        try:
            return content.decode().replace(" ", SPACE_MARK)
        except UnicodeDecodeError as error:
            raise DataError(f"{content!r} is no text: {error.reason}") from error


class InsideMark:
    """WordPiece's: text is cut at spaces before pieces are made, and a piece inside a word begins with `##`.

    A piece at the beginning of a word stands for a space and its text, though no space is stored: `on` (` on`) and
    `##on` (`on`) are two tokens, and no other pair of bytes would tell them apart.
    """

    word_starts: tuple[bytes, ...] = (b" ",)

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def content(self, piece: str) -> bytes:
        """Bytes of a piece: its text, with a space in front if it begins a word."""
        inside = piece.startswith(self.mark) and piece != self.mark
        return piece[len(self.mark) :].encode() if inside else b" " + piece.encode()

    def piece(self, content: bytes) -> str:
        """The piece that stands for these bytes, which are text without a space, or with one in front."""
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{content!r} is no text: {error.reason}") from error
        return text[1:] if text.startswith(" ") else self.mark + text


def byte_piece(byte: int) -> str:
    """The piece of a single byte where characters fall back to bytes: `<0x0A>`."""
    return f"<0x{byte:02X}>"


def family_of(spec: dict[str, Any]) -> str:
    """`byte-bpe`, `byte-fallback-bpe`, `unigram`, `wordpiece`, or what else it is, by its tokenizer.json."""
    model = spec.get("model")
    kind = (model.get("type") or _untyped(model)) if isinstance(model, dict) else "unknown"
    if kind == "BPE" and isinstance(model, dict):
        if any(_mentions(spec, section, "ByteLevel") for section in ("pre_tokenizer", "decoder", "normalizer")):
            return "byte-bpe"
        return "byte-fallback-bpe" if model.get("byte_fallback") else "BPE over characters (without byte fallback)"
    return {"Unigram": "unigram", "WordPiece": "wordpiece"}.get(str(kind), str(kind))


def _untyped(model: dict[str, Any]) -> str:
    """Files of old versions of the library do not name the type."""
    keys = {"merges": "BPE", "unk_id": "Unigram", "max_input_chars_per_word": "WordPiece"}
    return next((kind for key, kind in keys.items() if key in model), "unknown")


def _mentions(spec: dict[str, Any], section: str, word: str) -> bool:
    return json.dumps(word, ensure_ascii=False) in json.dumps(spec.get(section), ensure_ascii=False)


def marks_spaces(spec: dict[str, Any]) -> bool:
    """Does the normaliser or the pre-tokenizer turn spaces into `▁`?"""
    return any(_mentions(spec, section, SPACE_MARK) for section in ("normalizer", "pre_tokenizer"))


def spelling_of(spec: dict[str, Any]) -> Spelling:
    """How the pieces of this tokenizer.json are written; the byte alphabet for families that nothing here can read."""
    family = family_of(spec)
    if family == "wordpiece":
        return InsideMark(str(spec["model"].get("continuing_subword_prefix", "##")))
    return ByteFallback() if family in ("byte-fallback-bpe", "unigram") else ByteLevel()
