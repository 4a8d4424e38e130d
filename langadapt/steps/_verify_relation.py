"""How one tokenizer came from another: by the map that its maker wrote, the origin of a model's rows, or the files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Artifact, is_artifact, open_artifact
from langadapt.core.errors import DataError
from langadapt.core.io import read_json_lines

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from langadapt.vocab.tokenizer_file import TokenizerFile


@dataclass(frozen=True)
class Pair:
    """Two tokenizers, each as its file says and as transformers loads it."""

    base_folder: Path
    new_folder: Path
    base: "TokenizerFile"
    new: "TokenizerFile"
    base_loaded: "PreTrainedTokenizerBase"
    new_loaded: "PreTrainedTokenizerBase"

    @classmethod
    def of(cls, base: Path, new: Path) -> "Pair":
        """Read both. DataError if one is broken."""
        from langadapt.model.load import load_tokenizer
        from langadapt.vocab import tokenizer_file

        files = tokenizer_file.read(base), tokenizer_file.read(new)
        return cls(base, new, *files, load_tokenizer(base), load_tokenizer(new))


@dataclass(frozen=True)
class Relation:
    """`mode` is that of extend-vocab, or `trim` or `new-tokenizer`: then `ids` maps old ids to new ones.

    `gone` are tokens of the base that were given up, by id. `taken` are the ids that new tokens must have, None: those
    behind all others. `origin` says which row of the base each row of a model was. `artifact` is the second folder's.
    """

    mode: str
    gone: Mapping[int, str] = field(default_factory=dict)
    taken: tuple[int, ...] | None = None
    ids: Mapping[int, int] = field(default_factory=dict)
    origin: "np.ndarray[Any, np.dtype[np.int32]] | None" = None
    artifact: Artifact | None = None


def relation_of(pair: Pair) -> Relation:
    """DataError if the second was made from another tokenizer than the first."""
    from langadapt.model.matching import VOCABULARY_MAP

    artifact = open_artifact(pair.new_folder) if is_artifact(pair.new_folder) else None
    path = pair.new_folder / VOCABULARY_MAP
    if path.is_file():
        return _told(pair, list(read_json_lines(path)), artifact)
    if (pair.new_folder / "config.json").is_file() and any(pair.new_folder.glob("*.safetensors")):
        return _by_rows(pair, artifact)
    return Relation("append", artifact=artifact)


def _told(pair: Pair, lines: list[dict[str, Any]], artifact: Artifact | None) -> Relation:
    header, entries = (lines[0], lines[1:]) if lines and "vocabulary_before" in lines[0] else ({}, lines)
    if header.get("vocabulary_before", pair.base.next_id) != pair.base.next_id:
        raise DataError(
            f"`{pair.new_folder}` was made for another model: its base has {header['vocabulary_before']:,} tokens, "
            f"`{pair.base_folder}` has {pair.base.next_id:,}"
        )
    mode = str(header.get("mode", "append"))
    if mode == "trim":
        ids = {entry["old_id"]: entry["id"] for entry in entries if "old_id" in entry}
        return Relation(mode, ids=ids, artifact=artifact)
    if mode == "new-tokenizer":
        from langadapt.model.matching import match
        from langadapt.model.token_table import TokenTable

        tables = TokenTable.from_folder(pair.base_folder), TokenTable.from_folder(pair.new_folder)
        return Relation(mode, ids=match(*tables, base_rows=int(header["old_rows"])).kept, artifact=artifact)
    gone = {entry["id"]: str(entry["old_piece"]) for entry in entries if "old_piece" in entry}
    taken = None if mode == "append" else tuple(entry["id"] for entry in entries)
    return Relation(mode, gone, taken, artifact=artifact)


def _by_rows(pair: Pair, artifact: Artifact | None) -> Relation:
    """A model has no map; where rows moved it says which row each was."""
    from langadapt.model.row_origin import origin_of

    origin = origin_of(pair.new_folder)
    if origin is None:
        return Relation("append", artifact=artifact)
    old = {number: piece for piece, number in pair.base.pieces.items()}
    new = {number: piece for piece, number in pair.new.pieces.items()}
    ids = {int(origin[id]): id for id in new if id < len(origin) and int(origin[id]) in old}
    if any(before != now for before, now in ids.items()) or len(origin) <= max(old):
        mode = "trim" if pair.new.pieces.keys() <= pair.base.pieces.keys() else "new-tokenizer"
        return Relation(mode, ids=ids, origin=origin, artifact=artifact)
    taken = tuple(sorted(id for id in new if id < len(origin) and origin[id] < 0))
    gone = {id: old[id] for id in taken if id in old}
    mode = "append" if not gone else "same-size"
    return Relation(mode, gone, taken, origin=origin, artifact=artifact)
