"""What a corpus and a time budget buy on this machine: strategy by memory, passes over the text, steps, hours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from langadapt.core.errors import DataError
from langadapt.model.compute import Compute
from langadapt.model.facts import table_width
from langadapt.model.weights import BYTES_PER_VALUE
from langadapt.train import cost
from langadapt.train.budget import Budget, plan_budget
from langadapt.train.faster import free_memory
from langadapt.train.footprint import Kept, Shape, Work, memory_bytes
from langadapt.train.footprint import shape_of as plain_shape

# Repeating text up to four times is nearly as good as new text (Muennighoff et al. 2023); also the limit of cpt.
MAX_EPOCHS = 4.0
# The default of mix, and the replay share of the shipped recipe.
BLOCK_TOKENS = 512
REPLAY_SHARE = 0.2
# As cpt chooses what is computed at once.
_TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 8192}
# Estimates of memory are good to 15 %.
_MEMORY_SHARE = 0.85
# Probes and checkpoints of the default plan, as a share of the time of all steps; a guess on the safe side.
_EXTRAS = 0.08
# The default of `select/lora.py`.
_LORA_RANK = 64
# Best first: moving everything beats an adapter, which beats tables alone (measured on SmolLM2 and Hungarian: bits
# per byte 1.86, 2.00 with fewer steps, 2.12, the last with English 11 % worse).
STRATEGIES = ("full", "lora", "embeddings")


@dataclass(frozen=True)
class Outlook:
    """The plan that cpt would make; `epochs` is how often the target text is read, None of a strategy: nothing fits."""

    strategy: str | None
    memory_bytes: int
    free_bytes: int
    tokens: int
    steps: int
    batch_tokens: int
    epochs: float
    step_seconds: float
    seconds: float
    device: str

    @property
    def tokens_a_second(self) -> float:
        """Tokens of training a second."""
        return self.batch_tokens / self.step_seconds


def look_ahead(
    model: Mapping[str, Any],
    *,
    target_tokens: int,
    new_rows: int,
    budget_seconds: float | None,
    compute: Compute,
    device: torch.device,
    free_bytes: int | None = None,
) -> Outlook:
    """Plan one pass over `target_tokens` with replay, or as many passes (at most four) as fit into the budget.

    `model` are its facts; `new_rows` come on top. DataError if the text is too short for a single step.
    """
    free = free_memory(device) if free_bytes is None else free_bytes
    kept = Kept(stored_bytes=BYTES_PER_VALUE.get(str(model.get("dtype")), 4), on_cpu=device.type == "cpu")
    plan = _plan(model, target_tokens, None)
    strategy, shape, work = _fitting(model, new_rows, plan, compute, device, free, kept)
    step = cost.step_seconds(shape, work, device=device)
    if budget_seconds is not None:
        overhead = _overhead(shape, model)
        room = max(budget_seconds - overhead, 0.0) / (1 + _EXTRAS)
        most = target_tokens / (1 - REPLAY_SHARE) * MAX_EPOCHS
        wanted = int(min(room / step * plan.batch_tokens, most))
        if wanted < plan.batch_tokens:
            raise DataError(
                f"one step takes {step:.1f} s and starting {overhead:.0f} s: the budget is too short for training"
            )
        plan = _plan(model, target_tokens, wanted)
        before = work
        strategy, shape, work = _fitting(model, new_rows, plan, compute, device, free, kept)
        if work != before:
            step = cost.step_seconds(shape, work, device=device)
    return Outlook(
        strategy=strategy,
        memory_bytes=memory_bytes(shape, work, kept),
        free_bytes=free,
        tokens=plan.tokens,
        steps=plan.steps,
        batch_tokens=plan.batch_tokens,
        epochs=plan.epochs["target"],
        step_seconds=step,
        seconds=_overhead(shape, model) + plan.steps * step * (1 + _EXTRAS),
        device=device.type,
    )


def _plan(model: Mapping[str, Any], target_tokens: int, tokens: int | None) -> Budget:
    replay = round(target_tokens * REPLAY_SHARE / (1 - REPLAY_SHARE))
    return plan_budget(
        {
            "target": {"role": "target", "tokens": target_tokens, "share_tokens": 1 - REPLAY_SHARE},
            "source": {"role": "source", "tokens": max(1, replay), "share_tokens": REPLAY_SHARE},
        },
        parameters=int(model["parameters"]),
        block_tokens=BLOCK_TOKENS,
        tokens=tokens,
        steps=None,
        batch_tokens=None,
        warmup_steps=None,
        max_epochs=MAX_EPOCHS,
    )


def _fitting(
    model: Mapping[str, Any],
    new_rows: int,
    plan: Budget,
    compute: Compute,
    device: torch.device,
    free: int,
    kept: Kept,
) -> tuple[str | None, Shape, Work]:
    """The first strategy that fits into memory; the last one with None as its name if none does."""
    blocks = min(max(1, _TOKENS_AT_ONCE.get(device.type, 1024) // BLOCK_TOKENS), plan.batch_blocks)
    work = Work(BLOCK_TOKENS, plan.batch_blocks, blocks, compute)
    shape = shape_of(model, new_rows, STRATEGIES[0])
    for strategy in STRATEGIES:
        shape = shape_of(model, new_rows, strategy)
        if memory_bytes(shape, work, kept) <= _MEMORY_SHARE * free:
            return strategy, shape, work
    return None, shape, work


def shape_of(model: Mapping[str, Any], new_rows: int, strategy: str) -> Shape:
    """The model with its new rows as the price sees it, and what moves in it."""
    hidden, layers, tied = int(model["hidden_size"]), int(model["layers"]), bool(model["tied"])
    rows = int(model["rows"]) + new_rows
    parameters = int(model["parameters"]) + new_rows * table_width(model) * (1 if tied else 2)
    return plain_shape(
        parameters=parameters,
        rows=rows,
        hidden=hidden,
        table_width=table_width(model),
        layers=layers,
        tied=tied,
        moves="full" if strategy == "full" else "tables",
        rank=_LORA_RANK if strategy == "lora" else 0,
    )


def _overhead(shape: Shape, model: Mapping[str, Any]) -> float:
    """Start, and writing the model and a checkpoint."""
    weights = shape.parameters * BYTES_PER_VALUE.get(str(model.get("dtype")), 4)
    return cost.Times(0.0, 0, 1, 0, 0).seconds(shape, Work(1, 1, 1, "fp32"), 12 * shape.trained, weights)
