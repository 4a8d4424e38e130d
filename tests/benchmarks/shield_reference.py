"""Does a shield hold: gradients set to zero, as published code does it, beside a run of cpt on the same selection.

    python -m tests.benchmarks.shield_reference WORK --model FOLDER --data DATA [--selection FOLDER] [--steps 6]
        [--only WAY]... [--again] [--threads 2]
    python -m tests.benchmarks.shield_reference WORK --table docs/slices.md

The published way: a hook on each parameter multiplies its gradient with a mask, and AdamW over all parameters does the
rest. What it changes of the shielded numbers is counted by their bits, in the dtype that the weights are kept in.
Variants: with weight decay and without; with moments from steps before the mask was set, as in a run that continues
another one; weights in fp32 and in bf16. Ours is the product: `cpt --selection`, and the `shield.json` that it leaves,
which compares saved files. All read the same blocks of DATA, with the same rate, decay and clipping.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from langadapt.core.types import Movable, Slice
from langadapt.mixture.stream import Stream
from langadapt.model.load import load_model
from langadapt.select.selection import read_selection
from tests.benchmarks.cells import Results, add_result, fill, results, say, wanted

BEGIN = "<!-- table made by tests/benchmarks/shield_reference.py -->"
RATE, BETAS, CLIP, BATCH = 3e-4, (0.9, 0.95), 1.0, 2
DECAY = 0.01
_STEPS_BEFORE = 2


@dataclass(frozen=True)
class Zeroed:
    """Gradients of shielded numbers are set to zero."""

    dtype: torch.dtype = torch.float32
    decay: float = DECAY
    steps_before: int = 0


@dataclass(frozen=True)
class Product:
    """`cpt --selection`, with these options."""

    options: tuple[str, ...] = ()


WAYS: dict[str, Zeroed | Product] = {
    "zeroed": Zeroed(),
    "zeroed, no decay": Zeroed(decay=0.0),
    "zeroed, no decay, moments from before": Zeroed(decay=0.0, steps_before=_STEPS_BEFORE),
    "zeroed, bf16 weights": Zeroed(torch.bfloat16),
    "zeroed, bf16 weights, moments from before": Zeroed(torch.bfloat16, steps_before=_STEPS_BEFORE),
    "cpt": Product(("--compute", "fp32")),
    "cpt, bf16 products": Product(("--compute", "bf16")),
}


class Bench:
    """Everything below the work folder."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.work = given, given.work

    def run(self, verb: str, *words: str) -> Path:
        """One verb in a process of its own, unless its result is there; its result."""
        out = Path(words[-1])
        if not (out / "artifact.json").is_file():
            environment = {**os.environ, "OMP_NUM_THREADS": str(self.given.threads)}
            command = [sys.executable, "-m", "langadapt", verb, *words, "--quiet"]
            if code := subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode:
                raise SystemExit(code)
        return out

    def selection(self) -> Path:
        """What may move: half of the columns of each matrix, drawn at random, and the tables."""
        if self.given.selection:
            return Path(self.given.selection)
        return self.run("select", self.given.model, "--method", "random", "--out", str(self.work / "selection"))

    def blocks(self, step: int) -> torch.Tensor:
        """Tokens of one step [BATCH, block_tokens]."""
        stream = Stream.open(Path(self.given.data))
        return torch.tensor([list(stream.block(step * BATCH + at).tokens) for at in range(BATCH)])

    def product(self, way: Product, name: str) -> dict[str, Any]:
        """What a run of cpt changed, by the comparison of files at its end."""
        tokens = str(self.blocks(0).numel())
        # fmt: off
        out = self.run("cpt", self.given.model, self.given.data, "--selection", str(self.selection()), *way.options,
                       "--steps", str(self.given.steps), "-o", f"batch_tokens={tokens}", "--max-forgetting", "1000",
                       "-o", f"learning_rate={RATE}", "-o", f"weight_decay={DECAY}", "-o", f"clip={CLIP}",
                       "--out", str(self.work / name.replace(", ", "-").replace(" ", "-")))
        # fmt: on
        found = json.loads((out / "shield.json").read_text(encoding="utf-8"))
        drifts = found["tensors"].values()
        shielded = sum(each["of"] - each["may_move"] for each in drifts)
        return {"shielded": shielded, "changed": sum(each["broken"] for each in drifts), "largest": 0.0}

    def zeroed(self, way: Zeroed) -> dict[str, Any]:
        """What AdamW changed of numbers whose gradients a hook had set to zero."""
        torch.manual_seed(0)
        model = load_model(Path(self.given.model)).to(way.dtype).train()
        masks = shielded_masks(model, read_selection(self.selection()).movable())
        matrices = [value for value in model.parameters() if value.ndim >= 2]
        others = [value for value in model.parameters() if value.ndim < 2]
        groups = [{"params": matrices, "weight_decay": way.decay}, {"params": others, "weight_decay": 0.0}]
        adam = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)
        for step in range(way.steps_before):
            self.step(model, adam, step)
        for name, value in model.named_parameters():
            if name in masks:
                value.register_hook(lambda gradient, mask=masks[name]: gradient.masked_fill(mask, 0.0))
        first = {name: value.detach()[masks[name]] for name, value in model.named_parameters() if name in masks}
        for step in range(way.steps_before, way.steps_before + self.given.steps):
            self.step(model, adam, step)
        return counted(model, masks, first)

    def step(self, model: Any, adam: torch.optim.Optimizer, number: int) -> None:
        """One step over one batch of blocks."""
        tokens = self.blocks(number)
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        adam.step()
        adam.zero_grad(set_to_none=True)


