"""Everything that is decided before the first step, from what the user wrote and the facts of model and data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from langadapt.core.errors import DataError
from langadapt.train.budget import Budget, default_learning_rate, plan_budget, target_names
from langadapt.train.schedule import Schedule

Compute = Literal["fp32", "bf16"]
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
    def probe_every(self) -> int | None: ...
    @property
    def checkpoint_steps(self) -> int | None: ...
    @property
    def micro_batch_blocks(self) -> int | None: ...


@dataclass(frozen=True)
class Plan:
    """A run before it begins."""

    budget: Budget
    schedule: Schedule
    block_tokens: int
    probe_every: int
    checkpoint_every: int
    targets: tuple[str, ...]

    @property
    def target_epochs(self) -> float:
        """How often the target that is read most is read."""
        return max(self.budget.epochs[name] for name in self.targets)

    def micro_batch_blocks(self, device: str, wanted: int | None) -> int:
        """Blocks computed at once on a kind of device."""
        most = wanted or max(1, _TOKENS_AT_ONCE.get(device, 1024) // self.block_tokens)
        return min(most, self.budget.batch_blocks)

    def rows(self) -> list[tuple[str, str]]:
        """The plan for people."""
        budget = self.budget
        seen = ", ".join(f"{name} {times:.2g} times" for name, times in budget.epochs.items())
        rate = f"{self.schedule.peak:.2g} after {budget.warmup_steps} steps, then down to "
        return [
            ("tokens", f"{budget.tokens:,} = {budget.steps:,} steps of {budget.batch_tokens:,}"),
            ("text read", seen),
            ("learning rate", rate + f"{self.schedule.peak * self.schedule.final_share:.2g}"),
        ]

    def sentence(self) -> str:
        """One line to show before the first step."""
        budget = self.budget
        return (
            f"target seen {self.target_epochs:.2g} times: {budget.tokens:,} tokens in {budget.steps:,} steps of "
            f"{budget.batch_tokens:,}, learning rate {self.schedule.peak:.2g}"
        )


def make_plan(wishes: Wishes, model: Mapping[str, Any], data: Mapping[str, Any]) -> Plan:
    """Derive what is left open. DataError if the facts of model or data lack what is needed."""
    missing = [f"model {key}" for key in ("parameters",) if key not in model]
    missing += [f"data {key}" for key in ("sources", "block_tokens") if key not in data]
    if missing:
        raise DataError(f"not known: {', '.join(missing)}")
    parameters, block_tokens = int(model["parameters"]), int(data["block_tokens"])
    budget = plan_budget(
        data["sources"],
        parameters=parameters,
        block_tokens=block_tokens,
        tokens=wishes.tokens,
        steps=wishes.steps,
        batch_tokens=wishes.batch_tokens,
        warmup_steps=wishes.warmup_steps,
        max_epochs=wishes.max_epochs,
    )
    third, half = max(1, -(-budget.steps // 3)), max(1, -(-budget.steps // 2))
    return Plan(
        budget=budget,
        schedule=Schedule(
            peak=wishes.learning_rate or default_learning_rate(parameters),
            steps=budget.steps,
            warmup_steps=budget.warmup_steps,
            final_share=wishes.final_share,
        ),
        block_tokens=block_tokens,
        probe_every=wishes.probe_every or third,
        checkpoint_every=wishes.checkpoint_steps or min(half, _MOST_STEPS_BETWEEN_CHECKPOINTS),
        targets=tuple(target_names(data["sources"])),
    )
