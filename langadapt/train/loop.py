"""The training loop, from top to bottom.

A step reads blocks by position, adds up gradients over micro-batches, checks that everything is finite, moves the
weights, writes one line. The state is one integer beside the weights and moments: the number of finished steps. What
happens at step n depends on (weights, moments, n) alone, so a run may be killed anywhere and gone on with.
"""

import math
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from langadapt.core import interrupt
from langadapt.core.artifact import Artifact
from langadapt.core.errors import Interrupted, TrainingFailed
from langadapt.core.rng import stream_key
from langadapt.core.types import Block
from langadapt.model.compute import Compute, wait_for
from langadapt.train.around import Surroundings
from langadapt.train.batches import Layout
from langadapt.train.checkpoint import Saved
from langadapt.train.head import Head
from langadapt.train.incident import write_incident
from langadapt.train.journal import Journal
from langadapt.train.memory import out_of_memory_explained
from langadapt.train.objective import Objective, next_token
from langadapt.train.optimiser import Optimiser
from langadapt.train.probing import check_ruin, judge, measure
from langadapt.train.spikes import PATIENCE, Watch
from langadapt.train.stages import Course, Stage

BadStep = Literal["stop", "skip"]
# Work of this length is worth a checkpoint before the result is written.
WORTH_SAVING_SECONDS = 120.0


@dataclass(frozen=True)
class Settings:
    """How to train. Steps are optimiser steps; a step reads `batch_blocks` blocks, `micro_batch_blocks` at a time.

    `head` lets the loss do the last product; `guessing` is the loss of a model that knows nothing (nats a token).
    `objective` is what is learned, by default the next token of each block.
    """

    course: Course
    batch_blocks: int
    block_tokens: int
    micro_batch_blocks: int
    compute: Compute
    layout: Layout
    seed: int
    max_forgetting: float
    probe_every: int
    checkpoint_every: int
    bad_step: BadStep = "stop"
    head: Head | None = None
    guessing: float = math.inf
    # a checkpoint of long work before the result is written; a short run that writes none needs none
    saves_end: bool = True
    objective: Objective | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.course.schedule.steps

    @property
    def tokens_at_once(self) -> int:
        """Tokens of one forward pass."""
        return self.micro_batch_blocks * self.block_tokens

    @property
    def batch_tokens(self) -> int:
        """Tokens of one optimiser step."""
        return self.batch_blocks * self.block_tokens


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
    *,
    other_data: bool = False,
) -> Trained:
    """Train to the last step, from the checkpoint `found` if there is one; `other_data`: it read and probed other text.

    Interrupted (a signal): a checkpoint of the last finished step was written. TrainingFailed: a number was not
    finite, the loss went wild, or the watched probes rose by more than `max_forgetting`.
    """
    done = Trained() if found is None else _go_on(optimiser, around, *found, other_data=other_data)
    if other_data:
        done.consumed.clear()
    saved_at, steps, course = done.step, settings.steps, settings.course
    saved_when = time.monotonic()
    watch = _watch(around.journal, settings)
    task = around.progress.start("training", total=steps, unit="steps", done=done.step)
    model.train()
    _only(optimiser, course.stage_at(done.step))
    if done.step < steps:
        _rehearse(model, optimiser, around, settings, done.step)
    try:
        while True:
            stage = course.stage_at(done.step)
            if done.step == stage.first:
                _only(optimiser, stage)
            if done.step in around.checkpoints.pinned and not around.checkpoints.holds(done.step):
                around.checkpoints.save(done.step, optimiser, around.journal, done.consumed)
                saved_at = done.step
            unprobed = around.journal.first_probed is None
            if done.step % settings.probe_every == 0 or done.step == steps or unprobed:
                measure(around, done.step, settings.batch_tokens)
                check_ruin(around, done.step)
                try:
                    judge(around, done.step, settings.max_forgetting)
                except TrainingFailed:
                    # with a wider limit the same command goes on from here
                    if done.step > saved_at:
                        around.checkpoints.save(done.step, optimiser, around.journal, done.consumed)
                    raise
            if done.step == steps:
                break
            interrupt.poll()

            began = time.monotonic()
            blocks = around.batch_at(done.step)
            with out_of_memory_explained(settings.tokens_at_once, _objective(model, settings).lighter):
                loss = _accumulate(model, blocks, done.step, settings)
            norm = optimiser.gradient_norm()
            complaint = _not_finite(loss, float(norm))
            if complaint and (settings.bad_step == "stop" or _in_a_row(around.journal, done.step) + 1 >= PATIENCE):
                raise _incident(optimiser, around, settings, done.step, blocks, loss, complaint)
            learning_rate = course.rate_at(done.step)
            if complaint is None:
                with _drawing(settings.seed, "rounding", done.step, 0, next(model.parameters()).device):
                    optimiser.step(learning_rate, norm)
            else:
                optimiser.forget()
                around.progress.warn(f"step {done.step + 1:,} moved nothing: {complaint}")

            done.step += 1
            if optimiser.average is not None:
                optimiser.average.take(done.step)
            done.consumed.update(block.source for block in blocks)
            read = done.step * settings.batch_tokens
            if complaint is None:
                around.journal.add_step(done.step, read, loss, learning_rate, float(norm))
                _tell(watch, course, done.step, loss)
            else:
                around.journal.add_skipped(done.step, read, complaint)
            around.timing(done.step, time.monotonic() - began)
            task.advance(1, f"loss {loss:.3f}", poll=False)
            if watch.complaint() is not None:
                why = watch.complaint() or ""
                raise _incident(optimiser, around, settings, done.step - 1, blocks, loss, why, since=watch.streak)
            if done.step % settings.checkpoint_every == 0 and done.step < steps:
                around.checkpoints.save(done.step, optimiser, around.journal, done.consumed)
                saved_at, saved_when = done.step, time.monotonic()
    except Interrupted:
        # Gradients of a step in progress are left behind; weights, moments and journal are those of a finished step
        if done.step > saved_at:
            optimiser.forget()
            around.checkpoints.save(done.step, optimiser, around.journal, done.consumed)
        raise
    if settings.saves_end and time.monotonic() - saved_when > WORTH_SAVING_SECONDS and done.step > saved_at:
        # Writing the result can be stopped too, and must not cost what was trained since the last checkpoint
        around.checkpoints.save(done.step, optimiser, around.journal, done.consumed)
    task.finish()
    return done


