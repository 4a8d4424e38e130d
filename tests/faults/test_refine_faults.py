"""refine-embeddings is killed, signalled and poisoned; running the same command again must give the same bytes."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import langadapt
from langadapt.core import interrupt
from langadapt.core.artifact import partial_folder
from langadapt.core.errors import Interrupted, LangadaptError, ResourceError
from langadapt.train import distill
from tests.faults.test_train_faults import Case, Run, files_of, stop_after
from tests.faults.test_train_faults import start as start_run
from tests.fixtures import refined

STEPS = 15


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Wide enough that the order of sums decides the last bits; the head learns too."""
    folder = tmp_path_factory.mktemp("refine")
    place = refined.place(folder, width=256, tied=False)
    config = place.values(
        steps=STEPS,
        checkpoint_steps=4,
        next_token=0.5,
        micro_batch_snippets=2,
        learning_rate=1e-3,
        set_bytes=50,
        segment_bytes=50,
        context_bytes=50,
    )
    langadapt.refine_embeddings(out=folder / "reference", **config)
    return Case(config, files_of(folder / "reference"))


def start(folder: Path, case: Case, *extra: str) -> Run:
    return start_run(folder, case, *extra, verb="refine-embeddings")


def finish(folder: Path, case: Case) -> None:
    """Run the same command again; it must end with the bytes of the uninterrupted run."""
    interrupt._seen.clear()
    langadapt.refine_embeddings(out=folder / "out", **case.config)
    assert files_of(folder / "out") == case.reference
    assert not partial_folder(folder / "out").exists()


@pytest.mark.timeout(400)
def test_kill_9_again_and_again_then_the_same_bytes(tmp_path: Path, case: Case) -> None:
    # between two checkpoints; when one was read back
    for moment in ("training 6\n", "going on after step 4\n"):
        run = start(tmp_path, case)
        run.wait_for(moment)
        run.process.kill()
        assert run.end() == -signal.SIGKILL
    finish(tmp_path, case)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1)), "no step twice, none lost"


def test_kill_9_while_the_result_is_committed(tmp_path: Path, case: Case) -> None:
    # three checkpoints are committed before it
    assert start(tmp_path, case, "--kill", "manifest-durable", "4").end() == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    finish(tmp_path, case)


def test_a_signal_saves_a_checkpoint_within_a_step(tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, 2)
    with pytest.raises(Interrupted):
        langadapt.refine_embeddings(out=tmp_path / "out", **case.config)
    assert [path.name for path in (partial_folder(tmp_path / "out") / "checkpoints").iterdir()] == ["step-000002"]
    monkeypatch.undo()
    finish(tmp_path, case)


@pytest.fixture(autouse=True)
def _no_signal() -> None:
    interrupt._seen.clear()


def test_a_distance_that_is_not_a_number_stops_before_a_row_moves(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = distill.Distiller.compare, 0

    def poisoned(self: Any, snippets: Any) -> Any:
        nonlocal calls
        found = real(self, snippets)
        if torch.is_grad_enabled():
            calls += 1
            # one rehearsal, then two micro-batches a step: this is step 6
            found.squares.data.mul_(float("nan") if calls == 12 else 1.0)
        return found

    monkeypatch.setattr(distill.Distiller, "compare", poisoned)
    with pytest.raises(LangadaptError, match="not finite at step 6") as caught:
        langadapt.refine_embeddings(out=tmp_path / "out", **case.config)
    assert caught.value.exit_code == 1
    # nothing here can be branched from or skip places of a stream
    assert "--branch-from" not in str(caught.value.hint) and "--learning-rate" in str(caught.value.hint)
    partial = partial_folder(tmp_path / "out")
    report = json.loads((partial / "incident-000006" / "incident.json").read_text())
    assert report["positions"] == [20, 21, 22, 23]
    assert "=== position 20, snippets" in (partial / "incident-000006" / "text.txt").read_text()
    monkeypatch.undo()
    finish(tmp_path, case)


def test_memory_that_is_short_is_explained(tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: ...")

    monkeypatch.setattr(distill, "_picked", fail)
    with pytest.raises(ResourceError, match="tokens at once") as caught:
        langadapt.refine_embeddings(out=tmp_path / "out", **(case.config | {"held_out_snippets": 0}))
    assert "micro_batch_snippets" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rate", [1e3, 1e20])
def test_rows_that_ran_away_are_not_written(tmp_path: Path, case: Case, rate: float) -> None:
    with pytest.raises(LangadaptError) as caught:
        langadapt.refine_embeddings(out=tmp_path / "out", **(case.config | {"learning_rate": rate, "steps": 3}))
    assert "--learning-rate" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()
