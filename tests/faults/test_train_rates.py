"""cpt --lr-probe: what is picked, that the run is the plain run at that rate, and that a kill changes no byte."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import langadapt
from langadapt.core import interrupt
from langadapt.core.artifact import open_artifact, partial_folder
from langadapt.core.errors import ConfigError, Interrupted, TrainingFailed
from langadapt.train import loop, rates
from langadapt.train.rates import Tried, pick
from tests.faults.test_train_faults import Case, files_of, run_here
from tests.fixtures.tiny import tiny_corpus
from tests.fixtures.toys import ROOT

GUARDED = frozenset({"en"})


def tried(rate: float, hu: float, en: float, stopped: str | None = None) -> Tried:
    ends = {} if stopped else {"hu": {"start": 2.0, "end": 2.0 * hu}, "en": {"start": 1.0, "end": en}}
    return Tried(rate, ends, stopped)


@pytest.mark.parametrize(
    ("runs", "rate", "said"),
    [
        ([tried(1e-4, 0.95, 1.0), tried(3e-4, 0.9, 1.02), tried(1e-3, 0.8, 1.2)], 3e-4, "2 that keep what is guarded"),
        ([tried(1e-4, 0.95, 1.0), tried(3e-4, 0.9, 1.02), tried(1e-3, 0.8, 1.029)], 1e-3, "nothing higher was tried"),
        ([tried(1e-4, 0.9, 1.0), tried(3e-4, 0.9, 0.9)], 1e-4, "nothing lower was tried"),
        ([tried(1e-4, 0.9, 1.04), tried(3e-4, 0.8, 1.07)], 1e-4, "this one the least"),
        ([tried(1e-4, 0.99, 1.0), tried(3e-4, 0.8, 1.1), tried(1e-3, 1, 1, "not finite")], 1e-4, "only one that keeps"),
    ],
)
def test_the_target_decides_among_the_rates_that_keep_the_guard(runs: list[Tried], rate: float, said: str) -> None:
    choice = pick(runs, GUARDED, 50)
    assert choice.learning_rate == rate and said in choice.why
    table = rates.table_of(choice.content())
    assert [row[0] for row in table.rows if row[-1] == "picked"] == [f"{rate:g}"]


def test_when_every_rate_ruins_the_model_nothing_is_picked() -> None:
    with pytest.raises(TrainingFailed, match="the loss is not finite") as caught:
        pick([tried(1.0, 1, 1, "the loss is not finite at step 3"), tried(3.0, 1, 1, "worse")], GUARDED, 50)
    assert caught.value.exit_code == 1 and "--learning-rate" in str(caught.value.hint)


def test_rates_are_rounded_but_the_given_one_is_not() -> None:
    assert rates.rates_to_try(3e-4, (3.0, 0.3, 1.0)) == [9e-5, 3e-4, 9e-4]
    assert rates.rates_to_try(1.23456e-4, (1.0, 1.0, 0.3)) == [3.7e-5, 1.23456e-4]


# One thread here and in the processes that are killed: the last bits depend on it.
@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Case:
    folder = tmp_path_factory.mktemp("rates")
    corpora = {lang: str(tiny_corpus(folder / "text", lang, 150)) for lang in ("hu", "en")}
    data = langadapt.mix(
        out=folder / "data", model=tiny, corpora=corpora, replay={"en": 0.25}, block_tokens=32,
        document_separator="<|endoftext|>",
    )  # fmt: skip
    config = {
        "model": str(tiny), "data": str(data.path), "steps": 6, "batch_tokens": 128, "micro_batch_blocks": 2,
        "learning_rate": 3e-3, "checkpoint_steps": 2, "lr_probe": True, "lr_probe_steps": 4,
        "lr_probe_factors": [0.3, 1.0], "threads": 1,
    }  # fmt: skip
    langadapt.cpt(out=folder / "reference", **config)
    return Case(config, files_of(folder / "reference"))


def found_in(place: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((place / "lr_probe.json").read_text())
    return content


def test_the_run_is_the_plain_run_at_the_rate_that_was_picked(tmp_path: Path, case: Case, notes: list[str]) -> None:
    reference = Path(case.config["data"]).parent / "reference"
    found, facts = found_in(reference), open_artifact(reference).facts
    assert found == facts["lr_probe"] and found["learning_rate"] == facts["learning_rate"] == 3e-3
    assert [each["learning_rate"] for each in found["tried"]] == [9e-4, 3e-3]
    starts = [{name: ends["start"] for name, ends in each["probes"].items()} for each in found["tried"]]
    assert starts[0] == starts[1] and starts[0].keys() == {"hu", "en"}, "every rate begins with the same weights"
    ends = [each["probes"]["hu"]["end"] for each in found["tried"]]
    assert ends[1] < ends[0] < starts[0]["hu"]
    run_here(tmp_path / "plain", case, notes, lr_probe=False)
    for name in ("model.safetensors", "metrics.jsonl", "probes.json", "ledger.json"):
        assert (tmp_path / "plain" / name).read_bytes() == (reference / name).read_bytes(), name


@pytest.mark.parametrize(("stage", "count"), [("written", 1), ("renamed", 2), ("written", 4)])
def test_killed_at_a_checkpoint_of_either_part_it_ends_in_the_same_bytes(
    tmp_path: Path, case: Case, notes: list[str], stage: str, count: int
) -> None:
    # checkpoints: step 2 of the first rate, of the second, steps 2 and 4 of the run; then the result
    config = tmp_path / "config.json"
    config.write_text(json.dumps(case.config))
    command = [sys.executable, "-m", "tests.faults.launch", "cpt", str(tmp_path / "out"), str(config)]
    done = subprocess.run([*command, "--kill", stage, str(count)], cwd=ROOT, capture_output=True, timeout=150)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run_here(tmp_path / "out", case, notes)
    assert files_of(tmp_path / "out") == case.reference
    assert not partial_folder(tmp_path / "out").exists()


def die_after_the_first_rate(out: str) -> None:
    """Run in a process of its own: killed as soon as the first rate is on record."""
    real = rates.replace_durably

    def record_and_die(path: Path, content: str) -> None:
        real(path, content)
        os.kill(os.getpid(), signal.SIGKILL)

    rates.replace_durably = record_and_die
    run_here(Path(out), Case(json.loads(sys.argv[1]), {}), [])


def test_killed_between_two_rates_the_first_is_not_tried_again(tmp_path: Path, case: Case, notes: list[str]) -> None:
    code = f"import tests.faults.test_train_rates as t; t.die_after_the_first_rate({str(tmp_path / 'out')!r})"
    command = [sys.executable, "-c", code, json.dumps(case.config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=150)
    assert done.returncode == -signal.SIGKILL, done.stderr
    record = partial_folder(tmp_path / "out") / "lr_probe.json"
    assert [each["learning_rate"] for each in json.loads(record.read_text())["tried"]] == [9e-4]
    run_here(tmp_path / "out", case, notes)
    assert [note for note in notes if note.startswith("trying")] == ["trying learning rate 0.003 for 4 steps"]
    assert files_of(tmp_path / "out") == case.reference
    assert not partial_folder(tmp_path / "out").exists()


def test_stopped_by_a_signal_within_a_rate_it_goes_on_from_there(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = loop._accumulate, []

    def stop(*values: Any) -> float:
        done.append(values[2])
        if len(done) == 6:  # a rehearsal, then four steps; the rehearsal of the next rate
            interrupt._seen.append(signal.SIGTERM)
        return real(*values)

    monkeypatch.setattr(loop, "_accumulate", stop)
    with pytest.raises(Interrupted):
        run_here(tmp_path / "out", case, notes)
    monkeypatch.undo()
    interrupt._seen.clear()
    run_here(tmp_path / "out", case, notes)
    assert files_of(tmp_path / "out") == case.reference


def test_a_rate_that_ruins_the_model_is_recorded_and_not_picked(tmp_path: Path, case: Case, notes: list[str]) -> None:
    run_here(tmp_path / "out", case, notes, lr_probe_factors=[1.0, 1e12])
    found = found_in(tmp_path / "out")
    assert found["learning_rate"] == 3e-3 and found["tried"][1]["probes"] == {}
    assert found["tried"][1]["stopped"]
    assert any("the only one that keeps the guard" in note for note in notes)
    # one who waits for an hour sees what each rate gave, and what holds for all of them once
    assert any(
        re.fullmatch(r"learning rate 0\.003: bits per byte of en \d\.\d{3} \(.*%\), hu .*", note) for note in notes
    )
    assert any(note.startswith("learning rate 3e+09 was stopped: ") for note in notes)
    assert sum("documents are kept apart" in note for note in notes) == 1


def test_it_is_refused_where_nothing_can_be_compared(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="not with `stages`"):
        run_here(tmp_path / "out", case, notes, stages=[{"share": 0.5, "strategy": "embeddings"}, {}])
    with pytest.raises(ConfigError, match="held-out text of the language"):
        monkeypatch.setattr("langadapt.train.probe.langs_of", lambda path: {"en": "en"})
        run_here(tmp_path / "out", case, notes)
