"""Stages: parts of a run in which different weights move. Everything here is a pure function of the step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from langadapt.core.config import Options
from langadapt.core.errors import ConfigError
from langadapt.core.types import Movable, Slice
from langadapt.train.schedule import Schedule


class StageOptions(Options):
    """One entry of `stages`."""

    share: Annotated[Annotated[float, Field(gt=0, le=1)] | None, Field()] = None
    """Share of all steps; the last stage may leave it out and takes the rest."""
    strategy: str = "full"
    """Which weights may move in this stage."""
    # came later: without any, a run is the one that it was before
    strategy_options: Annotated[dict[str, Any], Field(exclude_if=lambda options: not options)] = Field(
        default_factory=dict
    )
    """Options of that strategy."""
    learning_rate_factor: Annotated[float, Field(gt=0)] = 1.0
    """The learning rate of the schedule is multiplied by this."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps over which a later stage rises from nothing; by default as many as the run's own warm-up."""


@dataclass(frozen=True)
class Stage:
    """Steps `first` to `last` - 1; `names` are the parameters that move in them (None: all that ever move).

    `still` are places of these which stand still: other stages move them.
    """

    first: int
    last: int
    factor: float = 1.0
    warmup_steps: int = 0
    names: frozenset[str] | None = None
    still: Mapping[str, Slice] = field(default_factory=dict)


# Parameters that move in a stage, and the places of them that stand still in it.
Moving = tuple[frozenset[str], Mapping[str, Slice]]


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


def make_course(schedule: Schedule, wanted: Sequence[StageOptions], moving: Sequence[Moving] | None = None) -> Course:
    """Lay the stages over the run; `moving` says of each what moves in it.

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
        names, still = (None, {}) if moving is None else moving[number]
        stages.append(Stage(first, end, stage.learning_rate_factor, rise if number else 0, names, still))
        first = end
    return Course(schedule, tuple(stages))


def choices_of(wanted: Sequence[StageOptions], choose: Callable[[StageOptions], Movable]) -> list[Movable]:
    """What moves in each stage. ConfigError: an adapter, which is there from the first step."""
    found = []
    for stage in wanted:
        movable = choose(stage)
        if movable.adapter is not None:
            raise adapter_in_stage(stage.strategy)
        found.append(movable)
    return found


def adapter_in_stage(strategy: str) -> ConfigError:
    """Said of a strategy that puts new weights beside the model's."""
    return ConfigError(
        f"`{strategy}` cannot be the strategy of a stage: an adapter is there from the first step",
        where="stages",
        hint="use a strategy that moves the model's own weights, such as `embeddings`, `ssu` or `full`",
    )


def joined(choices: Sequence[Movable]) -> Movable:
    """All that moves in any of them. ConfigError: rows of a tensor in one and columns of it in another."""
    names = frozenset[str]().union(*(each.names for each in choices))
    slices: dict[str, Slice] = {}
    for name, part in (item for each in choices for item in each.slices.items() if item[0] not in names):
        before = slices.setdefault(name, part)
        if before.axis != part.axis:
            raise ConfigError(
                f"two stages cut `{name}` along different axes: together their parts are no set of rows or of columns",
                where="stages",
                hint="choose both by columns (ssu, magnitude) or by neurons (lape), or let one move all of it (full)",
            )
        slices[name] = Slice(part.axis, np.union1d(before.ids, part.ids).astype(np.int32))
    return Movable(names, slices)
