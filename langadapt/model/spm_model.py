"""A SentencePiece `.model` file: read within bounds, changed, written; and how the native library cuts text with it.

The file is a protocol buffer: pieces with scores and types, and how it was trained and normalises. It is parsed here;
the native library sees it in a child process only (tokenizer_probe.py), because a crafted one can end a process.
"""

import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from langadapt.core.boundary import Reading
from langadapt.core.errors import DataError
from langadapt.model.tokenizer_check import in_child

# As transformers names them, in the order in which it looks; any other `*.model` comes after these.
NAMES = ("tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "spm.model", "sentencepiece.model")
# Gemma 3's has 4.7 MB, the largest known to us (mT5, 250,000 pieces) 4.3 MB: this is ten times as much.
MAX_BYTES = 48 * 1024 * 1024

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_KINDS: dict[int, Literal["unigram", "bpe"]] = {1: "unigram", 2: "bpe"}
# Texts of one call of the child: bounds its memory and its time.
_BATCH_LETTERS = 2_000_000


@dataclass(frozen=True)
class Piece:
    """One entry of the file: its string, score (32 bits) and type."""

    text: str
    score: float
    type: int = NORMAL


@dataclass(frozen=True)
class SpmModel:
    """A parsed `.model`. `proto` is the whole message; nothing here changes it."""

    name: str
    place: str
    proto: Any

    @property
    def kind(self) -> Literal["unigram", "bpe"]:
        """How it chooses a cut."""
        return _KINDS[self.proto.trainer_spec.model_type]

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """All pieces; the id in this file is the place."""
        return tuple(Piece(one.piece, one.score, one.type) for one in self.proto.pieces)

    @cached_property
    def places(self) -> dict[str, int]:
        """Piece -> its place."""
        return {piece.text: place for place, piece in enumerate(self.pieces)}

    @cached_property
    def lowest(self) -> float:
        """The lowest score of an ordinary piece: what unknown characters cost follows from it."""
        return min(piece.score for piece in self.pieces if piece.type == NORMAL)

    def replaced(self, pieces: Sequence[Piece]) -> "SpmModel":
        """The same model with other pieces: sizes and the ids of roles follow, stored samples are left out.

        Samples (`self_test_data`) are texts with the cut that the trainer saw, which need not hold any more.
        """
        fresh = type(self.proto)()
        fresh.trainer_spec.CopyFrom(self.proto.trainer_spec)
        for name in ("normalizer_spec", "denormalizer_spec"):
            if self.proto.HasField(name):
                getattr(fresh, name).CopyFrom(getattr(self.proto, name))
        for piece in pieces:
            fresh.pieces.add(piece=piece.text, score=piece.score, type=piece.type)
        spec = fresh.trainer_spec
        spec.vocab_size = len(pieces)
        after = {piece.text: place for place, piece in enumerate(pieces)}
        for role in ("unk_id", "bos_id", "eos_id", "pad_id"):
            old = getattr(spec, role)
            if 0 <= old < len(self.pieces) and (now := after.get(self.pieces[old].text, -1)) != old:
                setattr(spec, role, now)
        return SpmModel(self.name, self.place, fresh)

    def without_normaliser(self) -> "SpmModel":
        """The same model for text that was normalised already: nothing is replaced, stripped or put in front."""
        bare = type(self.proto)()
        bare.CopyFrom(self.proto)
        spec = bare.normalizer_spec
        spec.Clear()
        spec.name = "identity"
        spec.add_dummy_prefix = spec.remove_extra_whitespaces = spec.escape_whitespaces = False
        return SpmModel(self.name, self.place, bare)

    def content(self) -> bytes:
        """The bytes of the file: always the same for the same model."""
        data: bytes = self.proto.SerializeToString(deterministic=True)
        return data

    def cuts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text by the native library, in a child process; DataError if it fails or takes too long."""
        import json

        found: list[list[int]] = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "it.model"
            path.write_bytes(self.content())
            for batch in _batches(texts):
                try:
                    found += json.loads(in_child(str(path), batch, library="sentencepiece"))
                except DataError as error:
                    raise DataError(error.message, where=self.place) from error
        return found


def find(folder: Path) -> Path | None:
    """The `.model` file of a folder; None if there is none."""
    named = [folder / name for name in NAMES]
    return next((path for path in [*named, *sorted(folder.glob("*.model"))] if path.is_file()), None)


def read(path: Path) -> SpmModel:
    """Parse a `.model`. DataError: too large, damaged, of another kind (tiktoken names its files alike), no library."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise DataError(f"it has {size:,} bytes; a file of this kind has at most {MAX_BYTES:,}", where=str(path))
    try:
        from sentencepiece import sentencepiece_model_pb2 as messages
    except ImportError as error:
        raise DataError(
            f"reading SentencePiece files needs a package that is not installed: {error}",
            hint="pip install sentencepiece protobuf",
        ) from error
    with Reading(f"`{path}` is no SentencePiece model"):
        proto = messages.ModelProto.FromString(path.read_bytes())
        model = SpmModel(path.name, str(path), proto)
        _check(model)
    return model


def _check(model: SpmModel) -> None:
    where = model.place
    kind = model.proto.trainer_spec.model_type
    if kind not in _KINDS:
        raise DataError(f"its model type is {kind}: only Unigram and BPE are known", where=where)
    if not any(piece.type == NORMAL for piece in model.pieces):
        raise DataError("it has no pieces: it is no SentencePiece model", where=where)
    if len(model.places) != len(model.pieces):
        twice = next(piece.text for place, piece in enumerate(model.pieces) if model.places[piece.text] != place)
        raise DataError(f"it has the piece {twice!r:.80} twice", where=where)
    for place, piece in enumerate(model.pieces):
        if not piece.text or not math.isfinite(piece.score):
            raise DataError(f"piece {place} is {piece.text!r:.80} with score {piece.score}", where=where)


def _batches(texts: Sequence[str]) -> Iterable[list[str]]:
    batch: list[str] = []
    letters = 0
    for text in texts:
        if batch and letters + len(text) > _BATCH_LETTERS:
            yield batch
            batch, letters = [], 0
        batch.append(text)
        letters += len(text)
    if batch:
        yield batch
