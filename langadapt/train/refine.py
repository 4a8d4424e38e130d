"""From a model and snippets to refined rows: the run, its checkpoints, and what it measures on snippets held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch

from langadapt.core.progress import Progress
from langadapt.core.rng import stream
from langadapt.core.types import Block, Snippet
from langadapt.model.compute import Compute
from langadapt.model.facts import HEADS, INPUT_TABLES, stored_name
from langadapt.model.load import load_model
from langadapt.model.weights import DTYPE_NAMES, open_weights
from langadapt.train.around import Surroundings
from langadapt.train.checkpoint import Checkpoints
from langadapt.train.distill import LIGHTER, Distiller, Goal
from langadapt.train.head import find_head
from langadapt.train.journal import Journal
from langadapt.train.loop import Settings, train
from langadapt.train.memory import out_of_memory_explained
from langadapt.train.optimiser import AdamSettings, Optimiser
from langadapt.train.schedule import Schedule
from langadapt.train.stages import make_course
from langadapt.train.stored import keep_stored

# Held-out snippets are measured this many at once.
_AT_ONCE = 16
_MOST_STEPS_BETWEEN_CHECKPOINTS = 250
_WARMUP_SHARE = 0.05
DISTANCE, NEXT_TOKEN = "distance", "next token"


class Wishes(Protocol):
    """What the user may set of the run itself."""

    @property
    def seed(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def batch_snippets(self) -> int: ...
    @property
    def micro_batch_snippets(self) -> int | None: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def betas(self) -> tuple[float, float]: ...
    @property
    def clip(self) -> float: ...
    @property
    def still_directions(self) -> int: ...
    @property
    def checkpoint_steps(self) -> int | None: ...
    @property
    def keep_checkpoints(self) -> int: ...


@dataclass(frozen=True)
class Plan:
    """How long, and how much at once. Snippet `order(at)` is read as number `at` of the run."""

    snippets: int
    steps: int
    batch: int
    micro_batch: int
    seed: int

    @property
    def epochs(self) -> float:
        """How often each snippet is read."""
        return self.steps * self.batch / self.snippets

    @property
    def third(self) -> int:
        """Steps between measurements."""
        return max(1, -(-self.steps // 3))

    def order(self) -> Callable[[int], tuple[int, int]]:
        """Place in the run -> (epoch, snippet): each epoch in a random order of its own, a function of the seed."""

        @lru_cache(maxsize=2)
        def shuffled(epoch: int) -> Any:
            return stream(self.seed, "snippets", epoch).permutation(self.snippets)

        return lambda at: (at // self.snippets, int(shuffled(at // self.snippets)[at % self.snippets]))


def make_plan(wishes: Wishes, snippets: int) -> Plan:
    """A run over so many snippets: each read `epochs` times, or `steps` steps of them."""
    batch = min(wishes.batch_snippets, snippets)
    steps = wishes.steps or -(-snippets * wishes.epochs // batch)
    return Plan(snippets, steps, batch, min(wishes.micro_batch_snippets or batch, batch), wishes.seed)


@dataclass(frozen=True)
class Around:
    """What a run is handed: where snippets come from, where to write, how to compute."""

    snippet_at: Callable[[int], Snippet]
    held_out: Sequence[Snippet]
    decode: Callable[[Sequence[int]], str]
    run: str
    folder: Path
    progress: Progress
    compute: Compute
    device: torch.device
    timing: Callable[[int, float], None]


@dataclass(frozen=True)
class Refined:
    """Rows by table, in fp32 and in the order of the ids; `measured` holds start and end of each held-out figure."""

    rows: dict[str, torch.Tensor]
    steps: int
    measured: dict[str, dict[str, float]]
    journal: bytes
    computed_with: dict[str, Any]
    final_loss: float | None


def make_distiller(folder: Path, ids: Sequence[int], goal: Goal, device: torch.device) -> Distiller:
    """The model of a folder, frozen in the dtype of its files, with the rows of `ids` ready to move."""
    model = load_model(folder)
    # A mask hides padding where there is any: no row is left out
    model.get_input_embeddings().padding_idx = None
    keep_stored(model, (), _stored_dtypes(folder))
    model.to(device)
    if goal.old_table is not None:
        goal = replace(goal, old_table=goal.old_table.to(device))
    return Distiller(model, ids, goal, find_head(model) if goal.next_token else None).to(device)


def _stored_dtypes(folder: Path) -> Callable[[str], torch.dtype]:
    """The dtype that the files hold a parameter in; a head without a tensor of its own has that of the input table."""
    tensors = open_weights(folder).tensors
    table = next((name for name in sorted(tensors) if name.endswith(INPUT_TABLES)), None)

    def dtype_of(name: str) -> torch.dtype:
        found = stored_name(name, tensors) or (table if name in HEADS else None)
        # what stands in the files in parts stays as it was loaded
        known = tensors[found].dtype if found is not None else ""
        dtype: torch.dtype = getattr(torch, DTYPE_NAMES.get(known, "float32"))
        return dtype

    return dtype_of


def refine(distiller: Distiller, wishes: Wishes, plan: Plan, around: Around, longest: int) -> Refined:
    """Move the rows, from the newest checkpoint if there is one; `longest` are the tokens of the longest snippet.

    Interrupted: a checkpoint was written. TrainingFailed: a number was not finite, or the distance grew to twice
    what it was. ResourceError: no space for checkpoints.
    """
    optimiser = Optimiser(
        distiller,
        set(distiller.moving),
        AdamSettings(weight_decay=0.0, betas=wishes.betas, clip=wishes.clip),
        old_rows=None,
    )
    checkpoints = Checkpoints(
        around.folder / "checkpoints", around.run, wishes.keep_checkpoints, around.progress, _computed_with(around)
    )
    found = checkpoints.newest()
    checkpoints.check_disk(optimiser.checkpoint_bytes(), 0, due=wishes.keep_checkpoints)
    if found is not None:
        for key, value in checkpoints.computed_with.items():
            before = found[1].computed_with.get(key)
            if before != value:
                around.progress.warn(
                    f"this run began with {key} {before} and goes on with {value}: "
                    "the result will not be the same bytes as that of an uninterrupted run"
                )
    distiller.scale = _scale(distiller, plan, around)
    if distiller.tied and wishes.still_directions:
        _hold_still(distiller, wishes.still_directions, plan, around)
    order = plan.order()

    def batch_at(step: int) -> list[Block]:
        chosen = [order(step * plan.batch + at) for at in range(plan.batch)]
        return [Block(around.snippet_at(at).new.tolist(), (), "snippets", epoch, at) for epoch, at in chosen]

    journal = Journal(around.folder / "metrics.jsonl", around.progress.warn)
    surroundings = Surroundings(
        batch_at=batch_at,
        positions_at=lambda step: list(range(step * plan.batch, (step + 1) * plan.batch)),
        probe=lambda: _held_out(distiller, around),
        watched=frozenset(),
        decode=around.decode,
        journal=journal,
        checkpoints=checkpoints,
        folder=around.folder,
        progress=around.progress,
        timing=around.timing,
        unit="(held-out snippets)",
    )
    warmup = min(plan.steps, max(1, round(_WARMUP_SHARE * plan.steps)))
    half = max(1, -(-plan.steps // 2))
    settings = Settings(
        course=make_course(Schedule(wishes.learning_rate, plan.steps, warmup), ()),
        batch_blocks=plan.batch,
        block_tokens=longest,
        micro_batch_blocks=plan.micro_batch,
        compute=around.compute,
        layout="rows",
        seed=plan.seed,
        max_forgetting=0.0,
        probe_every=plan.third,
        checkpoint_every=wishes.checkpoint_steps or min(half, _MOST_STEPS_BETWEEN_CHECKPOINTS),
        objective=distiller.objective(around.snippet_at),
    )
    done = train(distiller, optimiser, settings, surroundings, found)
    rows = {"input": distiller.table.moved().detach().cpu()}
    if distiller.head_rows is not None:
        rows["head"] = distiller.head_rows.detach().cpu()
    computed_with = dict(checkpoints.computed_with)
    return Refined(rows, done.step, journal.summary(), journal.content(), computed_with, journal.last_loss)


def _computed_with(around: Around) -> dict[str, Any]:
    return {"compute": around.compute, "device": around.device.type, "threads": torch.get_num_threads()}


def _measured(distiller: Distiller, snippets: Sequence[Snippet], around: Around) -> dict[str, float]:
    tokens = _AT_ONCE * max(len(snippet.old) for snippet in snippets)
    with (
        out_of_memory_explained(tokens, LIGHTER),
        torch.autocast(around.device.type, torch.bfloat16, enabled=around.compute == "bf16"),
    ):
        return distiller.measure(snippets, _AT_ONCE)


def _scale(distiller: Distiller, plan: Plan, around: Around) -> float:
    """Mean square of a number in the teacher's states: on snippets held out, else on the first ones."""
    few = around.held_out or [around.snippet_at(at) for at in range(min(plan.snippets, _AT_ONCE))]
    found = _measured(distiller, few[: 4 * _AT_ONCE], around)
    return max(1e-12, found["teacher"] / found["places"])


