"""The price of a run: time, memory and disk, from the plan and the facts of model and data."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from langadapt.core.types import Estimate
from langadapt.core.units import show_bytes, show_seconds
from langadapt.train import cost
from langadapt.train.machine import threads_set
from langadapt.train.plan import Plan
from langadapt.train.rates import probe_steps, rates_to_try
from langadapt.train.session import Means

STORED_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


class Wishes(Protocol):
    """What the user may set that changes the price beyond the plan and the means."""

    @property
    def strategy(self) -> str: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def keep_checkpoints(self) -> int: ...
    @property
    def lr_probe(self) -> bool: ...
    @property
    def lr_probe_factors(self) -> Sequence[float]: ...
    @property
    def lr_probe_steps(self) -> int: ...


def can_be_priced(model: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """Is enough known of model and data?"""
    needed = {"parameters", "rows", "hidden_size", "layers", "tied"}
    return needed <= model.keys() and {"sources", "block_tokens"} <= data.keys()


def price(
    wishes: Wishes, plan: Plan, means: Means, model: Mapping[str, Any], data: Mapping[str, Any], *, lang: str
) -> Estimate:
    """Time and memory from facts of model and data, and from one layer timed on this machine."""
    tables = int(model["rows"]) * int(model["hidden_size"]) * (1 if model["tied"] else 2)
    trained = int(model["parameters"]) if wishes.strategy != "embeddings" else tables
    shape = cost.Shape(
        int(model["parameters"]), trained, int(model["rows"]), int(model["hidden_size"]), int(model["layers"]),
        bool(model["tied"]),
    )  # fmt: skip
    work = cost.Work(plan.block_tokens, plan.budget.batch_blocks, means.micro_batch_blocks, means.compute)
    with threads_set(wishes.threads):
        step = cost.step_seconds(shape, work, device=means.device)
    weights = shape.parameters * STORED_BYTES.get(str(model.get("dtype")), 4)
    checkpoint = cost.checkpoint_bytes(trained)
    times = cost.Times(
        step=step,
        steps=plan.steps_to_do,
        checkpoints=(plan.steps_to_do - 1) // plan.checkpoint_every,
        probes=-(-plan.steps_to_do // plan.probe_every) + 1,
        probe_tokens=_probe_tokens(data),
    )
    memory = cost.memory_bytes(shape, work)
    # a stopped run writes one more than those that fall due; the oldest goes after the newest is complete
    disk = min(wishes.keep_checkpoints + 1, times.checkpoints + 1) * checkpoint + weights
    if plan.kept_step is not None:
        disk += 2 * checkpoint  # the kept state, and its copy in the result
    facts: dict[str, object] = {
        **model,
        "lang": lang,
        "strategy": wishes.strategy,
        "steps": plan.budget.steps,
        "tokens": plan.budget.tokens,
        "trained_parameters": trained,
        "epochs": plan.target_epochs,
    }
    rows: tuple[tuple[str, str], ...] = (
        *plan.rows(),
        ("a step", f"{show_seconds(step)} ({plan.budget.batch_tokens / step:,.0f} tokens a second, {means.compute})"),
        ("checkpoints", f"every {plan.checkpoint_every} steps, {show_bytes(checkpoint)} each"),
    )
    seconds = times.seconds(shape, work, checkpoint, weights)
    if wishes.lr_probe:
        rates, count = (
            rates_to_try(plan.schedule.peak, wishes.lr_probe_factors),
            probe_steps(plan, wishes.lr_probe_steps),
        )
        short = replace(times, steps=count, checkpoints=0, probes=2)
        spent = len(rates) * short.seconds(shape, work, checkpoint, 0)
        seconds += spent
        words = ", ".join(f"{rate:g}" for rate in rates)
        rows += (("rates to try", f"{words}: {count} steps each, {show_seconds(spent)}; then the run at one of them"),)
    return Estimate(seconds=seconds, memory_bytes=memory, disk_bytes=disk, facts=facts, rows=rows)


def _probe_tokens(data: Mapping[str, Any]) -> int:
    """Tokens of all probes together; 4 kB each where mix has not run yet."""
    sources = data["sources"].values()
    per_token = sum(float(source["bytes_per_token"]) for source in sources) / max(1, len(sources))
    probes = data.get("probe_bytes", dict.fromkeys(data["sources"], 4000))
    return round(sum(int(size) for size in probes.values()) / per_token)
