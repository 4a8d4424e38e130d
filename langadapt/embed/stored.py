"""Row maps that stand beside a model, for a model of the same vocabulary."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from langadapt.core.errors import DataError
from langadapt.core.io import sha256_text
from langadapt.embed.rowmap import RowMap, load_maps
from langadapt.embed.types import Ints, Role, Vocabulary
from langadapt.model.token_table import TokenTable


@dataclass(frozen=True)
class StoredMaps:
    """Maps by table; `vocabulary` is the digest of the base's text tokens (None: an old version wrote the model)."""

    folder: Path
    maps: Mapping[str, RowMap] = field(repr=False)
    vocabulary: str | None = None

    def map_for(self, role: Role) -> RowMap:
        """The map of the head where there is one of its own, else that of the input table."""
        return self.maps["head" if role == "head" and "head" in self.maps else "input"]


def open_stored(folder: Path, vocabulary: str | None, target: TokenTable) -> StoredMaps:
    """Read the maps of a model that init-embeddings made. DataError if it has none, or was made with other tokens."""
    maps = load_maps(folder)
    pieces, there = [note["piece"] for note in maps["input"].provenance], set(target.pieces)
    known = sum(piece in there for piece in pieces)
    if 2 * known < len(pieces):
        raise DataError(
            f"the tokenizer `{target.folder}` has {known:,} of the {len(pieces):,} tokens in the row map of `{folder}`",
            hint=f"give the tokenizer that it was made with: `{folder}` itself",
        )
    return StoredMaps(folder, maps, vocabulary)


def vocabulary_digest(tokens: Vocabulary, population: Ints) -> str:
    """SHA-256 of the text tokens and their ids: equal for siblings, whatever special tokens they have."""
    return sha256_text("\n".join(f"{id} {tokens.piece(id)}" for id in population.tolist()))
