"""Shares of bytes become shares of tokens: what is mixed is text, whatever the tokenizer makes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from langadapt.core.errors import ConfigError
from langadapt.mixture.curriculum import Curriculum, course_facts, early_cap, late_stage, planned_tokens
from langadapt.mixture.plan import Plan, Source, token_weights
from langadapt.mixture.quota import slot_counts

# Up to about four epochs repeated text is nearly as good as new text (Muennighoff et al. 2023), and `cpt` refuses
# more unless told otherwise; text that four passes over the targets cannot reach is not packed.
REPLAY_PASSES = 4


@dataclass(frozen=True)
class Amount:
    """What one corpus holds once it is packed; `tokens` counts separators."""

    documents: int
    bytes: int
    tokens: int


def check_shares(corpora: Mapping[str, Any], replay: Mapping[str, float]) -> None:
    """ConfigError unless `replay` names corpora, leaves at least one target, and sums to less than 1."""
    for name, share in replay.items():
        if name not in corpora:
            raise ConfigError(f"`replay` names `{name}`, which is not among the corpora", hint=f"add it: {name}=FOLDER")
        if not 0 < share < 1:
            raise ConfigError(
                f"`replay`: the share of `{name}` should be between 0 and 1, it is {share}",
                hint=f"to watch a corpus without training on it: --probe {name}=FOLDER",
            )
    if replay and sum(replay.values()) >= 1:
        raise ConfigError("`replay`: the shares leave nothing for the target corpora")
    if not set(corpora) - set(replay):
        raise ConfigError("there is no target corpus: every corpus is replayed", hint="add one: NAME=FOLDER")


def byte_shares(sizes: Mapping[str, int], replay: Mapping[str, float]) -> dict[str, float]:
    """Share of the stream's bytes per corpus: as `replay` says, and the rest divided among the others by size."""
    targets = {name: size for name, size in sizes.items() if name not in replay}
    rest, total = 1 - sum(replay.values()), sum(targets.values())
    return {name: replay[name] if name in replay else rest * sizes[name] / total for name in sorted(sizes)}


def replay_cap(target_bytes: int, replay: Mapping[str, float], name: str, curriculum: Curriculum | None = None) -> int:
    """Bytes of a replayed corpus that four passes over the targets can use."""
    if curriculum is not None and curriculum.planned_tokens is None:
        return early_cap(curriculum, target_bytes, replay, name, REPLAY_PASSES)
    return max(1, round(REPLAY_PASSES * target_bytes * replay[name] / (1 - sum(replay.values()))))


def make_plan(
    amounts: Mapping[str, Amount],
    replay: Mapping[str, float],
    *,
    seed: int,
    block_tokens: int,
    separator: int,
    vocabulary: int,
    curriculum: Curriculum | None = None,
) -> Plan:
    """The plan that reads the wanted shares of bytes; sources are sorted by name."""
    names, weights = sorted(amounts), _token_shares(amounts, replay)
    counts = slot_counts([weights[name] for name in names])
    sources = tuple(
        Source(
            name=name,
            documents=amounts[name].documents,
            bytes=amounts[name].bytes,
            tokens=amounts[name].tokens,
            blocks=-(-amounts[name].tokens // block_tokens),
            count=count,
        )
        for name, count in zip(names, counts, strict=True)
    )
    plan = Plan(seed, block_tokens, separator, vocabulary, sources)
    if curriculum is None:
        return plan
    # Sources that are not read later have no turns there
    kept = {name: amount for name, amount in amounts.items() if name not in replay or name in curriculum.after}
    later = _token_shares(kept, curriculum.after)
    few = dict(zip(sorted(kept), slot_counts([later[name] for name in sorted(kept)]), strict=True))
    counts = [few.get(name, 0) for name in names]
    shares = {name: count / sum(counts) for name, count in zip(names, counts, strict=True)}
    planned = planned_tokens(plan, replay, curriculum, shares)
    stage = late_stage(plan.stages[0], planned, block_tokens, curriculum.until, counts)
    return replace(plan, later=(stage,))


def _token_shares(amounts: Mapping[str, Amount], replay: Mapping[str, float]) -> dict[str, float]:
    """Shares of tokens by name that read the wanted shares of bytes."""
    shares = byte_shares({name: amount.bytes for name, amount in amounts.items()}, replay)
    return token_weights(shares, {name: amount.bytes / amount.tokens for name, amount in amounts.items()})


def source_facts(
    plan: Plan, langs: Mapping[str, str], replay: Mapping[str, float], curriculum: Curriculum | None = None
) -> dict[str, dict[str, Any]]:
    """What the manifest says of every source; shares are those of the stream, after rounding to slots.

    With a curriculum they are those of the planned stream, and `course` holds how they change.
    """
    facts = {}
    for source, bytes_share, token_share in zip(plan.sources, plan.byte_shares(), plan.token_shares(), strict=True):
        facts[source.name] = {
            "lang": langs[source.name],
            "role": "replay" if source.name in replay else "target",
            "documents": source.documents,
            "bytes": source.bytes,
            "tokens": source.tokens,
            "blocks": source.blocks,
            "bytes_per_token": round(source.bytes / source.tokens, 6),
            "share_bytes": round(bytes_share, 6),
            "share_tokens": round(token_share, 6),
        }
    if curriculum is None:
        return facts
    later = course_facts(plan, planned_tokens(plan, replay, curriculum))
    return {name: entry | later[name] for name, entry in facts.items()}
