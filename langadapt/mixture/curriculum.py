"""Replay early in the stream: other shares from some place on.

Emergent Abilities under CPT (arXiv 2506.00288): models lose in-context learning in the first steps, and English in the
first tenth of the stream keeps it. A share of the stream needs a length: that of the run it is planned for.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langadapt.core.errors import ConfigError, DataError
from langadapt.mixture.plan import Plan
from langadapt.mixture.turns import Turns


@dataclass(frozen=True)
class Curriculum:
    """Replay shares hold for the first `until` of the planned stream, those of `after` for what follows.

    `planned_tokens` is the length of the run, None: until the first target has been read once.
    """

    until: float
    after: Mapping[str, float]
    planned_tokens: int | None = None


def curriculum_of(
    until: float | None, after: Mapping[str, float], planned_tokens: int | None, replay: Mapping[str, float]
) -> Curriculum | None:
    """What the options say; ConfigError for those that mean nothing together."""
    if until is None:
        for name, value in (("replay_after", after), ("planned_tokens", planned_tokens)):
            if value:
                raise ConfigError(f"`{name}` says how it goes on after `replay_until`", hint="give --replay-until 0.1")
        return None
    if not replay:
        raise ConfigError("`replay_until` needs something to replay", hint="give --replay en=0.2")
    for name, share in after.items():
        if name not in replay:
            raise ConfigError(f"`replay_after` names `{name}`, which is not in `replay`")
        if not 0 < share < 1:
            raise ConfigError(
                f"`replay_after`: the share of `{name}` should be between 0 and 1, it is {share}",
                hint="a corpus that is not named is not read any more",
            )
    if sum(after.values()) >= 1:
        raise ConfigError("`replay_after`: the shares leave nothing for the target corpora")
    return Curriculum(until, after, planned_tokens)


def early_cap(curriculum: Curriculum, target_bytes: int, replay: Mapping[str, float], name: str, passes: int) -> int:
    """Bytes of a replayed corpus that `passes` over the targets can use.

    One pass reads B bytes of stream, B (until (1 - r) + (1 - until)(1 - r')) of them the targets', with r and r' the
    sums of the replay shares before and after.
    """
    until, rest = curriculum.until, sum(curriculum.after.values())
    once = target_bytes / (until * (1 - sum(replay.values())) + (1 - until) * (1 - rest))
    return max(1, round(once * (until * replay[name] + (passes - until) * curriculum.after.get(name, 0.0))))


def planned_tokens(
    plan: Plan, replay: Collection[str], curriculum: Curriculum, late: Mapping[str, float] | None = None
) -> int:
    """Length of the planned stream; `late` are later shares of tokens where the plan does not have them yet."""
    if curriculum.planned_tokens is not None:
        return curriculum.planned_tokens
    until, early = curriculum.until, plan.token_shares()
    after = plan.token_shares(plan.stages[-1].start) if late is None else [late[each.name] for each in plan.sources]
    return min(
        round(source.tokens / (until * first + (1 - until) * then))
        for source, first, then in zip(plan.sources, early, after, strict=True)
        if source.name not in replay
    )


def late_stage(first: Turns, planned: int, block_tokens: int, until: float, counts: Sequence[int]) -> Turns:
    """The stage that begins at the block nearest to `until` of the planned tokens."""
    start = round(until * planned / block_tokens)
    if start < 1:
        raise DataError(
            f"{until:.1%} of {planned:,} tokens is less than one block: nothing would be replayed",
            hint="give a larger `--replay-until`, shorter blocks or more text",
        )
    return Turns(start, tuple(counts), tuple(first.before(start)))


def course_facts(plan: Plan, planned: int) -> dict[str, dict[str, Any]]:
    """By source its shares from which token of the stream on, and those of the planned stream as a whole."""
    start = min(plan.stages[-1].start * plan.block_tokens, planned)
    shares = {kind: _both(plan, kind) for kind in ("share_bytes", "share_tokens")}
    facts: dict[str, dict[str, Any]] = {}
    parts = [part.bytes / part.tokens for part in plan.sources]
    read = [start * early + (planned - start) * late for early, late in shares["share_tokens"]]
    size = sum(tokens * dense for tokens, dense in zip(read, parts, strict=True))
    for number, source in enumerate(plan.sources):
        facts[source.name] = {
            "share_bytes": round(read[number] * parts[number] / size, 6),
            "share_tokens": round(read[number] / planned, 6),
            "course": [
                {"first": stage.start * plan.block_tokens}
                | {kind: round(pairs[number][at], 6) for kind, pairs in shares.items()}
                for at, stage in enumerate(plan.stages)
            ],
        }
    return facts


def _both(plan: Plan, kind: str) -> list[tuple[float, float]]:
    """Shares of each source in the first and in the last stage."""
    of = plan.byte_shares if kind == "share_bytes" else plan.token_shares
    return list(zip(of(0), of(plan.stages[-1].start), strict=True))


def words(parts: Sequence[Mapping[str, Any]], planned: int) -> str:
    """How a source is read, for people; `parts` is its `course`."""
    shares = [f"{part['share_bytes']:.1%} of the bytes" for part in parts]
    first = int(parts[1]["first"])
    return f"{shares[0]} up to token {first:,} ({first / planned:.1%} of the planned {planned:,}), then {shares[1]}"