def _hold_still(distiller: Distiller, wanted: int, plan: Plan, around: Around) -> None:
    """The first snippets tell in which directions the head reads; half of the width stays free to move in any case."""
    directions = min(wanted, distiller.table.rows.shape[1] // 2)
    few = [around.snippet_at(at) for at in range(min(plan.snippets, 4 * _AT_ONCE))]
    tokens = _AT_ONCE * max(len(snippet.new) for snippet in few)
    with (
        out_of_memory_explained(tokens, LIGHTER),
        torch.autocast(around.device.type, torch.bfloat16, enabled=around.compute == "bf16"),
    ):
        share = distiller.hold_still(few, _AT_ONCE, directions)
    around.progress.note(
        f"input and head are one table: rows stay as they are in {directions} directions, "
        f"{share:.0%} of what the head reads"
    )


def _held_out(distiller: Distiller, around: Around) -> dict[str, float]:
    """Squared distance as a share of the teacher's mean square, and nats a token where the head learns."""
    if not around.held_out:
        return {}
    task = around.progress.start("held-out snippets", total=len(around.held_out), unit="snippets")
    totals: dict[str, float] = {}
    for first in range(0, len(around.held_out), _AT_ONCE):
        few = around.held_out[first : first + _AT_ONCE]
        for name, value in _measured(distiller, few, around).items():
            totals[name] = totals.get(name, 0.0) + value
        task.advance(len(few))
    task.finish()
    found = {DISTANCE: totals["squares"] / totals["teacher"]}
    if totals["labels"]:
        found[NEXT_TOKEN] = totals["nats"] / totals["labels"]
    return found
