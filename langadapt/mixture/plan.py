"""The order of training blocks as a pure function of (seed, position): no state, nothing to replay after a restart."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.rng import stream_key
from langadapt.mixture.permute import Permutation
from langadapt.mixture.turns import Numbers, Turns

FORMAT = 1
# What a corpus may be called: it names a folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_MOST = 1 << 62


@dataclass(frozen=True)
class Source:
    """One corpus in the plan. `count` of the first stage's slots are its turns; `base` is the number of its first turn.

    `blocks` = ceil(tokens / block_tokens). `base` is 0; a later stage begins where the counts of the earlier ones
    ended.
    """

    name: str
    documents: int
    bytes: int
    tokens: int
    blocks: int
    count: int
    base: int = 0


@dataclass(frozen=True)
class Place:
    """What stands at a position: block `block` of source number `source`, in that source's pass number `epoch`."""

    source: int
    epoch: int
    block: int


@dataclass(frozen=True)
class Plan:
    """Sources, counts and a seed: everything that fixes the order; `later` are stages with other counts."""

    seed: int
    block_tokens: int
    separator: int
    vocabulary: int
    sources: tuple[Source, ...]
    later: tuple[Turns, ...] = ()
    _first: Turns = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.sources or min(source.count for source in self.sources) < 1 or self.block_tokens < 2:
            raise DataError("a mixture plan has at least one source, and every source at least one turn")
        for source in self.sources:
            if source.tokens < 1 or source.blocks != -(-source.tokens // self.block_tokens):
                raise DataError(
                    f"mixture plan: {source.blocks} blocks do not fit {source.tokens} tokens of `{source.name}`"
                )
        counts, bases = zip(*((source.count, source.base) for source in self.sources), strict=True)
        object.__setattr__(self, "_first", Turns(0, counts, bases))
        for before, stage in pairwise(self.stages):
            if stage.start <= before.start or list(stage.bases) != before.before(stage.start):
                raise DataError("the stages of this mixture plan do not follow each other")

    @property
    def stages(self) -> tuple[Turns, ...]:
        """All stages, in order of their starts."""
        return (self._first, *self.later)

    def stage_at(self, position: int) -> Turns:
        """The stage that a position lies in."""
        return next(stage for stage in reversed(self.stages) if stage.start <= position)

    @property
    def slots(self) -> int:
        """Length of the first table of turns; counts are exact at its multiples."""
        return self._first.slots

    def at(self, position: int) -> Place:
        """What stands at `position` (0 or more)."""
        if position < 0:
            raise IndexError(f"position {position}")
        number, ordinal = self.stage_at(position).at(position)
        epoch, turn = divmod(ordinal, self.sources[number].blocks)
        return Place(number, epoch, self.permutation(number, epoch)(turn))

    def at_many(self, first: int, stop: int) -> tuple[Numbers, Numbers, Numbers]:
        """`at` for positions first..stop-1, as arrays of source numbers, epochs and blocks; 5 to 50 times faster."""
        numbers, ordinals = self._turns_of(first, stop)
        epochs, blocks = np.zeros_like(numbers), np.zeros_like(numbers)
        for number, source in enumerate(self.sources):
            here = np.flatnonzero(numbers == number)
            epoch, turn = np.divmod(ordinals[here], source.blocks)
            epochs[here] = epoch
            for one in np.unique(epoch):
                part = epoch == one
                blocks[here[part]] = self.permutation(number, int(one)).many(turn[part].astype(np.uint64))
        return numbers, epochs, blocks

    def _turns_of(self, first: int, stop: int) -> tuple[Numbers, Numbers]:
        """Source and its turn at each of some positions."""
        ends = [*(stage.start for stage in self.later), max(stop, self.stages[-1].start)]
        parts = [
            stage.at_many(max(first, stage.start), min(stop, end))
            for stage, end in zip(self.stages, ends, strict=True)
            if max(first, stage.start) < min(stop, end)
        ]
        none: Numbers = np.zeros(0, dtype=np.int64)
        return (
            np.concatenate([none, *(sources for sources, _ in parts)]),
            np.concatenate([none, *(turns for _, turns in parts)]),
        )

    def turns_before(self, position: int) -> list[int]:
        """How many blocks of each source stand before `position`."""
        before = self.stage_at(position).before(position)
        return [turns - source.base for turns, source in zip(before, self.sources, strict=True)]

    def permutation(self, source: int, epoch: int) -> Permutation:
        """The order of the blocks of one source in one epoch."""
        chosen = self.sources[source]
        return _permutation(chosen.blocks, self.seed, chosen.name, epoch)

    def offset(self, source: int, epoch: int) -> int:
        """By how many tokens the cuts between blocks are moved in one epoch."""
        return stream_key(self.seed, "cut", self.sources[source].name, epoch) % self.block_tokens

    def token_shares(self, position: int = 0) -> list[float]:
        """Share of every source in the stream's tokens, in the stage that a position lies in."""
        stage = self.stage_at(position)
        return [count / stage.slots for count in stage.counts]

    def byte_shares(self, position: int = 0) -> list[float]:
        """Share of every source in the stream's bytes of text, in the stage that a position lies in."""
        counts = self.stage_at(position).counts
        weights = [count * source.bytes / source.tokens for count, source in zip(counts, self.sources, strict=True)]
        return [weight / sum(weights) for weight in weights]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `stages` has one entry where shares are the same all along."""
        return {
            "format": FORMAT,
            "seed": self.seed,
            "block_tokens": self.block_tokens,
            "separator": self.separator,
            "vocabulary": self.vocabulary,
            "sources": [
                {
                    "name": source.name,
                    "documents": source.documents,
                    "bytes": source.bytes,
                    "tokens": source.tokens,
                    "blocks": source.blocks,
                }
                for source in self.sources
            ],
            "stages": [stage.to_json() for stage in self.stages],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "plan.json") -> "Plan":
        """Read what `to_json` wrote; DataError if it is something else."""
        try:
            stages = value["stages"]
            if value["format"] != FORMAT or stages[0]["start"] != 0:
                raise DataError("this mixture plan was made by another version of langadapt", where=where)
            counts, bases = stages[0]["counts"], stages[0]["bases"]
            sources = tuple(
                Source(count=count, base=base, **source)
                for source, count, base in zip(value["sources"], counts, bases, strict=True)
            )
            head = {key: value[key] for key in ("seed", "block_tokens", "separator", "vocabulary")}
            numbers = [*head.values(), *(number for stage in stages for number in (stage["start"], stage["slots"]))]
            numbers += [number for stage in stages for number in (*stage["counts"], *stage["bases"])]
            numbers += [number for source in value["sources"] for key, number in source.items() if key != "name"]
            fit = _fit(numbers, [source["name"] for source in value["sources"]])
            if not fit or any(_wrong(stage, len(sources)) for stage in stages):
                raise DataError("the numbers of this mixture plan do not fit together", where=where)
            later = [Turns(stage["start"], tuple(stage["counts"]), tuple(stage["bases"])) for stage in stages[1:]]
            return cls(sources=sources, later=tuple(later), **head)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"this is not a mixture plan: {error}", where=where) from error


def _fit(numbers: list[object], names: list[object]) -> bool:
    """Could `to_json` have written these? A name becomes a path, so it is checked like one."""
    return all(type(number) is int and 0 <= number < _MOST for number in numbers) and all(
        isinstance(name, str) and NAME.fullmatch(name) for name in names
    )


def _wrong(stage: Mapping[str, Any], sources: int) -> bool:
    return sum(stage["counts"]) != stage["slots"] or not len(stage["counts"]) == len(stage["bases"]) == sources


# A run reads each source's present epoch and, at its end, the next; 64 is enough for 32 sources.
@lru_cache(maxsize=64)
def _permutation(size: int, seed: int, name: str, epoch: int) -> Permutation:
    return Permutation(size, stream_key(seed, "blocks", name, epoch))


def token_weights(byte_shares: Mapping[str, float], bytes_per_token: Mapping[str, float]) -> dict[str, float]:
    """Shares of tokens that give the wanted shares of bytes: proportional to share / bytes per token."""
    weights = {name: share / bytes_per_token[name] for name, share in byte_shares.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def positions_of(step: int, batch_blocks: int, rank: int = 0, world: int = 1) -> range:
    """Positions that process `rank` of `world` reads at `step`: contiguous parts of the same global batch."""
    if batch_blocks % world or not 0 <= rank < world:
        raise ConfigError(f"{batch_blocks} blocks a step cannot be divided among {world} processes")
    share = batch_blocks // world
    first = step * batch_blocks + rank * share
    return range(first, first + share)
