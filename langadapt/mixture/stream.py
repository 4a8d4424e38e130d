"""The training stream of a data artifact: position -> block, without state."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from langadapt.core.errors import DataError
from langadapt.core.io import read_json_object
from langadapt.core.types import Block
from langadapt.mixture.plan import Plan
from langadapt.mixture.shards import SHARD_TOKENS, Shards

PLAN = "plan.json"


@dataclass(frozen=True)
class Stream:
    """An endless sequence of blocks; `block(p)` depends on the artifact and p alone, so any process may ask for any."""

    plan: Plan
    shards: tuple[Shards, ...]

    @classmethod
    def open(cls, folder: Path, *, shard_tokens: int = SHARD_TOKENS) -> "Stream":
        """Open a data artifact; DataError when a shard is missing, extra, of a wrong size, or the index is wrong."""
        plan = Plan.from_json(read_json_object(folder / PLAN), where=str(folder / PLAN))
        shards = tuple(
            Shards(
                folder / source.name,
                tokens=source.tokens,
                documents=source.documents,
                vocabulary=plan.vocabulary,
                shard_tokens=shard_tokens,
            )
            for source in plan.sources
        )
        return cls(plan, shards)

    def block(self, position: int) -> Block:
        """The block at `position` (0 or more): block_tokens ids, and the offsets at which documents begin."""
        place = self.plan.at(position)
        length = self.plan.block_tokens
        shards = self.shards[place.source]
        first = self.plan.offset(place.source, place.epoch) + place.block * length
        tokens = shards.read(first, length)
        starts = shards.starts_within(first, length)
        highest = int(tokens.max())
        if highest >= self.plan.vocabulary:
            raise DataError(
                f"`{shards.folder}` holds token {highest}, but the model has {self.plan.vocabulary} rows",
                where=f"position {position}",
            )
        if not np.all(tokens[starts] == self.plan.separator):
            raise DataError(
                f"the index of `{shards.folder}` does not fit its tokens: no separator where a document begins",
                where=f"position {position}",
            )
        return Block(tokens.tolist(), starts, self.plan.sources[place.source].name, place.epoch, place.block)
