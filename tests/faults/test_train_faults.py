"""Training is killed, signalled, poisoned and starved; running the same command again must give the same bytes.

Runs are forked from this process: torch is loaded already, so a run starts at once and can be killed at any moment.
"""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import langadapt
from langadapt.core import interrupt
from langadapt.core.artifact import open_artifact, partial_folder
from langadapt.core.errors import Interrupted, LangadaptError, ResourceError
from langadapt.core.io import sha256_file
from langadapt.core.progress import Note
from tests.faults import launch
from tests.faults.toy import STAGES
from tests.fixtures.tiny import tiny_corpus

# Runs are forked from a server that has imported everything and computed nothing: a child of this process could wait
# for ever on the threads of its parent's pool, and a fresh start costs seconds a run.
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["torch", "transformers", "langadapt.train.session", "tests.faults.launch"])
STEPS = 24


@dataclass(frozen=True)
class Case:
    """Inputs of a run, and the digests of all hashed files of an uninterrupted one."""

    config: dict[str, Any]
    reference: dict[str, str]


def files_of(place: Path, kind: str = "model") -> dict[str, str]:
    artifact = open_artifact(place, kind)
    artifact.verify()
    return {name: sha256_file(place / name) for name in [*artifact.manifest["files"], "artifact.json"]}


def make_case(folder: Path, model: Path, **more: Any) -> Case:
    corpora = {lang: str(tiny_corpus(folder / "text", lang, 60)) for lang in ("hu", "en")}
    data = langadapt.mix(
        out=folder / "data", model=model, corpora=corpora, replay={"en": 0.25}, block_tokens=32,
        document_separator="<|endoftext|>",
    )  # fmt: skip
    config = {
        "model": str(model), "data": str(data.path), "steps": STEPS, "batch_tokens": 128, "micro_batch_blocks": 2,
        "learning_rate": 3e-3, "checkpoint_steps": 5, "probe_every": 10,
    } | more  # fmt: skip
    langadapt.cpt(out=folder / "reference", **config)
    return Case(config, files_of(folder / "reference"))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Case:
    return make_case(tmp_path_factory.mktemp("train"), tiny)


def target(out: Path, config: Path, log: Path, extra: list[str], verb: str = "cpt") -> None:
    # as the reference was made: the server may have been started while a test had set another number
    torch.set_num_threads(1)
    with log.open("w") as sys.stdout, log.with_suffix(".err").open("w") as sys.stderr:
        code = launch.main([verb, str(out), str(config), *extra])
    os._exit(code)


@dataclass
class Run:
    """A forked run; `log` holds one line an event."""

    process: Any
    log: Path

    def wait_for(self, text: str, seconds: float = 150.0) -> None:
        end = time.monotonic() + seconds
        while text not in (self.log.read_text() if self.log.exists() else ""):
            assert time.monotonic() < end, f"`{text}` never came"
            assert self.process.is_alive(), self.log.with_suffix(".err").read_text()
            time.sleep(0.002)

    def wait_for_lines(self, count: int, seconds: float = 150.0) -> None:
        """Until it has told so many events, or has ended."""
        end = time.monotonic() + seconds
        while self.process.is_alive() and (self.log.read_text().count("\n") if self.log.exists() else 0) < count:
            assert time.monotonic() < end, "it stands still"
            time.sleep(0.002)

    def end(self, seconds: float = 150.0) -> int:
        self.process.join(seconds)
        assert self.process.exitcode is not None
        return int(self.process.exitcode)


def start(
    folder: Path, case: Case, *extra: str, verb: str = "cpt", job: Callable[..., None] = target, **changes: Any
) -> Run:
    config = folder / "config.json"
    config.write_text(json.dumps(case.config | changes))
    log = folder / f"log-{time.monotonic_ns()}"
    process = FORK.Process(target=job, args=(folder / "out", config, log, list(extra), verb))
    process.start()
    return Run(process, log)


def finish(folder: Path, case: Case) -> None:
    """Run the same command again; it must end with the bytes of the uninterrupted run."""
    run = start(folder, case)
    assert run.end() == 0, run.log.with_suffix(".err").read_text()
    assert files_of(folder / "out") == case.reference
    assert not partial_folder(folder / "out").exists()


