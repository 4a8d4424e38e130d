"""Which bytes of a text each of its tokens stands for: exact for lossless tokenizers, by offsets for the others."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from langadapt.core.errors import DataError
from langadapt.model.bytes_alphabet import byte_of_character

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class Spans:
    """Tokens of one text, without special tokens.

    `ends[i]` is the byte offset behind the last byte of token `ids[i]`, never falling; 0 for a lone `▁` before the
    text. `hidden[i]` is how many bytes an unknown token hides (0 for all others). `changed_bytes` counts bytes of the
    text that the tokens do not spell as they stand, because the tokenizer normalises or drops them.
    """

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    hidden: tuple[int, ...]
    changed_bytes: int


@dataclass(frozen=True, slots=True)
class PieceReader:
    """Turns a piece of one tokenizer into the bytes it stands for."""

    byte_level: bool
    added: dict[str, bytes]
    inside_mark: str = ""

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "PieceReader":
        """Read from the tokenizer how it writes pieces: byte alphabet, `▁` and `<0xNN>`, or `##` inside words."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        text = backend.to_str() if backend is not None else "{}"
        state = json.loads(text)
        kinds = json.dumps([state.get("decoder"), state.get("pre_tokenizer")])
        added = {token.content: token.content.encode() for token in tokenizer.added_tokens_decoder.values()}
        model = state.get("model") or {}
        mark = model.get("continuing_subword_prefix") if model.get("type") == "WordPiece" else ""
        return cls('"ByteLevel"' in kinds, added, mark or "")

    def read(self, piece: str) -> bytes:
        """Bytes of one piece; best effort for pieces outside the alphabet (the caller compares with the text)."""
        if piece in self.added:
            return self.added[piece]
        if self.byte_level:
            return b"".join(_from_alphabet(letter) for letter in piece)
        if self.inside_mark:
            return piece.removeprefix(self.inside_mark).encode()
        match = _BYTE_PIECE.fullmatch(piece)
        return bytes([int(match[1], 16)]) if match else piece.replace("▁", " ").encode()


def _from_alphabet(letter: str) -> bytes:
    value = byte_of_character().get(letter)
    return letter.encode() if value is None else bytes([value])


def spans(tokenizer: "PreTrainedTokenizerBase", text: str, reader: PieceReader | None = None) -> Spans:
    """Tokenise `text` once and say where each token ends, in bytes of its UTF-8 form.

    Special-token strings inside the text are read as plain text. DataError if the tokenizer changes the text and
    has no offsets to fall back on.
    """
    content = text.encode()
    reader = reader or PieceReader.of(tokenizer)
    fast = bool(tokenizer.is_fast)
    encoded: Any = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=fast,
        return_attention_mask=False,
        verbose=False,
    )
    ids = [int(item) for item in encoded["input_ids"]]
    pieces = [reader.read(piece) for piece in tokenizer.convert_ids_to_tokens(ids)]
    spelled = b"".join(pieces)
    # Metaspace tokenizers write a leading space that the text does not have; it belongs to the first token.
    extra = 1 if spelled != content and spelled == b" " + content else 0
    if spelled[extra:] == content:
        ends = [max(end - extra, 0) for end in accumulate(len(piece) for piece in pieces)]
        return Spans(tuple(ids), tuple(ends), (0,) * len(ids), 0)
    if not fast:
        raise DataError("the tokenizer changes the text and keeps no offsets, so its tokens cannot be placed in it")
    return _by_offsets(ids, encoded["offset_mapping"], pieces, text, tokenizer.unk_token_id)


def _by_offsets(
    ids: list[int], offsets: Sequence[Sequence[int]], pieces: list[bytes], text: str, unknown: int | None
) -> Spans:
    """Place tokens by the character offsets the tokenizer reports, and count what it changed."""
    position = [0, *accumulate(len(letter.encode()) for letter in text)]
    content = text.encode()
    offsets = _without_marks(offsets, pieces, text)
    ends, hidden, reached = list[int](), list[int](), 0
    for token, (start, stop) in zip(ids, offsets, strict=True):
        before, reached = reached, max(reached, position[stop])
        ends.append(reached)
        hidden.append(reached - max(before, position[start]) if token == unknown else 0)
    changed = 0
    for first, last, group in _groups(offsets, pieces):
        there = content[position[first] : position[last]]
        changed += 0 if group.strip(b" ") == there.strip(b" ") else len(there)
    covered = bytearray(len(content))
    for start, stop in offsets:
        covered[position[start] : position[stop]] = b"\x01" * (position[stop] - position[start])
    lost = sum(1 for byte, mark in zip(content, covered, strict=True) if not mark and byte not in b" ")
    return Spans(tuple(ids), tuple(ends), tuple(hidden), changed + lost)


def _without_marks(offsets: Sequence[Sequence[int]], pieces: Sequence[bytes], text: str) -> list[tuple[int, int]]:
    """The ranges, but a lone `▁` has none of the letter behind it.

    SentencePiece's families report the first letter of the word for it; an unknown token behind it would seem to hide
    one letter less than it does.
    """
    found = []
    for at, ((start, stop), piece) in enumerate(zip(offsets, pieces, strict=True)):
        shares = at + 1 < len(offsets) and offsets[at + 1][0] == start
        alone = shares and piece == b" " and not text[start:stop].isspace()
        found.append((start, start if alone else stop))
    return found


def _groups(offsets: Sequence[Sequence[int]], pieces: list[bytes]) -> list[tuple[int, int, bytes]]:
    """Merge tokens whose character ranges overlap (pieces of one character) into (first, last, bytes)."""
    groups: list[tuple[int, int, bytes]] = []
    for (start, stop), piece in zip(offsets, pieces, strict=True):
        if groups and start < groups[-1][1]:
            first, last, before = groups[-1]
            groups[-1] = (first, max(last, stop), before + piece)
        else:
            groups.append((start, stop, piece))
    return groups
