"""What training in part costs beside training all: bytes of its state against the formula, and tokens a second.

`python -m tests.benchmarks.slice_state --model DIR_OR_GGUF --text FILE.jsonl [--only CELL ...] [--steps 3] [--rounds 3]
    [--compute fp32] [--threads 2]`

Cells: `full`, `trainer` (transformers.Trainer on the same blocks; needs accelerate), `ssu` (half of the columns of each
matrix, tables trained but for special rows), `subnetwork` (1 % of the neurons, tables frozen). Rounds go through all
cells in turn, and of each the step with the least processor time counts, so that other work on the machine disturbs all
alike. Bytes are those of what is there after a step: gradients, both moments, and what is trained.
"""

import argparse
import gc
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from langadapt.core.progress import Progress
from langadapt.core.types import Block, Movable, Portion, Slice
from langadapt.model.anatomy import anatomy
from langadapt.model.load import load_model, load_tokenizer, resolve
from langadapt.model.tables import table_names
from langadapt.train.footprint import shape_of, state_bytes
from langadapt.train.head import find_head
from langadapt.train.loop import Settings, _accumulate
from langadapt.train.optimiser import AdamSettings, Optimiser
from langadapt.train.schedule import Schedule
from langadapt.train.stages import make_course
from langadapt.train.trainable import Trainable, make_trainable
from tests.benchmarks import cpt_vs_trainer
from tests.benchmarks.cpt_vs_trainer import pack, packed_rows, texts_of

PORTIONS = {"full": Portion(1.0, 1.0), "ssu": Portion(0.5, 1.0), "subnetwork": Portion(0.01, 0.0)}
GOALS = {("full", "trainer"): 0.98, ("ssu", "full"): 0.9, ("subnetwork", "full"): 1.15}
_SPECIAL = 17


