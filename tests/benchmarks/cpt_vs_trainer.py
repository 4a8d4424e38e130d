"""Training speed side by side: the loop of langadapt and transformers.Trainer, same model, data, batch and precision.

`python -m tests.benchmarks.cpt_vs_trainer [--model DIR] [--text FILE.jsonl] [--steps 6] [--compute bf16] [--threads 2]`

Prints packed tokens a second of both (goal: at least 0.98 of Trainer's) and useful bytes a second against Trainer's
usual use, one padded paragraph a row (goal: at least 2.5). Without arguments a small made-up model is used: its ratio
says nothing about real sizes. Steps alternate between the two, and the fastest step of each counts, so that another
job on the machine disturbs both alike.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from langadapt.core.types import Block
from langadapt.model.load import load_model, load_tokenizer
from langadapt.train.head import find_head
from langadapt.train.loop import Settings, _accumulate
from langadapt.train.optimiser import AdamSettings, Optimiser
from langadapt.train.schedule import Schedule
from langadapt.train.stages import make_course

Step = Callable[[], None]


def texts_of(path: Path, most: int) -> list[str]:
    found: list[str] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            found += [part for part in json.loads(line)["text"].split("\n") if part.strip()]
            if len(found) >= most:
                break
    return found[:most]


def pack(tokenizer: Any, texts: list[str], length: int, separator: int) -> list[Block]:
    ids: list[int] = []
    starts: list[int] = []
    for text in texts:
        starts.append(len(ids))
        ids += [separator, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    blocks = []
    for first in range(0, len(ids) - length, length):
        inside = [start - first for start in starts if first <= start < first + length]
        blocks.append(Block(ids[first : first + length], inside, "text", 0, first // length))
    return blocks


def own_loop(folder: Path, blocks: list[Block], batch: int, compute: str) -> Iterator[float]:
    model = load_model(folder).train()
    names = {name for name, _ in model.named_parameters()}
    optimiser = Optimiser(model, names, AdamSettings(weight_decay=0.0), old_rows=None)
    settings = Settings(
        course=make_course(Schedule(1e-4, 10**6, 0), ()),
        batch_blocks=batch,
        block_tokens=len(blocks[0].tokens),
        micro_batch_blocks=batch,
        compute=compute,  # type: ignore[arg-type]
        layout="positions",
        seed=0,
        max_forgetting=1.0,
        probe_every=10**6,
        checkpoint_every=10**6,
        head=find_head(model),
    )
    step = 0
    while True:
        began = time.perf_counter()
        chosen = [blocks[(step * batch + number) % len(blocks)] for number in range(batch)]
        _accumulate(model, chosen, step, settings)
        optimiser.step(1e-4, optimiser.gradient_norm())
        yield time.perf_counter() - began
        step += 1


def trainer_seconds(folder: Path, rows: list[dict[str, Any]], batch: int, steps: int, compute: str) -> list[float]:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch, max_steps=steps + 1, per_device_train_batch_size=batch, learning_rate=1e-4,
            lr_scheduler_type="constant", max_grad_norm=1.0, weight_decay=0.0, logging_steps=10**6, save_strategy="no",
            report_to=[], use_cpu=not torch.cuda.is_available(), bf16=compute == "bf16", disable_tqdm=True,
            optim="adamw_torch_fused",
        )  # fmt: skip
        Trainer(model=load_model(folder), args=arguments, train_dataset=rows, callbacks=[Clock()]).train()  # type: ignore[arg-type]
    return [later - earlier for earlier, later in pairwise(ends)]


def packed_rows(blocks: list[Block]) -> list[dict[str, Any]]:
    rows = []
    for block in blocks:
        ids = torch.tensor(list(block.tokens))
        rows.append({"input_ids": ids, "labels": ids})
    return rows


def padded_rows(tokenizer: Any, texts: list[str], length: int) -> tuple[list[dict[str, Any]], float]:
    """One paragraph a row, cut and padded as most tutorials do; also the mean bytes of text in a row."""
    rows, size = [], 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:length]
        size += len(tokenizer.decode(ids).encode())
        gap = length - len(ids)
        rows.append({
            "input_ids": torch.tensor(ids + [0] * gap),
            "attention_mask": torch.tensor([1] * len(ids) + [0] * gap),
            "labels": torch.tensor(ids + [-100] * gap),
        })  # fmt: skip
    return rows, size / len(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--block-tokens", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--compute", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    try:
        import accelerate  # noqa: F401
    except ImportError:
        print("skipped: transformers.Trainer needs accelerate (`pip install accelerate`)")
        return 0
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        model, text = given.model, given.text
        if model is None or text is None:
            from tests.fixtures.tiny import tiny_corpus, tiny_model

            model = model or tiny_model(Path(scratch) / "model", width=256)
            text = text or tiny_corpus(Path(scratch) / "text", "hu", 300)
        compare(given, model, text)
    return 0


def compare(given: argparse.Namespace, model: Path, text: Path) -> None:
    tokenizer = load_tokenizer(model)
    texts = texts_of(text, 4000)
    blocks = pack(tokenizer, texts, given.block_tokens, 0)
    padded, padded_bytes = padded_rows(tokenizer, texts[: (given.steps + 1) * given.batch + 8], given.block_tokens)
    bytes_per_token = sum(len(one.encode()) for one in texts) / sum(len(block.tokens) for block in blocks)
    found: dict[str, list[float]] = {"langadapt": [], "trainer": [], "trainer padded": []}
    for _ in range(given.rounds):
        own = own_loop(model, blocks, given.batch, given.compute)
        next(own)
        found["langadapt"] += [next(own) for _ in range(given.steps)]
        own.close()
        seconds = trainer_seconds(model, packed_rows(blocks), given.batch, given.steps, given.compute)
        found["trainer"] += seconds
        found["trainer padded"] += trainer_seconds(model, padded, given.batch, given.steps, given.compute)
    best = {name: min(values) for name, values in found.items()}
    packed = given.batch * given.block_tokens
    useful = {name: packed * bytes_per_token / best[name] for name in ("langadapt", "trainer")}
    useful["trainer padded"] = given.batch * padded_bytes / best["trainer padded"]
    documents = Counter(len(block.starts) for block in blocks)
    print(f"{model}: {given.batch} x {given.block_tokens} tokens, {given.compute}, {given.threads} threads, "
          f"{sum(n * c for n, c in documents.items()) / len(blocks):.1f} documents a block")  # fmt: skip
    for name, value in best.items():
        print(
            f"  {name:15} {value:8.3f} s/step (of {len(found[name])})  {useful[name] / 1000:8.2f} kB of text a second"
        )
    print(f"  packed tokens a second: {best['trainer'] / best['langadapt']:.3f} of Trainer's (goal 0.98)")
    print(
        f"  useful bytes a second: {useful['langadapt'] / useful['trainer padded']:.2f} of padded Trainer's (goal 2.5)"
    )


if __name__ == "__main__":
    sys.exit(main())
