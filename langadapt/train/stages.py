"""Stages: parts of a run in which different weights move. Everything here is a pure function of the step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from langadapt.core.config import Options
from langadapt.core.errors import ConfigError
from langadapt.core.types import Movable
from langadapt.train.schedule import Schedule


class StageOptions(Options):
    """One entry of `stages`."""

    share: Annotated[Annotated[float, Field(gt=0, le=1)] | None, Field()] = None
    """Share of all steps; the last stage may leave it out and takes the rest."""
    strategy: str = "full"
    """Which weights may move in this stage."""
    learning_rate_factor: Annotated[float, Field(gt=0)] = 1.0
    """The learning rate of the schedule is multiplied by this."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps over which a later stage rises from nothing; by default as many as the run's own warm-up."""


@dataclass(frozen=True)
class Stage:
    """Steps `first` to `last` - 1; `names` are the parameters that move in them (None: all that ever move)."""

    first: int
    last: int
    factor: float = 1.0
    warmup_steps: int = 0
    names: frozenset[str] | None = None


@dataclass(frozen=True)
class Course:
    """The learning rate and what moves, for every step of a run."""

    schedule: Schedule
    stages: tuple[Stage, ...]

    def stage_at(self, step: int) -> Stage:
        """The stage that a step lies in; the last one for the step after the end."""
        return next((stage for stage in self.stages if step < stage.last), self.stages[-1])

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: schedule x factor x rise at the beginning of a later stage."""
        stage = self.stage_at(step)
        rise = min(1.0, (step - stage.first + 1) / stage.warmup_steps) if stage.warmup_steps else 1.0
        return self.schedule.at(step) * stage.factor * rise


def shares_of(wanted: Sequence[StageOptions]) -> list[float]:
    """Shares of all steps. ConfigError if they do not add up to the whole."""
    known = [stage.share for stage in wanted[:-1] if stage.share is not None]
    last = 1.0 - sum(known) if not wanted or wanted[-1].share is None else wanted[-1].share
    if wanted and (len(known) < len(wanted) - 1 or last <= 0 or abs(sum(known) + last - 1.0) > 1e-6):
        raise ConfigError(
            "the shares of `stages` should add up to 1; the last stage may leave its share out",
            where="stages",
            hint="stages: [{share: 0.1, strategy: embeddings, learning_rate_factor: 5}, {strategy: full}]",
        )
    return [*known, last] if wanted else []


def make_course(
    schedule: Schedule, wanted: Sequence[StageOptions], names: Mapping[str, frozenset[str]] | None = None
) -> Course:
    """Lay the stages over the run; `names` gives the movable parameters of each strategy.

    ConfigError: shares that do not add up to the whole, or a stage without a step.
    """
    if not wanted:
        return Course(schedule, (Stage(0, schedule.steps),))
    stages, first, total = [], 0, 0.0
    for number, (stage, share) in enumerate(zip(wanted, shares_of(wanted), strict=True)):
        total += share
        end = schedule.steps if number == len(wanted) - 1 else round(total * schedule.steps)
        if end <= first:
            raise ConfigError(
                f"stage {number + 1} (`{stage.strategy}`) would have no step: the run has {schedule.steps:,}",
                hint="give it a larger `share`, or train for more steps",
            )
        # What begins to move has cold moments: its first updates are as long as the learning rate allows
        rise = stage.warmup_steps if stage.warmup_steps is not None else schedule.warmup_steps
        moving = None if names is None else names[stage.strategy]
        stages.append(Stage(first, end, stage.learning_rate_factor, rise if number else 0, moving))
        first = end
    return Course(schedule, tuple(stages))


def names_of_stages(wanted: Sequence[StageOptions], choose: Callable[[str], Movable]) -> dict[str, frozenset[str]]:
    """Movable parameters of each strategy in `wanted`. ConfigError: one that is there from the first step."""
    found = {}
    for stage in wanted:
        movable = choose(stage.strategy)
        if movable.adapter is not None or movable.slices:
            what = "an adapter" if movable.adapter is not None else "what moves of a matrix"
            raise ConfigError(
                f"`{stage.strategy}` cannot be the strategy of a stage: {what} is there from the first step",
                hint="use `full`, `embeddings` or `layers` in `stages`",
            )
        found[stage.strategy] = movable.names
    return found