def kill_at_random(folder: Path, case: Case, rounds: int) -> None:
    moments = random.Random(7)
    killed = 0
    for _ in range(rounds):
        run = start(folder, case)
        run.wait_for_lines(moments.randint(1, 8))  # counted in events: seconds would depend on how busy the machine is
        run.process.join(moments.uniform(0, 0.05))
        if run.process.is_alive():
            run.process.kill()
            killed += 1
        assert run.end() in (-signal.SIGKILL, 0)
    assert killed >= rounds // 2
    finish(folder, case)
    lines = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]
    steps = list(range(1, case.config["steps"] + 1))
    assert [line["step"] for line in lines if "loss" in line] == steps, "no step twice, none lost"


def test_kill_at_random_moments(tmp_path: Path, case: Case) -> None:
    kill_at_random(tmp_path, case, 8)


def test_kill_at_random_moments_where_the_last_bits_depend_on_the_order_of_sums(tmp_path: Path, wide: Path) -> None:
    kill_at_random(tmp_path, make_case(tmp_path, wide), 3)


@pytest.mark.parametrize("stage", STAGES)
def test_kill_at_each_stage_of_writing_a_checkpoint(tmp_path: Path, case: Case, stage: str) -> None:
    # the run itself takes the lock and opens its folder first
    count = "3" if stage in ("locked", "opened") else "2"
    assert start(tmp_path, case, "--kill", stage, count).end() == -signal.SIGKILL
    kept = partial_folder(tmp_path / "out") / "checkpoints"
    assert open_artifact(kept / "step-000005", "checkpoint").facts == {"step": 5}
    assert (kept / "step-000010" / "artifact.json").exists() == (stage in ("renamed", "swept"))
    finish(tmp_path, case)


@pytest.mark.parametrize("stage", STAGES[2:])
def test_kill_at_each_stage_of_writing_the_result(tmp_path: Path, case: Case, stage: str) -> None:
    # four checkpoints are committed before it
    assert start(tmp_path, case, "--kill", stage, "5").end() == -signal.SIGKILL
    if stage in ("renamed", "swept"):
        assert files_of(tmp_path / "out") == case.reference
    finish(tmp_path, case)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_within_a_step(tmp_path: Path, case: Case, number: int) -> None:
    run = start(tmp_path, case)
    run.wait_for("training 7\n")
    os.kill(run.process.pid, number)
    began = time.monotonic()
    assert run.end() == 75
    # a step takes milliseconds and all of them a few seconds: this tells "at the next step" from "never", not speed
    assert time.monotonic() - began < 60
    said = run.log.with_suffix(".err").read_text()
    assert signal.Signals(number).name in said and "same command again" in said
    steps = int(run.log.read_text().split("training ")[-1].split()[0])
    assert (partial_folder(tmp_path / "out") / "checkpoints" / f"step-{steps:06d}").is_dir()
    finish(tmp_path, case)


def test_a_signal_while_probing_loses_nothing(tmp_path: Path, case: Case) -> None:
    run = start(tmp_path, case)
    run.wait_for("training 10\nbits per byte")
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.end() in (75, 0)
    finish(tmp_path, case)


def pausing(out: Path, config: Path, log: Path) -> None:
    """A run that sleeps where its second checkpoint is about to be complete."""
    seen = 0

    def pause(name: str) -> None:
        nonlocal seen
        seen += name == "files-durable"
        if name == "files-durable" and seen == 2:
            log.with_suffix(".paused").touch()
            time.sleep(60)

    launch.artifacts.stage = pause
    target(out, config, log, [])


def test_a_second_signal_ends_it_at_once_and_the_checkpoint_before_stays(tmp_path: Path, case: Case) -> None:
    config, log = tmp_path / "config.json", tmp_path / "log"
    config.write_text(json.dumps(case.config))
    run = Run(FORK.Process(target=pausing, args=(tmp_path / "out", config, log)), log)
    run.process.start()
    run.wait_for("training 6\n")
    os.kill(run.process.pid, signal.SIGTERM)
    while not log.with_suffix(".paused").exists():
        time.sleep(0.005)
        assert run.process.is_alive()
    os.kill(run.process.pid, signal.SIGTERM)
    began = time.monotonic()
    # it pauses for 60 s: ending before that means ending at once
    assert run.end() == 143 and time.monotonic() - began < 30
    kept = partial_folder(tmp_path / "out") / "checkpoints"
    open_artifact(kept / "step-000005", "checkpoint").verify()
    finish(tmp_path, case)


def run_here(out: Path, case: Case, notes: list[str], **changes: Any) -> None:
    def listen(event: object) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    langadapt.cpt(out=out, listener=listen, **(case.config | changes))


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """As if a signal had come when `steps` steps were done."""
    from langadapt.train.journal import Journal

    add = Journal.add_step

    def counted(self: Journal, step: int, *rest: Any) -> None:
        add(self, step, *rest)
        if step == steps:
            interrupt._seen.append(signal.SIGTERM)

    monkeypatch.setattr(Journal, "add_step", counted)


