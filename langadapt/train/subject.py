"""What is trained and by which rules, derived from the options of a run: strategy, stages, optimiser, device."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from langadapt.core.registry import load_method
from langadapt.core.types import Movable, Portion
from langadapt.core.validate import validate
from langadapt.train.stages import StageOptions, choices_of, joined, make_course

if TYPE_CHECKING:
    from langadapt.model.compute import AskedCompute, AskedDevice
    from langadapt.train.optimiser import AdamSettings
    from langadapt.train.plan import Plan
    from langadapt.train.session import Means
    from langadapt.train.stages import Course
    from langadapt.train.trainable import Trainable


class Choices(Protocol):
    """The options that say which weights move."""

    @property
    def strategy(self) -> str: ...
    @property
    def strategy_options(self) -> Mapping[str, Any]: ...
    @property
    def stages(self) -> Sequence[StageOptions]: ...


class Rules(Choices, Protocol):
    """The options that say how they move."""

    @property
    def seed(self) -> int: ...
    @property
    def weight_decay(self) -> float | None: ...
    @property
    def betas(self) -> tuple[float, float]: ...
    @property
    def clip(self) -> float: ...
    @property
    def new_rows_factor(self) -> float: ...
    @property
    def tables_factor(self) -> float | None: ...
    @property
    def moments(self) -> Literal["fp32", "8bit", "4bit"]: ...
    @property
    def weights(self) -> Literal["fp32", "bf16"]: ...
    @property
    def compile(self) -> bool: ...
    @property
    def compute(self) -> "AskedCompute": ...
    @property
    def device(self) -> "AskedDevice": ...
    @property
    def micro_batch_blocks(self) -> int | None: ...
    @property
    def gradient_checkpointing(self) -> Literal["auto", "on", "off"]: ...


def usual(choices: Choices, name: str, otherwise: Any) -> Any:
    """What the user set, else what suits the strategy, else what is usual."""
    own = getattr(choices, name)
    return own if own is not None else load_method("select", choices.strategy).facts.defaults.get(name, otherwise)


def portion_of(choices: Choices) -> Portion:
    """How much of a model will move; with stages what all of them move together, as if no two moved the same.

    ConfigError if there is no such strategy, or no such option of it.
    """
    return together(portions_of(choices))


def together(found: Sequence[Portion]) -> Portion:
    """How much several stages move, as if no two moved the same."""
    body, tables = (min(1.0, sum(shares)) for shares in zip(*((each.body, each.tables) for each in found), strict=True))
    return Portion(body, tables, max(each.rank for each in found), whole=all(each.whole for each in found))


def portions_of(choices: Choices) -> list[Portion]:
    """How much moves in each stage; one without stages."""
    stages = [_portion(stage.strategy, stage.strategy_options) for stage in choices.stages]
    return stages or [_portion(choices.strategy, choices.strategy_options)]


def still_of(choices: Choices) -> Portion:
    """How much stands still in a stage of tensors that move in part in it: a copy of that is kept."""
    every, found = portion_of(choices), portions_of(choices)
    body = max(0.0 if each.whole or not each.body else every.body - each.body for each in found)
    return Portion(body, max(every.tables - each.tables if each.tables else 0.0 for each in found))


def _portion(name: str, given: Mapping[str, Any]) -> Portion:
    method = load_method("select", name)
    options = validate(method.options, given, what=f"options of `{name}`")
    # one of a third party that does not say is priced as if it moved everything
    return Portion(1.0, 1.0) if method.facts.portion is None else method.facts.portion(options)


# What a strategy lets move of a loaded model: (model, name of the strategy, its options).
Choose = Callable[[Any, str, Mapping[str, Any]], Movable]


def load_subject(
    rules: Rules, plan: "Plan", means: "Means", folder: Path, choose: Choose
) -> "tuple[Trainable, Course]":
    """The model of a folder, made ready to be trained, and the course of the run. Equal arguments, equal weights."""
    from langadapt.model.load import load_model
    from langadapt.train.combine import check_combination
    from langadapt.train.trainable import make_trainable

    model = load_model(folder)
    # A mask hides padding here. torch would leave its row out of training, and with `pad_token_id: -1`, as in old files
    # of Llama, that is the last one: a new token's
    model.get_input_embeddings().padding_idx = None
    parts = choices_of(rules.stages, lambda stage: choose(model, stage.strategy, stage.strategy_options))
    movable = joined(parts) if parts else choose(model, rules.strategy, rules.strategy_options)
    check_combination(rules, adapter=movable.adapter is not None)
    subject = make_trainable(model, movable, seed=rules.seed, folder=folder, compute=means.compute)
    return subject, make_course(plan.schedule, rules.stages, [subject.moving(part) for part in parts] or None)


def adam_of(rules: Rules, movable: Movable) -> "AdamSettings":
    """The optimiser's settings."""
    from langadapt.train.optimiser import AdamSettings

    return AdamSettings(
        weight_decay=usual(rules, "weight_decay", 0.1),
        betas=rules.betas,
        clip=rules.clip,
        new_rows_factor=rules.new_rows_factor,
        tables_factor=movable.tables_factor if rules.tables_factor is None else rules.tables_factor,
        moments=rules.moments,
        rounds=rules.weights == "bf16",
        compiled=rules.compile,
    )


def means_of(rules: Rules, plan: "Plan") -> "Means":
    """Device, precision and blocks at once."""
    from langadapt.model.compute import choose_device, resolve_compute
    from langadapt.train.session import Means

    device = choose_device(rules.device)
    chosen: Collection[str] = {"compute"} if rules.compute != "auto" else set()
    return Means(
        compute=resolve_compute("bf16" if rules.weights == "bf16" else rules.compute, device),
        device=device,
        micro_batch_blocks=plan.micro_batch_blocks(device.type, rules.micro_batch_blocks),
        chosen=frozenset(chosen) | ({"micro_batch_blocks"} if rules.micro_batch_blocks else set()),
        recompute=rules.gradient_checkpointing,
        compile=rules.compile,
    )
