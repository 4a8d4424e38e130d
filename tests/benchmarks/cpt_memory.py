"""Peak memory of training: what the formula of `cpt --dry-run` says against what a run of two steps takes.

`python -m tests.benchmarks.cpt_memory --model DIR_OR_GGUF --text FILE.jsonl [--only NAME ...] [--threads 1]`

Each configuration runs in a process of its own, and the peak of that whole process counts: loading, probes, training,
writing. Prints predicted, measured and their ratio; exit 1 where one is off by more than 15 %.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import langadapt
from langadapt.core import verb as verbs
from langadapt.core.inputs import resolve_inputs
from langadapt.core.validate import validate
from langadapt.train import cost

TOLERANCE = 0.15
# 4 blocks of 256 tokens a step.
USUAL: dict[str, Any] = {"steps": 2, "batch_tokens": 1024, "micro_batch_blocks": 4, "compute": "bf16", "probe_every": 2}
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "full, fp32": {"compute": "fp32"},
    "full, one block at once": {"micro_batch_blocks": 1},
    "gradient checkpointing": {"gradient_checkpointing": "on"},
    "gradient checkpointing, fp32": {"gradient_checkpointing": "on", "compute": "fp32"},
    "embeddings": {"strategy": "embeddings"},
    "lora": {"strategy": "lora"},
    "lora, fp32": {"strategy": "lora", "compute": "fp32"},
    "lora without tables": {"strategy": "lora", "strategy_options": {"train_tables": False}},
    "lora, gradient checkpointing": {"strategy": "lora", "gradient_checkpointing": "on"},
    "lora, 8 blocks at once, fp32": {
        "strategy": "lora", "compute": "fp32", "batch_tokens": 2048, "micro_batch_blocks": 8
    },
    "half of the columns": {"strategy": "random"},
    "half of the columns, fp32": {"strategy": "random", "compute": "fp32"},
    "1 % of the neurons, no tables": {
        "strategy": "random", "strategy_options": {"unit": "neurons", "ratio": 0.99, "tables": "freeze"}
    },
    "1 % of the neurons, no tables, fp32": {
        "strategy": "random", "strategy_options": {"unit": "neurons", "ratio": 0.99, "tables": "freeze"},
        "compute": "fp32",
    },
    "8bit": {"moments": "8bit", "compile": True},
    "bf16 weights, 8bit": {"weights": "bf16", "moments": "8bit", "compile": True},
    "16 blocks at once": {"batch_tokens": 4096, "micro_batch_blocks": 16},
    "16 blocks, gradient checkpointing": {
        "batch_tokens": 4096, "micro_batch_blocks": 16, "gradient_checkpointing": "on"
    },
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """Bytes of a configuration, beforehand and afterwards."""

    name: str
    predicted: int
    peak: int

    @property
    def ratio(self) -> float:
        """Above 1: the run took less than was said."""
        return self.predicted / self.peak


def make_data(model: str, text: Path, folder: Path, *, documents: int = 300) -> Path:
    """A data artifact of the first documents of a file."""
    some = folder / "some.jsonl"
    with text.open(encoding="utf-8") as file:
        some.write_text("".join(line for line, _ in zip(file, range(documents), strict=False)), encoding="utf-8")
    made = langadapt.mix(
        out=folder / "data", model=model, corpora={"hu": str(some)}, block_tokens=256,
        document_separator="<|endoftext|>",
    )  # fmt: skip
    return made.path


def predict(config: Mapping[str, Any]) -> int:
    """Memory as the dry run says it; nothing is timed."""
    verb = verbs.load("cpt")
    checked = validate(verb.config, dict(config))
    timed = cost.step_seconds
    cost.step_seconds = lambda *values, **more: 1.0  # type: ignore[assignment]
    try:
        found = verb.estimate(checked, resolve_inputs(checked))
    finally:
        cost.step_seconds = timed
    return int(found.memory_bytes or 0)


def measure(config: Mapping[str, Any], folder: Path) -> int:
    """Peak of a whole run in a process of its own."""
    written = folder / "config.json"
    written.write_text(json.dumps(config))
    out = folder / "out"
    command = [sys.executable, "-m", "tests.faults.launch", "cpt", str(out), str(written)]
    limited = os.environ | {"OMP_NUM_THREADS": str(config["threads"])}
    done = subprocess.run(command, env=limited, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-2000:])
    return int(json.loads((out / "run.json").read_text())["peak_memory_bytes"])


def compare(model: str, data: Path, name: str, *, threads: int = 1) -> Measured:
    """One configuration, predicted and measured."""
    config = USUAL | CASES[name] | {"model": model, "data": str(data), "threads": threads}
    with tempfile.TemporaryDirectory() as scratch:
        return Measured(name, predict(config), measure(config, Path(scratch)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=list(CASES))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        data = make_data(given.model, given.text, Path(scratch))
        print(f"{'':34} {'predicted':>10} {'measured':>10} {'ratio':>6}")
        for name in given.only or CASES:
            found = compare(given.model, data, name, threads=given.threads)
            worst = max(worst, abs(found.ratio - 1))
            print(
                f"{name:34} {found.predicted / 1e9:7.2f} GB {found.peak / 1e9:7.2f} GB {found.ratio:6.2f}", flush=True
            )
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
