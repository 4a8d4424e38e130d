"""The training loop, from top to bottom.

A step reads blocks by position, adds up gradients over micro-batches, checks that everything is finite, moves the
weights, writes one line. The state is one integer beside the weights and moments: the number of finished steps. What
happens at step n depends on (weights, moments, n) alone, so a run may be killed anywhere and gone on with.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from langadapt.core import interrupt
from langadapt.core.artifact import Artifact
from langadapt.core.errors import Interrupted, LangadaptError
from langadapt.core.progress import Progress
from langadapt.core.rng import stream_key
from langadapt.core.types import Block
from langadapt.train.batches import Layout, collate, count_labels
from langadapt.train.checkpoint import Checkpoints, Saved
from langadapt.train.incident import Decode, write_incident
from langadapt.train.isolation import forward
from langadapt.train.journal import Journal
from langadapt.train.loss import cross_entropy
from langadapt.train.memory import out_of_memory_explained
from langadapt.train.optimiser import Optimiser
from langadapt.train.schedule import Schedule

Compute = Literal["fp32", "bf16"]
# A rise of the source probes that is worth a warning; `Settings.max_forgetting` is the one that stops the run.
WARN_FORGETTING = 0.03


@dataclass(frozen=True)
class Settings:
    """How to train. Steps are optimiser steps; a step reads `batch_blocks` blocks, `micro_batch_blocks` at a time."""

    schedule: Schedule
    batch_blocks: int
    micro_batch_blocks: int
    compute: Compute
    layout: Layout
    seed: int
    max_forgetting: float
    probe_every: int
    checkpoint_every: int


@dataclass(frozen=True)
class Surroundings:
    """What the loop is handed by its caller: where data comes from, how to probe, where to write.

    `batch_at(step)` gives the blocks of a step; `probe()` bits per byte by name; `watched` names the probes of
    languages that must not be forgotten.
    """

    batch_at: Callable[[int], list[Block]]
    probe: Callable[[], dict[str, float]]
    watched: frozenset[str]
    decode: Decode
    journal: Journal
    checkpoints: Checkpoints
    folder: Path
    progress: Progress
    timing: Callable[[int, float], None] = lambda step, seconds: None


@dataclass
class Trained:
    """How far a run has come: finished steps, blocks read per source."""

    step: int = 0
    consumed: Counter[str] = field(default_factory=Counter)


def train(
    model: nn.Module,
    optimiser: Optimiser,
    settings: Settings,
    around: Surroundings,
    found: tuple[Artifact, Saved] | None = None,
) -> Trained:
    """Train to the last step, from the checkpoint `found` if there is one.

    Interrupted (a signal): a checkpoint of the last finished step was written. LangadaptError: a number was not
    finite, or the watched probes rose by more than `max_forgetting`.
    """
    done = Trained() if found is None else _go_on(optimiser, around, *found)
    saved_at = done.step
    steps = settings.schedule.steps
    tokens_per_step = settings.batch_blocks * len(around.batch_at(0)[0].tokens)
    task = around.progress.start("training", total=steps, unit="steps", done=done.step)
    model.train()
    try:
        while True:
            if done.step % settings.probe_every == 0 or done.step == steps:
                _probe(around, done.step, tokens_per_step, settings.max_forgetting)
            if done.step == steps:
                break
            interrupt.poll()

            began = time.monotonic()
            blocks = around.batch_at(done.step)
            with out_of_memory_explained(settings.micro_batch_blocks * len(blocks[0].tokens)):
                loss = _accumulate(model, blocks, done.step, settings)
            norm = optimiser.gradient_norm()
            if not (math.isfinite(loss) and math.isfinite(float(norm))):
                raise _incident(optimiser, around, settings, done.step, blocks, loss)
            learning_rate = settings.schedule.at(done.step)
            optimiser.step(learning_rate, norm)

            done.step += 1
            done.consumed.update(block.source for block in blocks)
            around.journal.add_step(done.step, done.step * tokens_per_step, loss, learning_rate, float(norm))
            around.timing(done.step, time.monotonic() - began)
            task.advance(1, f"loss {loss:.3f}", poll=False)
            if done.step % settings.checkpoint_every == 0 and done.step < steps:
                around.checkpoints.save(done.step, optimiser, around.journal, done.consumed)
                saved_at = done.step
    except Interrupted:
        # Gradients of a step in progress are left behind; weights, moments and journal are those of a finished step
        if done.step > saved_at:
            optimiser.forget()
            around.checkpoints.save(done.step, optimiser, around.journal, done.consumed)
        raise
    task.finish()
    return done


def _go_on(optimiser: Optimiser, around: Surroundings, artifact: Artifact, saved: Saved) -> Trained:
    around.checkpoints.restore(artifact, saved, optimiser, around.journal)
    around.progress.note(f"going on after step {saved.step}")
    return Trained(saved.step, Counter(saved.consumed))


def _accumulate(model: nn.Module, blocks: Sequence[Block], step: int, settings: Settings) -> float:
    """Gradients of the mean loss over all labels of the step; returns that loss (nats a token)."""
    device = next(model.parameters()).device
    labels = count_labels(blocks)
    total = torch.zeros((), device=device)
    for first in range(0, len(blocks), settings.micro_batch_blocks):
        interrupt.poll()
        batch = collate(blocks[first : first + settings.micro_batch_blocks], settings.layout, device)
        with _dropout_stream(settings.seed, step, first, device), _autocast(device, settings.compute):
            loss = cross_entropy(forward(model, batch), batch.labels_BL, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return float(total)


def _probe(around: Surroundings, step: int, tokens_per_step: int, max_forgetting: float) -> None:
    """Record bits per byte at this step unless that was done before a restart; compare with the start."""
    values = around.journal.probes_at(step)
    if values is None:
        values = around.probe()
        around.journal.add_probes(step, step * tokens_per_step, values)
    start = around.journal.probes_at(0)
    if start is None or step == 0:
        return
    for name in sorted(around.watched & values.keys() & start.keys()):
        rise = values[name] / start[name] - 1.0
        said = f"`{name}` went from {start[name]:.3f} to {values[name]:.3f} bits per byte ({rise:+.1%}) at step {step}"
        if not rise <= max_forgetting:  # a value that is not a number must not pass
            raise LangadaptError(
                f"{said}: the model is forgetting; the last checkpoint is kept",
                hint="lower `--learning-rate` or mix in more replay, with another `--out`; "
                f"or go on with `--max-forgetting {math.ceil(rise * 100 + 1) / 100:.2f}`"
                if math.isfinite(rise)
                else "lower `--learning-rate`, with another `--out`",
            )
        if rise > WARN_FORGETTING:
            around.progress.warn(said)


def _incident(
    optimiser: Optimiser, around: Surroundings, settings: Settings, step: int, blocks: Sequence[Block], loss: float
) -> LangadaptError:
    first = step * settings.batch_blocks
    return write_incident(
        around.folder,
        step=step + 1,
        positions=range(first, first + len(blocks)),
        blocks=blocks,
        loss=loss,
        norms=optimiser.norms(),
        decode=around.decode,
    )


@contextmanager
def _dropout_stream(seed: int, step: int, block: int, device: torch.device) -> Iterator[None]:
    """Random numbers of modules (dropout) as a function of (seed, step, block); the caller's streams are untouched."""
    key = stream_key(seed, "dropout", step, block) % 2**63
    cuda = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(key)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(key)
        yield


def _autocast(device: torch.device, compute: Compute) -> "torch.autocast | nullcontext[None]":
    return torch.autocast(device.type, dtype=torch.bfloat16) if compute == "bf16" else nullcontext()