def shielded_masks(model: Any, movable: Movable) -> dict[str, torch.Tensor]:
    """By parameter, True where it must not move; parameters that move as wholes are left out."""
    masks = {}
    for name, value in model.named_parameters():
        if name in movable.names:
            continue
        mask = torch.ones(value.shape, dtype=torch.bool)
        if (part := movable.slices.get(name)) is not None:
            mask.index_fill_(part.axis, places(part), False)
        masks[name] = mask
    return masks


def places(part: Slice) -> torch.Tensor:
    return torch.from_numpy(part.ids.astype("int64"))


def counted(model: Any, masks: Mapping[str, torch.Tensor], first: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Shielded numbers, how many of them have other bits than at first, and the largest change."""
    shielded, changed, largest = 0, 0, 0.0
    for name, value in model.named_parameters():
        if name in masks:
            now, then = value.detach()[masks[name]], first[name]
            whole_numbers = torch.int32 if now.dtype == torch.float32 else torch.int16
            shielded += now.numel()
            changed += int((now.view(whole_numbers) != then.view(whole_numbers)).sum())
            largest = max(largest, float((now.float() - then.float()).abs().max())) if now.numel() else largest
    return {"shielded": shielded, "changed": changed, "largest": largest}


def table(found: Results) -> str:
    """A row a way."""
    steps = next(iter(found.values()))["steps"]
    lines = ["| way | shielded numbers | of them changed | largest change |", "| --- | --- | --- | --- |"]
    for name in (name for name in WAYS if (name, 0) in found):
        entry = found[name, 0]
        share = f"{entry['changed']:,} ({entry['changed'] / entry['shielded']:.1%})"
        lines.append(f"| {name} | {entry['shielded']:,} | {share} | {entry['largest']:.1e} |")
    return f"After {steps} steps:\n\n" + "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--selection")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    if given.table:
        fill(given.table, BEGIN, table(results(given.work, "way")))
        return
    if not (given.model and given.data):
        parser.error("--model and --data are needed")
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(given.threads)
    bench, there = Bench(given), {} if given.again else results(given.work, "way")
    for name, seed in wanted(list(WAYS), 1, [f"{one}/0" for one in given.only]):
        if there.get((name, seed), {}).get("steps") == given.steps:
            continue
        say(name)
        way = WAYS[name]
        found = bench.product(way, name) if isinstance(way, Product) else bench.zeroed(way)
        add_result(given.work, {"way": name, "seed": seed, "steps": given.steps, **found})


if __name__ == "__main__":
    main()
