"""Everything that is decided before the first step, from what the user wrote and the facts of model and data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from langadapt.core.errors import ConfigError, DataError
from langadapt.train.budget import Budget, default_learning_rate, plan_budget, target_names
from langadapt.train.reading import early_words
from langadapt.train.schedule import Kind, Schedule, decay_start

# A CPU is busy with 1,024 tokens at once, and logits of 1,024 x 50k already take 200 MB; a GPU wants more.
_TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 8192}
# A checkpoint of a 135M model is 1.6 GB, 12 s on a slow disk: one in the middle of a short run is enough.
_MOST_STEPS_BETWEEN_CHECKPOINTS = 250


class Wishes(Protocol):
    """What the user may set; None means: derive it."""

    @property
    def tokens(self) -> int | None: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def max_epochs(self) -> float: ...
    @property
    def learning_rate(self) -> float | None: ...
    @property
    def batch_tokens(self) -> int | None: ...
    @property
    def warmup_steps(self) -> int | None: ...
    @property
    def final_share(self) -> float: ...
    @property
    def schedule(self) -> Kind: ...
    @property
    def decay_share(self) -> float: ...
    @property
    def keep_branch(self) -> bool: ...
    @property
    def probe_every(self) -> int | None: ...
    @property
    def checkpoint_steps(self) -> int | None: ...
    @property
    def micro_batch_blocks(self) -> int | None: ...


def steps_in_words(count: int) -> str:
    """As a person writes it: `1 step`, `33 steps`."""
    return f"{count:,} step{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Plan:
    """A run before it begins."""

    budget: Budget
    schedule: Schedule
    block_tokens: int
    probe_every: int
    checkpoint_every: int
    targets: tuple[str, ...]
    # steps that lie behind in a branch; they are not done again
    behind: int = 0
    # the step whose checkpoint becomes part of the result
    kept_step: int | None = None
    # what is read in the beginning only, for people
    early: str | None = None

    @property
    def steps_to_do(self) -> int:
        """Steps of this run."""
        return self.budget.steps - self.behind

    @property
    def target_epochs(self) -> float:
        """How often the target that is read most is read."""
        return max(self.budget.epochs[name] for name in self.targets)

    def micro_batch_blocks(self, device: str, wanted: int | None) -> int:
        """Blocks computed at once on a kind of device."""
        most = wanted or max(1, _TOKENS_AT_ONCE.get(device, 1024) // self.block_tokens)
        return min(most, self.budget.batch_blocks)

    def with_peak(self, learning_rate: float) -> "Plan":
        """The same run at another peak learning rate."""
        return replace(self, schedule=replace(self.schedule, peak=learning_rate))

    def rows(self) -> list[tuple[str, str]]:
        """The plan for people."""
        budget = self.budget
        seen = ", ".join(f"{name} {times:.2g} times" for name, times in budget.epochs.items())
        rate = f"{self.schedule.peak:.2g} after {steps_in_words(budget.warmup_steps)}, {self.schedule.words()}"
        behind = [("branch", f"{self.behind:,} of the steps are done already")] if self.behind else []
        return [
            ("tokens", f"{budget.tokens:,} = {budget.steps:,} steps of {budget.batch_tokens:,}"),
            ("text read", seen),
            *([("early", self.early)] if self.early else []),
            ("learning rate", rate),
            *behind,
        ]

    def sentence(self) -> str:
        """One line to show before the first step."""
        budget = self.budget
        return (
            f"target seen {self.target_epochs:.2g} times: {budget.tokens:,} tokens in {budget.steps:,} steps of "
            f"{budget.batch_tokens:,}, learning rate {self.schedule.peak:.2g}"
            + (f"; {self.early}" if self.early else "")
        )


class Before(Protocol):
    """A branch, as far as the plan depends on it."""

    @property
    def step(self) -> int: ...
    @property
    def data_from(self) -> int: ...
    def origin(self, name: str) -> Any: ...


def make_plan(wishes: Wishes, model: Mapping[str, Any], data: Mapping[str, Any], before: Before | None = None) -> Plan:
    """Derive what is left open. DataError if the facts of model or data lack what is needed.

    With a branch `before`, steps and tokens count from the beginning of its training, and batch and warm-up are its.
    """
    missing = [f"model {key}" for key in ("parameters",) if key not in model]
    missing += [f"data {key}" for key in ("sources", "block_tokens") if key not in data]
    if missing:
        raise DataError(f"not known: {', '.join(missing)}")
    parameters, block_tokens = int(model["parameters"]), int(data["block_tokens"])
    behind = before.step if before is not None else 0
    budget = _budget(wishes, parameters, block_tokens, data["sources"], before)
    if budget.steps <= behind:
        raise ConfigError(
            f"the branch has {behind:,} steps behind it, the whole run would have {budget.steps:,}",
            hint=f"`--steps` counts from the beginning: give more than {behind:,}",
        )
    usual_rate = default_learning_rate(parameters) if before is None else float(before.origin("learning_rate"))
    schedule = Schedule(
        peak=wishes.learning_rate or usual_rate,
        steps=budget.steps,
        warmup_steps=budget.warmup_steps,
        final_share=wishes.final_share,
        kind=wishes.schedule,
        decay_from=decay_start(budget.steps, wishes.decay_share, not_before=max(behind, budget.warmup_steps)),
    )
    third, half = max(1, -(-budget.steps // 3)), max(1, -(-budget.steps // 2))
    return Plan(
        budget=budget,
        schedule=schedule,
        block_tokens=block_tokens,
        probe_every=wishes.probe_every or third,
        checkpoint_every=wishes.checkpoint_steps or min(half, _MOST_STEPS_BETWEEN_CHECKPOINTS),
        targets=tuple(target_names(data["sources"])),
        behind=behind,
        kept_step=_kept_step(schedule) if wishes.keep_branch else None,
        early=early_words(data["sources"], data.get("planned_tokens"), budget.tokens),
    )


def _kept_step(schedule: Schedule) -> int:
    if schedule.kind == "wsd":
        return schedule.decay_from
    if schedule.kind == "constant":
        return schedule.steps
    raise ConfigError(
        f"`keep_branch` keeps the state before the decay; a {schedule.kind} run decays from the beginning",
        hint="use `--schedule wsd --keep-branch`",
    )


def _budget(
    wishes: Wishes, parameters: int, block_tokens: int, sources: Mapping[str, Any], before: Before | None
) -> Budget:
    if before is None:
        return plan_budget(
            sources,
            parameters=parameters,
            block_tokens=block_tokens,
            tokens=wishes.tokens,
            steps=wishes.steps,
            batch_tokens=wishes.batch_tokens,
            warmup_steps=wishes.warmup_steps,
            max_epochs=wishes.max_epochs,
        )
    batch, warmup = int(before.origin("batch_tokens")), int(before.origin("warmup_steps"))
    for name, own, theirs in (
        ("batch_tokens", wishes.batch_tokens, batch),
        ("warmup_steps", wishes.warmup_steps, warmup),
    ):
        if own is not None and own != theirs:
            raise ConfigError(
                f"`{name}` is {own:,}, the branch was trained with {theirs:,}", hint=f"leave `{name}` out"
            )
    if batch % block_tokens:
        raise ConfigError(
            f"the branch reads {batch:,} tokens a step; that is no whole number of blocks of {block_tokens:,}"
        )
    # Steps that read other data do not count for the epochs of these
    behind = before.data_from
    if wishes.steps is not None and wishes.steps <= before.step:
        return Budget(wishes.steps, batch, batch // block_tokens, warmup, wishes.steps * batch, {})
    planned = plan_budget(
        sources,
        parameters=parameters,
        block_tokens=block_tokens,
        tokens=None if wishes.tokens is None else max(1, wishes.tokens - behind * batch),
        steps=None if wishes.steps is None else wishes.steps - behind,
        batch_tokens=batch,
        warmup_steps=0,
        max_epochs=wishes.max_epochs,
        behind=behind,
    )
    steps = planned.steps + behind
    return replace(planned, steps=steps, tokens=steps * batch, warmup_steps=warmup)
