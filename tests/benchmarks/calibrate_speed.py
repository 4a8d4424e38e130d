"""Calibration beside a bare forward pass, and its price beside what it takes.

    python -m tests.benchmarks.calibrate_speed [--model DIR] [--text FILE.jsonl] [--batches 8] [--compute bf16] \\
        [--threads 1] [--tokens 20000]

Same model, same batches, same process, one after the other.

Prints packed tokens a second of a forward pass with logits, of the body alone (what calibration needs of it), and of
calibration with and without `taylor` (goal: at least 0.9 of a forward pass with logits). Batches alternate between
them, and the fastest of each counts, so that another job on the machine disturbs all alike. Without arguments a small
made-up model is used: its ratio says nothing about real sizes.

Then `calibrate --dry-run`, `calibrate` itself on `--tokens` tokens (0: not at all) and the dry run again, each in a
process of its own: seconds and memory predicted, taken, and predicted / taken. A price is timed by the wall clock, so
this says something only where nothing else runs; where something does, that is printed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from langadapt.model.anatomy import anatomy
from langadapt.model.load import load_model, load_tokenizer, resolve
from langadapt.model.separator import candidates
from langadapt.select.measure import BATCH_TOKENS, Meter, Window, batches
from langadapt.select.windows import Cut, Read, windows


def cut(folder: Path, text: Path, length: int, most: int) -> list[list[Window]]:
    backend = load_tokenizer(folder).backend_tokenizer
    opener = next(iter(candidates(load_tokenizer(folder)).values()), None)
    texts = (json.loads(line)["text"] for line in text.open(encoding="utf-8"))

    def encode(group: list[str]) -> list[list[int]]:
        return [item.ids for item in backend.encode_batch_fast(group, add_special_tokens=False)]

    specials = frozenset() if opener is None else frozenset([opener])
    source = windows(texts, encode, Cut(length, most * BATCH_TOKENS["cpu"], opener, specials), Read())
    return list(islice(batches(source, BATCH_TOKENS["cpu"]), most))


def bare(model: Any, batch: list[Window], *, logits: bool) -> None:
    ids = torch.tensor([window.ids.tolist() for window in batch])
    with torch.inference_mode():
        (model if logits else model.base_model)(input_ids=ids, use_cache=False)


def seconds(job: Callable[[], object]) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def compare(folder: Path, text: Path, given: argparse.Namespace) -> None:
    dtype = torch.bfloat16 if given.compute == "bf16" else torch.float32
    model = load_model(folder, dtype=dtype)
    parts = anatomy(model)
    chosen = [batch for batch in cut(folder, text, given.window_tokens, given.batches + 1) if len(batch[0].ids)]
    plain, taylor = Meter(model, parts), Meter(model, parts, taylor=True)
    jobs: dict[str, Callable[[list[Window]], object]] = {
        "forward pass": lambda batch: bare(model, batch, logits=True),
        "body alone": lambda batch: bare(model, batch, logits=False),
        "calibration": plain.add,
        "with taylor": taylor.add,
    }
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for number, batch in enumerate(chosen):
        for name, job in jobs.items():
            took = seconds(lambda job=job, batch=batch: job(batch))  # type: ignore[misc]
            if number:  # the first batch of a meter is read three times
                found[name].append(took)
    tokens = sum(len(window.ids) for window in chosen[0])
    best = {name: min(values) for name, values in found.items()}
    print(f"{folder}: {tokens} tokens a batch, {given.compute}, {given.threads} thread(s)")
    for name, took in best.items():
        ratio = best["forward pass"] / took
        print(f"  {name:13} {tokens / took:9,.0f} tokens a second, {ratio:.3f} of a forward pass")
    print("  goal for calibration: 0.9")


def priced(command: list[str]) -> dict[str, Any]:
    done = subprocess.run([*command, "--dry-run", "--json"], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def price(folder: Path, text: Path, given: argparse.Namespace, out: Path) -> None:
    """The price before and after, what the run takes, and the ratio of both."""
    command = [sys.executable, "-m", "langadapt", "calibrate", str(folder), f"hu={text}"]
    command += ["--tokens", str(given.tokens), "--window-tokens", str(given.window_tokens)]
    command += ["--compute", given.compute, "-o", f"threads={given.threads}"]
    prices = [priced([*command, "--out", str(out)])]
    with (out.parent / "calibrate.log").open("w") as log:
        began = time.perf_counter()
        running = subprocess.Popen([*command, "--out", str(out)], stdout=log, stderr=log)
        _, status, used = os.wait4(running.pid, 0)
        taken = time.perf_counter() - began
        running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise SystemExit((out.parent / "calibrate.log").read_text())
    tokens = json.loads((out / "artifact.json").read_text())["facts"]["languages"]["hu"]["tokens"]
    prices.append(priced([*command, "--out", f"{out}-again"]))
    # not `used.ru_maxrss`: that begins with what this process held when it forked
    peak = json.loads((out / "run.json").read_text())["peak_memory_bytes"] / 1e9
    print(f"price of calibrate, {tokens:,} tokens: predicted, taken, predicted / taken")
    for when, found in zip(("before", "after"), prices, strict=True):
        seconds, memory = found["seconds"], found["memory_bytes"] / 1e9
        busy = found["rows"].get("timed while busy", "with nothing else running").partition(";")[0]
        print(f"  {when:6} {seconds:7.1f} s  {taken:7.1f} s  {seconds / taken:.2f}    "
              f"{memory:.2f} GB  {peak:.2f} GB  {memory / peak:.2f}    {busy}")  # fmt: skip
    print(f"  processor time of the run: {used.ru_utime + used.ru_stime:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=str)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--window-tokens", type=int, default=512)
    parser.add_argument("--compute", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=20_000)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        if given.model is None or given.text is None:
            from tests.fixtures.tiny import tiny_corpus, tiny_model

            folder = tiny_model(Path(scratch) / "model", width=256, layers=4)
            text = tiny_corpus(Path(scratch) / "text", "hu", 400)
        else:
            folder, text = resolve(given.model), given.text
        if given.batches:
            compare(folder, text, given)
        if given.tokens:
            price(folder, text, given, Path(scratch) / "statistics")
    return 0


if __name__ == "__main__":
    sys.exit(main())