def _only(optimiser: Optimiser, stage: Stage) -> None:
    optimiser.only(stage.names, stage.still)


def _go_on(
    optimiser: Optimiser, around: Surroundings, artifact: Artifact, saved: Saved, *, other_data: bool
) -> Trained:
    around.checkpoints.restore(artifact, saved, optimiser, around.journal, other_data=other_data)
    around.progress.note(f"going on after step {saved.step}")
    return Trained(saved.step, Counter(saved.consumed))


def _rehearse(model: nn.Module, optimiser: Optimiser, around: Surroundings, settings: Settings, step: int) -> None:
    """Forward and backward of the largest micro-batch of a step, so that memory runs out now or not at all.

    Moves nothing: gradients are dropped, random streams put back. ResourceError when memory is short.
    """
    blocks = around.batch_at(step)
    size = settings.micro_batch_blocks
    device = next(model.parameters()).device
    cuts = [blocks[first : first + size] for first in range(0, len(blocks), size)]
    objective = _objective(model, settings)
    largest = max(cuts, key=objective.size)
    with out_of_memory_explained(settings.tokens_at_once, objective.lighter):
        optimiser.prepare()
        _accumulate(model, largest, step, settings)
        wait_for(device)
    optimiser.forget()


def _watch(journal: Journal, settings: Settings) -> Watch:
    watch, first = Watch(settings.guessing), journal.first_probed
    for step, loss in sorted(journal.losses.items()):
        if first is not None and step > first:  # those before are losses of other data
            _tell(watch, settings.course, step, loss)
    return watch


def _tell(watch: Watch, course: Course, step: int, loss: float) -> None:
    """Loss of the step that was finished as number `step`."""
    if any(step - 1 == stage.first for stage in course.stages[1:]):
        watch.forget()
    watch.add(loss)


def _not_finite(loss: float, norm: float) -> str | None:
    what = "the loss" if not math.isfinite(loss) else "the gradient norm" if not math.isfinite(norm) else None
    return None if what is None else f"{what} is not finite"


def _in_a_row(journal: Journal, step: int) -> int:
    """Steps up to `step`, that one included, which moved nothing."""
    count, skipped = 0, set(journal.skipped)
    while step - count in skipped:
        count += 1
    return count


def _accumulate(model: nn.Module, blocks: Sequence[Block], step: int, settings: Settings) -> float:
    """Gradients of the mean loss over all labels of the step; returns that loss (nats a token)."""
    device = next(model.parameters()).device
    objective = _objective(model, settings)
    labels = objective.count(blocks)
    total = torch.zeros((), device=device)
    for first in range(0, len(blocks), settings.micro_batch_blocks):
        interrupt.poll()
        with _drawing(settings.seed, "dropout", step, first, device):
            with _autocast(device, settings.compute):
                loss = objective.loss(blocks[first : first + settings.micro_batch_blocks], labels)
            loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return float(total)


def _objective(model: nn.Module, settings: Settings) -> Objective:
    return settings.objective or next_token(model, settings.layout, settings.head)


def _incident(
    optimiser: Optimiser,
    around: Surroundings,
    settings: Settings,
    step: int,
    blocks: Sequence[Block],
    loss: float,
    complaint: str,
    *,
    since: int = 1,
) -> TrainingFailed:
    """Write down what happened at a step; it began `since` - 1 steps before."""
    positions = around.positions_at(step)
    hint = "look at the text in that folder; then try a lower `--learning-rate` with another `--out`"
    before = around.checkpoints.newest_before(step - since + 2)
    if before is not None and (settings.objective is None or settings.objective.can_leave_out):
        first = around.positions_at(step - since + 1)[0]
        # a run with stages cannot be branched from
        branch = f"--branch-from {shlex.quote(str(before))} " if len(settings.course.stages) == 1 else ""
        hint += (
            f", or leave the text out: `{branch}"
            f"-o 'skip_positions=[\"{first}:{positions[-1] + 1}\"]'` with another `--out`"
        )
    return write_incident(
        around.folder,
        step=step + 1,
        positions=positions,
        blocks=blocks,
        loss=loss,
        norms=optimiser.norms(),
        decode=around.decode,
        complaint=complaint,
        kept=bool(around.checkpoints.places()),
        losses=around.journal.losses,
        hint=hint,
    )


@contextmanager
def _drawing(seed: int, what: str, step: int, block: int, device: torch.device) -> Iterator[None]:
    """torch's random numbers as a function of (seed, what, step, block); the caller's streams are untouched."""
    key = stream_key(seed, what, step, block) % 2**63
    cuda = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(key)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(key)
        yield


def _autocast(device: torch.device, compute: Compute) -> "torch.autocast | nullcontext[None]":
    return torch.autocast(device.type, dtype=torch.bfloat16) if compute == "bf16" else nullcontext()
