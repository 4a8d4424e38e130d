"""From a loaded model to a trained one: proof of isolation, checkpoints, disk, then the loop."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from langadapt.train.cost import checkpoint_bytes
from langadapt.train.isolation import prove_isolation
from langadapt.train.loop import Settings, Surroundings, Trained, train
from langadapt.train.optimiser import AdamSettings, Optimiser
from langadapt.train.plan import Plan

Compute = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Means:
    """How a run computes. `chosen` names those that the user fixed; the others follow the checkpoint on continuing."""

    compute: Compute
    device: torch.device
    micro_batch_blocks: int
    chosen: frozenset[str] = frozenset()

    def as_before(self, before: Mapping[str, Any]) -> "Means":
        """The same, with what a checkpoint says in place of what was derived for this machine."""
        compute, blocks = self.compute, self.micro_batch_blocks
        if "compute" not in self.chosen and before.get("compute") in ("fp32", "bf16"):
            compute = before["compute"]
        if "micro_batch_blocks" not in self.chosen and isinstance(before.get("micro_batch_blocks"), int):
            blocks = before["micro_batch_blocks"]
        return Means(compute, self.device, blocks, self.chosen)


def fit(
    model: nn.Module,
    movable: set[str],
    plan: Plan,
    means: Means,
    around: Surroundings,
    adam: AdamSettings,
    *,
    seed: int,
    max_forgetting: float,
    old_rows: int | None,
    vocabulary: int,
    separator: int,
    result_bytes: int,
) -> tuple[Trained, dict[str, Any]]:
    """Train; the second value says how it was computed (threads, precision, layout of documents)."""
    model.to(means.device)
    optimiser = Optimiser(model, movable, adam, old_rows=old_rows)
    trained = sum(value.numel() for value in optimiser.parameters.values())
    found = around.checkpoints.newest()
    around.checkpoints.check_disk(checkpoint_bytes(trained), result_bytes)
    proof = prove_isolation(model, vocabulary=vocabulary, block_tokens=plan.block_tokens, separator=separator)
    around.progress.note(
        f"documents are kept apart by `{proof.layout}`: shown on this model, "
        f"largest difference {proof.largest_difference:.1g} of the largest logit"
    )
    if found is not None:
        means = means.as_before(found[1].computed_with)
    record = {
        "compute": means.compute,
        "device": means.device.type,
        "micro_batch_blocks": means.micro_batch_blocks,
        "threads": torch.get_num_threads(),
        "layout": proof.layout,
    }
    if found is not None:
        for key, value in record.items():
            before = found[1].computed_with.get(key)
            if before is not None and before != value:
                around.progress.warn(
                    f"this run began with {key} {before} and goes on with {value}: "
                    "the result will not be the same bytes as that of an uninterrupted run"
                )
    around.checkpoints.computed_with.update(record)
    settings = Settings(
        schedule=plan.schedule,
        batch_blocks=plan.budget.batch_blocks,
        micro_batch_blocks=means.micro_batch_blocks,
        compute=means.compute,
        layout=proof.layout,
        seed=seed,
        max_forgetting=max_forgetting,
        probe_every=plan.probe_every,
        checkpoint_every=plan.checkpoint_every,
    )
    done = train(model, optimiser, settings, around, found)
    model.eval()
    return done, record