def subject_of(cell: str, folder: Path, compute: str) -> Trainable:
    """The model, ready; what is chosen is drawn at random, which costs what a choice by activity costs."""
    model = load_model(folder).train()
    model.get_input_embeddings().padding_idx = None
    random, slices = np.random.default_rng(0), {}
    names = frozenset(name for name, _ in model.named_parameters())
    if cell == "ssu":
        tables = table_names(model).among(names)
        for name, value in model.named_parameters():
            matrix = anatomy_of(model).get(name)
            axis = 0 if matrix is None else matrix.input_axis
            length = value.shape[axis]
            ids = np.arange(_SPECIAL, length) if name in tables else random.choice(length, length // 2, replace=False)
            slices[name] = Slice(axis, np.sort(ids).astype(np.int32))
    elif cell == "subnetwork":
        for each in anatomy(model).need_neurons():
            # 1 % of the body's numbers, as the price has it
            count = round(each.width * 0.0125)
            slices |= each.slices(np.sort(random.choice(each.width, count, replace=False)).astype(np.int32))
    movable = Movable(frozenset() if slices else names, slices)
    return make_trainable(model, movable, seed=0, folder=folder, compute=compute)  # type: ignore[arg-type]


def anatomy_of(model: Any) -> Any:
    """Matrices by the name of their weight."""
    return anatomy(model).by_weight


class Cell:
    """A model in training; one step at a time."""

    def __init__(self, name: str, folder: Path, blocks: list[Block], batch: int, compute: str) -> None:
        self.name, self.blocks, self.batch = name, blocks, batch
        self.subject = subject_of(name, folder, compute)
        self.optimiser = Optimiser(
            self.subject.model, set(self.subject.names), AdamSettings(), old_rows=None, parts=self.subject.parts
        )
        self.settings = Settings(
            course=make_course(Schedule(1e-4, 10**6, 0), ()), batch_blocks=batch, block_tokens=len(blocks[0].tokens),
            micro_batch_blocks=batch, compute=compute, layout="positions", seed=0, max_forgetting=1.0,
            probe_every=10**6, checkpoint_every=10**6, head=find_head(self.subject.model),
        )  # type: ignore[arg-type]  # fmt: skip
        self.state = 0

    def step(self, number: int) -> tuple[float, float]:
        """Seconds and processor seconds of one step."""
        chosen = [self.blocks[(number * self.batch + at) % len(self.blocks)] for at in range(self.batch)]
        began, used = time.perf_counter(), time.process_time()
        _accumulate(self.subject.model, chosen, number, self.settings)
        norm = self.optimiser.gradient_norm()
        gradients = sum(value.grad.nbytes for value in self.optimiser.parameters.values() if value.grad is not None)
        self.optimiser.step(1e-4, norm)
        spent = time.perf_counter() - began, time.process_time() - used
        self.state = gradients + sum(tensor.nbytes for _, tensor in self.optimiser.tensors())
        return spent

    def promised(self) -> int:
        """What the price says of a model like this, for the share of the body that was chosen."""
        model = self.subject.model
        config = model.config.get_text_config()
        shape = shape_of(
            parameters=sum(value.numel() for name, value in model.named_parameters() if "_moving" not in name),
            rows=config.vocab_size, hidden=config.hidden_size, layers=config.num_hidden_layers,
            tied=table_names(model).head is None, moves=PORTIONS[self.name],
        )  # fmt: skip
        share = min(1.0, max(0, self.subject.parameters - shape.tables_move * shape.tables) / shape.body)
        trained = round(share * shape.body + shape.tables_move * shape.tables)
        return state_bytes(replace(shape, trained=trained))


def trainer_steps(folder: Path, blocks: list[Block], batch: int, steps: int, compute: str) -> list[tuple[float, float]]:
    """Wall and processor seconds of Trainer's steps."""
    ticks: list[tuple[float, float]] = []
    real = time.perf_counter
    try:
        # its callback reads this clock at the end of each step
        time.perf_counter = lambda: ticks.append((real(), time.process_time())) or ticks[-1][0]  # type: ignore
        cpt_vs_trainer.trainer_seconds(folder, packed_rows(blocks), batch, steps, compute)
    finally:
        time.perf_counter = real
    spans = [(later[0] - earlier[0], later[1] - earlier[1]) for earlier, later in pairwise(ticks)]
    # other parts of the library read the clock too: whole steps are the long spans
    longest = max(wall for wall, _ in spans)
    return [each for each in spans if each[0] > longest / 4]


def timed(cell: str, given: argparse.Namespace, folder: Path, blocks: list[Block]) -> Iterator[Any]:
    """Steps of one cell in one round, and the cell at the end."""
    if cell == "trainer":
        yield from trainer_steps(folder, blocks, given.batch, given.steps, given.compute)
        return
    made = Cell(cell, folder, blocks, given.batch, given.compute)
    made.step(0)
    for number in range(1, given.steps + 1):
        yield made.step(number)
    yield made.state, made.promised()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=["full", "trainer", "ssu", "subnetwork"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--block-tokens", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--compute", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    folder = resolve(given.model, Progress())
    blocks = pack(load_tokenizer(folder), texts_of(given.text, 400), given.block_tokens, 0)
    cells = given.only or ["full", "trainer", "ssu", "subnetwork"]
    found: dict[str, list[tuple[float, float]]] = {cell: [] for cell in cells}
    sizes: dict[str, tuple[int, int]] = {}
    for _ in range(given.rounds):
        for cell in cells:
            spans = list(timed(cell, given, folder, blocks))
            if cell != "trainer":
                sizes[cell] = spans.pop()
            found[cell] += spans
            gc.collect()
    tokens = given.batch * given.block_tokens
    print(f"{given.model}: {given.batch} x {given.block_tokens} tokens, {given.compute}, {given.threads} threads")
    best = {cell: (min(wall for wall, _ in spans), min(used for _, used in spans)) for cell, spans in found.items()}
    for cell, (wall, used) in best.items():
        state = ""
        if cell in sizes:
            state = f"  state {sizes[cell][0] / 1e6:8.1f} MB, formula {sizes[cell][1] / 1e6:8.1f} MB"
            state += f" ({sizes[cell][0] / sizes[cell][1] - 1:+.2%})"
            state += f", {sizes[cell][0] / sizes['full'][0]:.1%} of full" if "full" in sizes else ""
        print(f"  {cell:11} best step {wall:7.3f} s, {tokens / wall:7.1f} tokens/s, processor {used:7.3f} s{state}")
    for (one, other), goal in GOALS.items():
        if one in best and other in best:
            print(
                f"  {one} / {other}: {best[other][0] / best[one][0]:.3f} by time, "
                f"{best[other][1] / best[one][1]:.3f} by processor time (goal {goal})"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