def stopped(
    out: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch, steps: int, **changes: Any
) -> None:
    """A run that ends after `steps` steps as if a signal had come; nothing of the signal is left."""
    stop_after(monkeypatch, steps)
    with pytest.raises(LangadaptError):
        run_here(out, case, notes, **changes)
    monkeypatch.undo()
    interrupt._seen.clear()


def poison_step_14(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of its last micro-batch is not a number."""
    from langadapt.train import objective

    real, calls = objective.loss_of, 0

    def poisoned(*values: Any) -> Any:
        nonlocal calls
        calls += 1
        # one rehearsal, then two micro-batches a step: this is step 14
        return real(*values) * (float("nan") if calls == 28 else 1.0)

    monkeypatch.setattr(objective, "loss_of", poisoned)


def test_a_loss_that_is_not_a_number_stops_before_the_weights_move(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_step_14(monkeypatch)
    with pytest.raises(LangadaptError, match="not finite at step 14") as caught:
        run_here(tmp_path / "out", case, notes)
    assert caught.value.exit_code == 1
    partial = partial_folder(tmp_path / "out")
    report = json.loads((partial / "incident-000014" / "incident.json").read_text())
    assert report["loss"] == "nan" and report["positions"] == [52, 53, 54, 55]
    assert "nan" in report["gradient_norms"].values()
    assert "=== position 52" in (partial / "incident-000014" / "text.txt").read_text()
    assert [path.name for path in sorted((partial / "checkpoints").glob("step-*[0-9]"))] == [
        "step-000005",
        "step-000010",
    ]
    monkeypatch.undo()
    finish(tmp_path, case)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(tmp_path / "out", case, notes, monkeypatch, 12)
    newest = partial_folder(tmp_path / "out") / "checkpoints" / "step-000012"
    file = next(newest.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))
    run_here(tmp_path / "out", case, notes)
    assert any("`step-000012` is passed over" in note for note in notes)
    assert "going on after step 10" in notes
    assert files_of(tmp_path / "out") == case.reference


def test_going_on_with_other_threads_is_said(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(tmp_path / "out", case, notes, monkeypatch, 3)
    monkeypatch.setattr("langadapt.train.session.torch.get_num_threads", lambda: 2)
    run_here(tmp_path / "out", case, notes)
    assert any("began with threads 1 and goes on with 2" in note for note in notes)
    monkeypatch.undo()
    assert torch.get_num_threads() == 1, "a run without a number of its own leaves the number alone"


def test_a_signal_while_the_result_is_written_costs_no_training(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training that took long is saved before the result is written; going on then trains nothing again."""
    from langadapt.train import loop, trainable

    monkeypatch.setattr(loop, "WORTH_SAVING_SECONDS", -1.0)
    write = trainable.write_model

    def stopped(*given: Any, **more: Any) -> None:
        raise Interrupted("stopped by SIGTERM")

    monkeypatch.setattr(trainable, "write_model", stopped)
    with pytest.raises(Interrupted):
        run_here(tmp_path / "out", case, notes)
    monkeypatch.setattr(trainable, "write_model", write)
    monkeypatch.setattr(loop, "_accumulate", lambda *given: pytest.fail("a step was trained again"))
    run_here(tmp_path / "out", case, notes)
    assert files_of(tmp_path / "out") == case.reference


def test_where_checkpoints_fall_changes_nothing(tmp_path: Path, case: Case, notes: list[str]) -> None:
    run_here(tmp_path / "out", case, notes, checkpoint_steps=7, keep_checkpoints=1)
    assert files_of(tmp_path / "out") == case.reference


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: ...")])
def test_out_of_memory_is_explained(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*values: Any) -> Any:
        raise error

    monkeypatch.setattr("langadapt.train.objective.loss_of", fail)
    with pytest.raises(ResourceError, match="64 tokens at once") as caught:
        run_here(tmp_path / "out", case, notes)
    assert caught.value.exit_code == 5 and "micro_batch_blocks" in str(caught.value.hint)


def test_data_made_with_another_tokenizer_are_refused(tmp_path: Path, case: Case, notes: list[str]) -> None:
    from tests.fixtures.tiny import tiny_model

    other = tiny_model(tmp_path / "other", split_digits=False)
    with pytest.raises(LangadaptError, match="another tokenizer") as caught:
        run_here(tmp_path / "out", case, notes, model=str(other))
    assert caught.value.exit_code == 3
