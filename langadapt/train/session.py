"""From a loaded model to a trained one: proof of isolation, checkpoints, disk, then the loop."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from langadapt.core.deadline import reserve
from langadapt.model.compute import Compute, has_bf16_units
from langadapt.train.around import Surroundings
from langadapt.train.branch import Branch
from langadapt.train.cost import write_seconds
from langadapt.train.ema import Average, Averaging
from langadapt.train.faster import Asked, check_compiler, compile_layers, recompute
from langadapt.train.footprint import Kept, Shape, Work, memory_bytes
from langadapt.train.gauge import Gauge
from langadapt.train.head import find_head
from langadapt.train.isolation import prove_isolation
from langadapt.train.loop import BadStep, Settings, Trained, train
from langadapt.train.optimiser import AdamSettings, Ints, Optimiser
from langadapt.train.plan import Plan
from langadapt.train.slices import ALL_WHOLE, Parts
from langadapt.train.stages import Course


@dataclass(frozen=True)
class Means:
    """How a run computes. `chosen` names those that the user fixed; the others follow the checkpoint on continuing."""

    compute: Compute
    device: torch.device
    micro_batch_blocks: int
    chosen: frozenset[str] = frozenset()
    recompute: Asked = "auto"
    compile: bool = False

    def as_before(self, before: Mapping[str, Any]) -> "Means":
        """The same, with what a checkpoint says in place of what was derived for this machine."""
        compute, blocks = self.compute, self.micro_batch_blocks
        if "compute" not in self.chosen and before.get("compute") in ("fp32", "bf16"):
            compute = before["compute"]
        if "micro_batch_blocks" not in self.chosen and isinstance(before.get("micro_batch_blocks"), int):
            blocks = before["micro_batch_blocks"]
        return replace(self, compute=compute, micro_batch_blocks=blocks)


def fit(
    model: nn.Module,
    movable: set[str],
    plan: Plan,
    course: Course,
    means: Means,
    around: Surroundings,
    adam: AdamSettings,
    *,
    seed: int,
    max_forgetting: float,
    bad_step: BadStep,
    branch: Branch | None,
    old_rows: int | None,
    new_rows: Ints | None,
    parts: Parts = ALL_WHOLE,
    vocabulary: int,
    separator: int,
    result_bytes: int,
    averaging: Averaging | None = None,
    gauges: Callable[[Optimiser], Sequence[Gauge]] = lambda optimiser: (),
    saves_end: bool = True,
) -> tuple[Trained, dict[str, Any]]:
    """Train; the second value says how it was computed (threads, precision, layout of documents)."""
    model.to(means.device)
    optimiser = Optimiser(model, movable, adam, old_rows=old_rows, new_rows=new_rows, parts=parts)
    optimiser.average = None if averaging is None else Average(optimiser, averaging)
    around = replace(around, gauges=gauges(optimiser))
    own = around.checkpoints.newest()
    found = own if own is not None or branch is None else (branch.artifact, branch.saved)
    size = optimiser.checkpoint_bytes()
    due = (plan.steps_to_do - 1) // plan.checkpoint_every
    around.checkpoints.check_disk(size, result_bytes + (size if around.checkpoints.pinned else 0), due=due)
    # The disk is as slow as the price assumes until a checkpoint has been written
    reserve(2 * write_seconds(size))
    proof = prove_isolation(model, vocabulary=vocabulary, block_tokens=plan.block_tokens, separator=separator)
    if saves_end:  # said once, and not again for each rate that is tried
        around.progress.note(
            f"documents are kept apart by `{proof.layout}`: shown on this model, "
            f"largest difference {proof.largest_difference:.1g} of the largest logit"
        )
    head = find_head(model)
    if adam.rounds:
        _narrow(model)
    if found is not None:
        means = means.as_before(found[1].computed_with)
    if saves_end and means.compute == "bf16" and not has_bf16_units(means.device):
        around.progress.warn(
            f"this {means.device.type} has no bf16 units: it emulates bf16, and a step can take 25 times as long as "
            "with `--compute fp32`"
        )
    if means.compute == "fp32":  # as the run began, on a machine that would compute in bf16 by itself
        parts.widen()
    record = {
        "compute": means.compute,
        "device": means.device.type,
        "micro_batch_blocks": means.micro_batch_blocks,
        "threads": torch.get_num_threads(),
        "layout": proof.layout,
    }
    if means.device.type == "cuda":
        record["deterministic"] = torch.are_deterministic_algorithms_enabled()
    if own is not None:
        for key, value in record.items():
            before = own[1].computed_with.get(key)
            if before is not None and before != value:
                around.progress.warn(
                    f"this run began with {key} {before} and goes on with {value}: "
                    "the result will not be the same bytes as that of an uninterrupted run"
                )
    around.checkpoints.computed_with.update(record)
    settings = Settings(
        course=course,
        batch_blocks=plan.budget.batch_blocks,
        block_tokens=plan.block_tokens,
        micro_batch_blocks=means.micro_batch_blocks,
        compute=means.compute,
        layout=proof.layout,
        seed=seed,
        max_forgetting=max_forgetting,
        probe_every=plan.probe_every,
        checkpoint_every=plan.checkpoint_every,
        bad_step=bad_step,
        head=head,
        guessing=math.log(max(2, vocabulary)),
        saves_end=saves_end,
    )
    if recompute(model, means.recompute, needed_bytes=_needed(model, optimiser, plan, means), device=means.device):
        around.progress.note(
            "activations are computed again in the backward pass: less memory, about a quarter more time"
        )
    if means.compile:
        check_compiler(means.device)
    elif adam.lowbit and means.device.type == "cpu":
        around.progress.note("with `--compile` the step of low-bit moments is ten times as fast, and takes less memory")
    if means.compile and proof.layout == "rows":
        around.progress.warn("not compiled: this model gets one document a row, so no two batches have the same shape")
    elif means.compile:
        around = replace(around, plainly=compile_layers(model))
    if optimiser.average is not None:
        around = replace(around, plainly=optimiser.average.around(around.plainly))
    other = own is None and branch is not None and not branch.same_data
    done = train(model, optimiser, settings, around, found, other_data=other)
    if optimiser.average is not None:
        optimiser.average.finish()
    model.eval()
    return done, record


def _narrow(model: nn.Module) -> None:
    """Keep the weights in bf16. Buffers stay: rotary frequencies in bf16 would bend long positions."""
    for value in model.parameters():
        value.data = value.data.to(torch.bfloat16)


def _needed(model: Any, optimiser: Optimiser, plan: Plan, means: Means) -> int:
    """Peak memory without gradient checkpointing; 0 where the configuration lacks what the formula needs."""
    config = getattr(model, "config", None)
    text = config.get_text_config() if config is not None else None
    hidden, layers = getattr(text, "hidden_size", None), getattr(text, "num_hidden_layers", None)
    rows = getattr(text, "vocab_size", None)
    if not (hidden and layers and rows):
        return 0
    parameters = sum(value.numel() for value in model.parameters())
    trained = sum(value.numel() for value in optimiser.parameters.values())
    shape = Shape(parameters, trained, rows, hidden, layers, bool(getattr(text, "tie_word_embeddings", False)))
    work = Work(plan.block_tokens, plan.budget.batch_blocks, means.micro_batch_blocks, means.compute)
    adam = optimiser.settings
    weights: Compute = "bf16" if adam.rounds else "fp32"
    kept = Kept(adam.moments, weights, on_cpu=means.device.type == "cpu", compiled=means.compile)
    kept = replace(kept, averaged=optimiser.average is not None)
    return memory_bytes(shape, work, kept)
