"""What each strategy learns of a new language and what it costs the old one: bits per byte after the same short run.

    python -m tests.benchmarks.strategy_quality WORK --model FOLDER_OR_GGUF --target hu=TEXT --source en=TEXT \\
        --other TEXT [--lid FILE] [--size 6k] [--seeds 3] [--steps 100] [--replay 0.2] [--threads 2] \\
        [--only ARM/SEED]... [--again] [--dry-run] [--peaks]
    python -m tests.benchmarks.strategy_quality WORK --table docs/which-strategy.md

A cell is an arm and a seed: `cpt` for `--steps` steps of 1,024 tokens from one model with new tokens and their rows,
then what `evaluate` scores, on held-out text of the target, of the replayed source, and of another domain; the base is
scored once. What a cell gave is appended to WORK/results.jsonl; one that is there is left out unless `--again`, and one
that was killed goes on where it was, so the same command can be run until all is done. `--only` takes wild cards
(`ssu/*`). Text is raw: WORK/steps holds what the product's own verbs make of it, once for all cells (prepare,
extend-vocab, init-embeddings, mix, calibrate).
`--peaks` makes no cells: it measures the memory of two steps of each arm, in fp32 on the CPU.

Seeds change the order of the data and what is drawn at random. All arms of a seed see the same stream, but those that
are about the stream (`no-replay`, `curriculum`). Learning rates are those that the product chooses by itself.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.core.units import parse_bytes
from tests.benchmarks.cells import add_result, fill, kept, pair, results, say, wanted
from tests.benchmarks.strategy_scores import scores_of
from tests.benchmarks.strategy_table import BEGIN, table

STEP_TOKENS = 1024
# Of a number that moves: its master, its gradient and two moments, 4 bytes each.
_STATE_BYTES = 16
# And of its moving average, where there is one.
_AVERAGE_BYTES = 4
# Moments and checkpoints are there after the first.
_PEAK_STEPS = 2
SETS = ("target", "source", "other")


@dataclass(frozen=True)
class Arm:
    """A strategy of cpt with `-o` settings of its own, and the settings of mix for the stream that it reads.

    `measured`: it is handed statistics of activations.
    """

    strategy: str = "full"
    options: tuple[str, ...] = ()
    mix: tuple[str, ...] = ()
    replay: bool = True
    measured: bool = False

    @property
    def stream(self) -> str:
        """Name of its data, the same for arms that read the same."""
        words = ["replay" if self.replay else "plain", *(text.split("=")[0] for text in self.mix)]
        return "-".join(words).replace("_", "-")


ARMS = {
    "full": Arm(),
    "no-replay": Arm(replay=False),
    "lora": Arm("lora"),
    "rows-1": Arm(options=("new_rows_factor=1",)),
    "hft": Arm("hft"),
    "random": Arm("random", ("strategy_options.ratio=0.5",)),
    "ssu": Arm("ssu", ("strategy_options.ratio=0.5",), measured=True),
    "subnetwork": Arm("subnetwork", measured=True),
    "shielded-lora": Arm("shielded-lora", measured=True),
    "ema": Arm(options=("ema=0.92", "ema_every=2")),
    "curriculum": Arm(mix=("replay_until=0.1", "planned_tokens={tokens}")),
}


class Bench:
    """Everything below the work folder."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.work: Path = given.work
        (self.target, self.target_text), (self.source, self.source_text) = given.target, given.source
        self.steps = self.work / "steps"

    def step(self, name: str, verb: str, *words: str) -> Path:
        """The finished artifact of one verb, made if it is not there."""
        place = self.steps / name
        if not (place / "artifact.json").is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            self.run(verb, *words, "--out", str(place))
        return place

    def run(self, verb: str, *words: str) -> None:
        """One verb in a process of its own. SystemExit with its code if it fails: the same command goes on."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.given.threads)}
        done = subprocess.run([sys.executable, "-m", "langadapt", verb, *words, "--quiet"], env=environment,
                              stdout=subprocess.DEVNULL)  # fmt: skip
        if done.returncode:
            say(f"langadapt {verb} {' '.join(words)}: exit {done.returncode}")
            raise SystemExit(done.returncode)

    def corpus(self, role: str) -> Path:
        """Text made ready; that of another domain is only scored."""
        lang, text, more = {
            "target": (self.target, self.target_text, ()),
            "source": (self.source, self.source_text, ()),
            "other": (self.source, self.given.other, ("-o", "held_out_share=1.0")),
        }[role]
        lid = ("-o", f"lid_model={self.given.lid}") if self.given.lid else ()
        return self.step(role, "prepare", str(text), "--lang", lang, *lid, *more)

    def init(self) -> Path:
        """The model that all cells begin with."""
        target, source, model = self.corpus("target"), self.corpus("source"), self.given.model
        tokenizer = self.step(
            "tokenizer", "extend-vocab", model, str(target), "--guard", str(source), "--size", self.given.size
        )
        return self.step("init", "init-embeddings", model, str(tokenizer))

    def data(self, arm: Arm, seed: int) -> Path:
        """The stream of a seed."""
        corpora = [f"{self.target}={self.corpus('target')}"]
        replay = ()
        if arm.replay:
            corpora.append(f"{self.source}={self.corpus('source')}")
            replay = ("--replay", f"{self.source}={self.given.replay}")
        tokens = self.given.steps * STEP_TOKENS
        options = [part for text in arm.mix for part in ("-o", text.format(tokens=tokens))]
        length = f"-{self.given.steps}" if arm.mix else ""
        return self.step(f"data/{arm.stream}{length}-{seed}", "mix", str(self.init()), *corpora, *replay, *options,
                         "--seed", str(seed))  # fmt: skip

    def statistics(self) -> Path:
        """Activations of the model that all cells begin with, on text of both languages."""
        corpora = (f"{self.target}={self.corpus('target')}", f"{self.source}={self.corpus('source')}")
        return self.step("statistics", "calibrate", str(self.init()), *corpora, "--tokens", self.given.calibrate_tokens)

    def train(self, arm: Arm, seed: int, out: Path, *words: str) -> None:
        """`cpt` of an arm, with more flags."""
        given = ("--statistics", str(self.statistics())) if arm.measured else ()
        options = [part for text in arm.options for part in ("-o", text)]
        # fmt: off
        self.run("cpt", str(self.init()), str(self.data(arm, seed)), "--out", str(out), "--strategy", arm.strategy,
                 *given, *options, "--lang", self.target, "-o", f"batch_tokens={STEP_TOKENS}", "--max-forgetting",
                 "1000", "-o", f"probe_every={self.given.steps}", "-o", "keep_checkpoints=1", "--seed", str(seed),
                 "-o", f"threads={self.given.threads}", *words)
        # fmt: on

    def peak(self, name: str) -> dict[str, Any]:
        """Most memory that a run of an arm holds, on the CPU, with loading and writing."""
        out = self.work / "peaks" / name
        shutil.rmtree(out, ignore_errors=True)
        self.train(ARMS[name], 0, out, "--steps", str(_PEAK_STEPS), "--device", "cpu", "--compute", "fp32")
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
        shutil.rmtree(out)
        return {"arm": name, "seed": 0, "peak_bytes": run["peak_memory_bytes"]}

    def cell(self, name: str, seed: int) -> dict[str, Any]:
        """One arm with one seed, from the shared model to its scores."""
        from langadapt.model.load import resolve

        arm, began, before = ARMS[name], time.monotonic(), os.getloadavg()[0]
        folder = self.work / "cells" / f"{name}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        trained = folder / "trained"
        if not (trained / "artifact.json").is_file():
            self.train(arm, seed, trained, "--steps", str(self.given.steps))
        base = kept(self.work / f"base-{self.given.set_bytes}.json", lambda: self.scores(resolve(self.given.model)))
        adapted = kept(folder / f"scores-{self.given.set_bytes}.json", lambda: self.scores(trained))
        found = {
            "arm": name,
            "seed": seed,
            "steps": self.given.steps,
            "set_bytes": self.given.set_bytes,
            "langs": [self.target, self.source, self.source],
        }
        found |= {
            "scores": {
                role: {"bytes": one["bytes"], "base": one["nats"], "adapted": adapted["sets"][role]["nats"]}
                for role, one in base["sets"].items()
            },
            **costs(trained, averaged=any(text.startswith("ema=") for text in arm.options)),
            "icl": {"base": base["icl"], "adapted": adapted["icl"]},
            "load": [before, os.getloadavg()[0]],
        }
        found["seconds_of_cell"] = round(time.monotonic() - began)
        shutil.rmtree(folder)
        return found

    def scores(self, model: Path) -> dict[str, Any]:
        """Those of the base or of a trained model, behind the token that stands between the documents of the data."""
        from langadapt.model.load import load_tokenizer

        data = json.loads((self.data(Arm(), 0) / "artifact.json").read_text(encoding="utf-8"))
        separator = load_tokenizer(self.init()).convert_ids_to_tokens(data["facts"]["document_separator"])
        return scores_of(model, str(separator), {role: self.corpus(role) for role in SETS}, self.given.set_bytes)

    def lacks(self, arm: Arm) -> str | None:
        """What this version of langadapt does not have of it."""
        from langadapt.core.registry import method_names, verb_names
        from langadapt.core.verb import load

        keys = {"cpt": arm.options, "mix": arm.mix}
        unknown = [f"`{verb}` has no `{text.split('=')[0]}`" for verb, texts in keys.items() for text in texts
                   if text.split("=")[0].split(".")[0] not in load(verb).config.model_fields]  # fmt: skip
        if arm.strategy not in method_names("select"):
            return f"no strategy `{arm.strategy}`"
        if arm.measured and "calibrate" not in verb_names():
            return "no verb `calibrate`"
        return unknown[0] if unknown else None


def costs(trained: Path, *, averaged: bool) -> dict[str, Any]:
    """Numbers that moved, bytes of masters, gradients and moments, seconds of the whole run."""
    facts = json.loads((trained / "artifact.json").read_text(encoding="utf-8"))["facts"]
    run = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    timings = map(json.loads, (trained / "timings.jsonl").read_text(encoding="utf-8").splitlines())
    steps = sorted(entry["seconds"] for entry in timings if entry["name"] == "train_step")
    return {
        "trained": facts["trained_parameters"],
        "state_bytes": facts["trained_parameters"] * (_STATE_BYTES + (_AVERAGE_BYTES if averaged else 0)),
        "learning_rate": facts["learning_rate"],
        "seconds": run["seconds"],
        "step_seconds": steps[len(steps) // 2] if steps else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--target", type=pair)
    parser.add_argument("--source", type=pair)
    parser.add_argument("--other")
    parser.add_argument("--lid")
    parser.add_argument("--size", default="6k")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--replay", type=float, default=0.2)
    parser.add_argument("--set-bytes", type=parse_bytes, default=20_000)
    parser.add_argument("--calibrate-tokens", default="300k")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--dry-run", action="store_true", help="say which cells are to be made")
    parser.add_argument("--peaks", action="store_true", help="measure memory instead")
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    if given.table:
        found = results(given.work, "arm")
        if not found:
            parser.error(f"{given.work} holds no results")
        in_order = {cell: found[cell] for name in ARMS for cell in found if cell[0] == name}
        peaks = {name: entry["peak_bytes"] for (name, _), entry in results(given.work / "peaks", "arm").items()}
        fill(given.table, BEGIN, table(in_order, peaks))
        return
    if not (given.model and given.target and given.source and given.other):
        parser.error("--model, --target, --source and --other are needed")
    bench = Bench(given)
    kept = given.work / "peaks" if given.peaks else given.work
    asked = {} if given.peaks else {"steps": given.steps, "set_bytes": given.set_bytes}
    there = {} if given.again else results(kept, "arm")
    lacking = {name: why for name, arm in ARMS.items() if (why := bench.lacks(arm)) is not None}
    for name, why in lacking.items():
        say(f"{name}: left out, {why}")
    for name, seed in wanted(list(ARMS), 1 if given.peaks else given.seeds, given.only):
        done = there.get((name, seed))
        if name in lacking or (done is not None and asked.items() <= done.items()):
            continue
        say(f"{time.strftime('%H:%M')} {name}, seed {seed}")
        if given.dry_run:
            continue
        add_result(kept, bench.peak(name) if given.peaks else bench.cell(name, seed))


if __name__ == "__main__":
    main()
