"""The price of a run: time, memory and disk, from the plan and the facts of model and data."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

from langadapt.core.host import timed_rows
from langadapt.core.types import Estimate, Portion
from langadapt.core.units import show_bytes, show_seconds
from langadapt.model.compute import busy_with, repeatable, threads_set
from langadapt.model.facts import table_width
from langadapt.model.weights import BYTES_PER_VALUE
from langadapt.train import cost
from langadapt.train.cards import NOTHING, card_rows, first_that_fits
from langadapt.train.checkpoint import most_at_once
from langadapt.train.faster import ENOUGH, free_memory
from langadapt.train.footprint import Kept, Moments, Shape, Work, memory_bytes, shape_of
from langadapt.train.plan import Plan, steps_in_words
from langadapt.train.rates import probe_steps, rates_to_try
from langadapt.train.session import Means
from langadapt.train.subject import Choices, portion_of, still_of

# A number that stands still in a stage has a copy in fp32, which is put back after each step.
_STILL_BYTES = 4


class Numbers(Protocol):
    """How the user wants numbers to be kept."""

    @property
    def moments(self) -> Moments: ...
    @property
    def weights(self) -> Literal["fp32", "bf16"]: ...
    @property
    def compile(self) -> bool: ...
    @property
    def ema(self) -> float: ...


class Wishes(Choices, Numbers, Protocol):
    """What the user may set that changes the price beyond the plan and the means."""

    @property
    def compute(self) -> str: ...
    @property
    def micro_batch_blocks(self) -> int | None: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def deterministic(self) -> bool: ...
    @property
    def keep_checkpoints(self) -> int: ...
    @property
    def lr_probe(self) -> bool: ...
    @property
    def lr_probe_factors(self) -> Sequence[float]: ...
    @property
    def lr_probe_steps(self) -> int: ...


def can_be_priced(model: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """Is enough known of model and data? The config of a rare architecture may call a size what nobody foresaw."""
    needed = ("parameters", "rows", "hidden_size", "layers", "tied")
    return all(model.get(name) is not None for name in needed) and {"sources", "block_tokens"} <= data.keys()


def price(
    wishes: Wishes,
    plan: Plan,
    means: Means,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    lang: str,
    portion: Portion | None = None,
    asked_tokens: int = 0,
) -> Estimate:
    """Time and memory from facts of model and data, and from one layer timed on this machine.

    `portion` is how much moves, where that is known better than from the strategy's options. `asked_tokens` are read
    at each probe beside the held-out passages.
    """
    shape = model_shape(model, portion or portion_of(wishes))
    stored = BYTES_PER_VALUE.get(str(model.get("dtype")), 4)
    work = Work(plan.block_tokens, plan.budget.batch_blocks, means.micro_batch_blocks, means.compute)
    kept = kept_of(wishes, shape, means, stored_bytes=stored)
    if means.recompute == "auto" and memory_bytes(shape, work, kept) > ENOUGH * free_memory(means.device):
        kept = replace(kept, recompute=True)
    with threads_set(wishes.threads), repeatable(means.device, wishes.deterministic):
        step = cost.step_seconds(shape, work, device=means.device, recompute=kept.recompute)
    still = model_shape(model, still_of(wishes)).trained * _STILL_BYTES if wishes.stages else 0
    busy = busy_with(means.device)
    weights = shape.parameters * stored
    checkpoint = cost.checkpoint_bytes(shape.trained, kept)
    times = cost.Times(
        step=step,
        steps=plan.steps_to_do,
        checkpoints=(plan.steps_to_do - 1) // plan.checkpoint_every,
        probes=-(-plan.steps_to_do // plan.probe_every) + 1,
        probe_tokens=_probe_tokens(data) + asked_tokens,
    )
    passing = most_at_once(wishes.keep_checkpoints, times.checkpoints) * checkpoint
    disk = passing + weights
    if plan.kept_step is not None:
        disk += 2 * checkpoint  # the kept state, and its copy in the result
        passing += checkpoint
    facts: dict[str, object] = {
        **model,
        "lang": lang,
        "strategy": wishes.strategy,
        "steps": plan.budget.steps,
        "tokens": plan.budget.tokens,
        "trained_parameters": shape.trained,
        "epochs": plan.target_epochs,
    }
    rows: tuple[tuple[str, str], ...] = (
        *plan.rows(),
        ("a step", f"{show_seconds(step)} ({plan.budget.batch_tokens / step:,.0f} tokens a second, {means.compute})"),
        *timed_rows(busy),
        ("checkpoints", f"every {steps_in_words(plan.checkpoint_every)}, {show_bytes(checkpoint)} each"),
        *_fitting(wishes, plan, shape, work, kept, means, stored),
    )
    seconds = times.seconds(shape, work, checkpoint, weights)
    if wishes.lr_probe:
        rates = rates_to_try(plan.schedule.peak, wishes.lr_probe_factors)
        count = probe_steps(plan, wishes.lr_probe_steps)
        short = replace(times, steps=count, checkpoints=0, probes=2, probe_tokens=_probe_tokens(data))
        spent = len(rates) * short.seconds(shape, work, checkpoint, 0)
        seconds += spent
        words = ", ".join(f"{rate:g}" for rate in rates)
        rows += (("rates to try", f"{words}: {count} steps each, {show_seconds(spent)}; then the run at one of them"),)
    return Estimate(
        seconds=seconds,
        memory_bytes=memory_bytes(shape, work, kept) + still,
        disk_bytes=disk,
        facts=facts,
        rows=rows,
        timed=True,
        passing_bytes=passing,
    )


def model_shape(model: Mapping[str, Any], portion: Portion) -> Shape:
    """The model by its facts, and how much of it moves."""
    values = {"parameters": int(model["parameters"]), "rows": int(model["rows"]), "hidden": int(model["hidden_size"])}
    values["table_width"] = table_width(model)
    return shape_of(**values, layers=int(model["layers"]), tied=bool(model["tied"]), moves=portion)


def kept_of(wishes: Numbers, shape: Shape, means: Means, *, stored_bytes: int) -> Kept:
    """How numbers are kept in memory."""
    return Kept(
        moments=wishes.moments,
        weights=wishes.weights,
        recompute=means.recompute == "on",
        stored_bytes=stored_bytes if shape.body_part < 1.0 else 4,
        on_cpu=means.device.type == "cpu",
        compiled=wishes.compile,
        averaged=wishes.ema > 0,
    )


def _fitting(
    wishes: Wishes, plan: Plan, shape: Shape, work: Work, kept: Kept, means: Means, stored_bytes: int
) -> list[tuple[str, str]]:
    """On which cards the run would fit; and what makes it fit here, where it does not."""
    rows = []
    free = free_memory(means.device)
    needed = memory_bytes(shape, work, kept)
    if needed > free:
        setup = first_that_fits(shape, work, kept, free, stored_bytes=stored_bytes)
        words = NOTHING if setup is None else f"with {setup.words}"
        rows.append(("here", f"{show_bytes(needed)} of {show_bytes(free)} that are free; {words}"))
    blocks = plan.micro_batch_blocks("cuda", wishes.micro_batch_blocks)
    on_card = replace(work, micro_batch_blocks=blocks, compute="fp32" if wishes.compute == "fp32" else "bf16")
    there = replace(kept, recompute=means.recompute == "on", on_cpu=False)
    return [*rows, *card_rows(shape, on_card, there, stored_bytes=stored_bytes)]


def _probe_tokens(data: Mapping[str, Any]) -> int:
    """Tokens of all probes together; 4 kB each where mix has not run yet."""
    sources = data["sources"].values()
    per_token = sum(float(source["bytes_per_token"]) for source in sources) / max(1, len(sources))
    probes = data.get("probe_bytes", dict.fromkeys(data["sources"], 4000))
    return round(sum(int(size) for size in probes.values()) / per_token)
