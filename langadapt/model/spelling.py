"""How a tokenizer writes bytes as pieces: the byte alphabet, or text with `▁` for a space and `<0xNN>` for a byte."""

import json
import re
from typing import Any, Protocol

from langadapt.core.errors import DataError
from langadapt.model.bytes_alphabet import to_bytes, to_piece

SPACE_MARK = "▁"
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


class Spelling(Protocol):
    """The way from pieces to bytes and back."""

    def content(self, piece: str) -> bytes:
        """Bytes that a piece of the model's vocabulary stands for; DataError if it is no piece of this kind."""

    def piece(self, content: bytes) -> str:
        """The string that the model is given for these bytes, which are whole UTF-8 text unless pieces are bytes."""


class ByteLevel:
    """GPT-2's: 256 printable characters for the 256 bytes."""

    def content(self, piece: str) -> bytes:
        """Bytes of a piece, which need not be whole characters."""
        return to_bytes(piece)

    def piece(self, content: bytes) -> str:
        """The same bytes in the alphabet."""
        return to_piece(content)


class ByteFallback:
    """SentencePiece's: text as it is, `▁` for a space; a character without a token is written byte by byte."""

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


def byte_piece(byte: int) -> str:
    """The piece of a single byte where characters fall back to bytes: `<0x0A>`."""
    return f"<0x{byte:02X}>"


def family_of(spec: dict[str, Any]) -> str:
    """`byte-bpe`, `byte-fallback-bpe`, or what else it is (`Unigram`, ...), by its tokenizer.json."""
    model = spec.get("model")
    kind = model.get("type") or ("BPE" if "merges" in model else "unknown") if isinstance(model, dict) else "unknown"
    if kind == "BPE" and isinstance(model, dict):
        if any(_mentions(spec, section, "ByteLevel") for section in ("pre_tokenizer", "decoder", "normalizer")):
            return "byte-bpe"
        return "byte-fallback-bpe" if model.get("byte_fallback") else "BPE over characters (without byte fallback)"
    return str(kind)


def _mentions(spec: dict[str, Any], section: str, word: str) -> bool:
    return json.dumps(word, ensure_ascii=False) in json.dumps(spec.get(section), ensure_ascii=False)


def marks_spaces(spec: dict[str, Any]) -> bool:
    """Does the normaliser or the pre-tokenizer turn spaces into `▁`?"""
    return any(_mentions(spec, section, SPACE_MARK) for section in ("normalizer", "pre_tokenizer"))


def spelling_of(spec: dict[str, Any]) -> Spelling:
    """How the pieces of this tokenizer.json are written; the byte alphabet for families that nothing here can read."""
    return ByteFallback() if family_of(spec) == "byte-fallback-bpe" else ByteLevel()
