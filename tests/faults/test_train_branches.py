"""Going on from a checkpoint of another run: the run that was never branched, or a run over other data."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import langadapt
from langadapt.core.artifact import Artifact, open_artifact
from langadapt.core.errors import ConfigError, DataError, LangadaptError
from langadapt.train.journal import Journal
from langadapt.train.loop import _watch
from tests.faults.test_train_faults import Case, files_of, finish, make_case, run_here, start
from tests.faults.test_train_modes import steps_of
from tests.fixtures.tiny import tiny_corpus


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, medium: Path) -> Case:
    return make_case(tmp_path_factory.mktemp("usual"), medium)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, case: Case) -> Artifact:
    """Other text of the same languages."""
    folder = tmp_path_factory.mktemp("other")
    corpora = {lang: str(tiny_corpus(folder / "text", lang, 40, seed=5)) for lang in ("hu", "en")}
    return langadapt.mix(
        out=folder / "data", model=case.config["model"], corpora=corpora, replay={"en": 0.25}, block_tokens=32,
        document_separator="<|endoftext|>",
    )  # fmt: skip


def test_a_branch_is_the_uninterrupted_run(tmp_path: Path, case: Case, notes: list[str]) -> None:
    same = {"schedule": "wsd", "warmup_steps": 2, "probe_every": 40}
    run_here(tmp_path / "short", case, notes, **same, keep_branch=True)
    kept = open_artifact(tmp_path / "short" / "branch", "checkpoint")
    kept.verify()
    assert kept.facts == {"step": 19}
    run_here(tmp_path / "whole", case, notes, **same, steps=40)
    later = {"schedule": "wsd", "probe_every": 40, "steps": 40, "branch_from": str(tmp_path / "short")}
    run_here(tmp_path / "branch", case, notes, **later)
    assert "going on after step 19" in notes
    for name in ("model.safetensors", "metrics.jsonl", "ledger.json", "probes.json"):
        assert (tmp_path / "branch" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    # killed and gone on with, a branch is itself
    killed = Case(case.config | later, files_of(tmp_path / "branch"))
    (tmp_path / "again").mkdir()
    assert start(tmp_path / "again", killed, "--kill", "written", "3").end() == -9
    finish(tmp_path / "again", killed)
    # the decayed model itself went another way from there
    assert steps_of(tmp_path / "short")[:19] == steps_of(tmp_path / "whole")[:19]
    assert steps_of(tmp_path / "short")[20] != steps_of(tmp_path / "whole")[20]


def test_a_constant_run_is_kept_at_its_end_and_goes_on_from_there(tmp_path: Path, case: Case, notes: list[str]) -> None:
    same = {"schedule": "constant", "warmup_steps": 2, "probe_every": 40}
    run_here(tmp_path / "short", case, notes, **same, steps=8, keep_branch=True)
    run_here(tmp_path / "whole", case, notes, **same, steps=12)
    run_here(tmp_path / "branch", case, notes, schedule="constant", steps=12, branch_from=str(tmp_path / "short"))
    assert "going on after step 8" in notes
    assert (tmp_path / "branch" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


def test_a_branch_into_other_data_begins_there_and_the_ledger_balances(
    tmp_path: Path, case: Case, notes: list[str]
) -> None:
    run_here(tmp_path / "short", case, notes, schedule="wsd", keep_branch=True)
    more = langadapt.mix(
        out=tmp_path / "data", model=case.config["model"], block_tokens=32, document_separator="<|endoftext|>",
        corpora={"hu": str(tiny_corpus(tmp_path / "text", "hu", 40, seed=5))},
    )  # fmt: skip
    run_here(
        tmp_path / "out",
        case,
        notes,
        data=str(more.path),
        schedule="wsd",
        steps=30,
        branch_from=str(tmp_path / "short"),
    )
    account = json.loads((tmp_path / "out" / "ledger.json").read_text())
    assert account["balance_tokens"] == 0 and account["positions"] == (30 - 19) * 4
    assert len(steps_of(tmp_path / "out")) == 30


def test_what_cannot_be_branched_is_refused(tmp_path: Path, case: Case, tiny: Path, notes: list[str]) -> None:
    run_here(tmp_path / "short", case, notes, schedule="wsd", keep_branch=True)
    short = str(tmp_path / "short")
    with pytest.raises(ConfigError, match="19 steps behind it") as caught:
        run_here(tmp_path / "out", case, notes, schedule="wsd", steps=10, branch_from=short)
    assert "more than 19" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="trained with 128"):
        run_here(tmp_path / "out", case, notes, steps=40, branch_from=short, batch_tokens=256)
    with pytest.raises(DataError, match="another model"):
        run_here(tmp_path / "out", case, notes, steps=40, branch_from=short, model=short)
    with pytest.raises(ConfigError, match="was read before the branch"):
        run_here(tmp_path / "out", case, notes, steps=40, branch_from=short, batch_tokens=None, skip_positions=["4:8"])
    with pytest.raises(ConfigError, match="decays from the beginning"):
        run_here(tmp_path / "other", case, notes, keep_branch=True)
    run_here(tmp_path / "plain", case, notes, steps=3)
    with pytest.raises(DataError, match="does not hold the state") as missing:
        run_here(tmp_path / "out", case, notes, steps=40, branch_from=str(tmp_path / "plain"))
    assert "--keep-branch" in str(missing.value.hint)


def test_probes_of_other_data_are_compared_with_those_of_the_branch_point(
    tmp_path: Path, case: Case, other: Artifact, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the run before gave on its own text says nothing about this one."""
    values = iter([1.0, 1.0, 1.0, 1.0, 2.0, 2.04, 2.3, 2.3])
    monkeypatch.setattr("langadapt.train.probe.Probe.__call__", lambda self: {"en": next(values)})
    run_here(tmp_path / "short", case, notes, schedule="wsd", keep_branch=True)
    later = {"data": str(other.path), "schedule": "wsd", "steps": 30, "branch_from": str(tmp_path / "short")}
    with pytest.raises(LangadaptError, match=r"from 2.000 to 2.300 .* \(\+15.0%\) at step 30"):
        run_here(tmp_path / "out", case, notes, **later)
    run_here(tmp_path / "out", case, notes, **later, max_forgetting=0.5)
    assert open_artifact(tmp_path / "out").facts["probes"] == {"en": {"start": 2.0, "end": 2.3}}
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "probes" in line] == [19, 20, 30]
    assert len(steps_of(tmp_path / "out")) == 30


def test_losses_on_other_data_are_no_spike(tmp_path: Path) -> None:
    def journal(low: int, high: int, *, other_data: bool) -> Journal:
        made = Journal(tmp_path / "metrics.jsonl", print)
        made.add_probes(0, 0, {})
        for step in range(1, low + 1):
            made.add_step(step, step, 1.0, 0.1, 1.0)
        made.rewind(made.content(), probes=not other_data)
        if other_data:
            assert made.first_probed is None and made.last_loss == 1.0
            made.add_probes(low, low, {})
        for step in range(low + 1, low + high + 1):
            made.add_step(step, step, 3.0, 0.1, 1.0)
        made.rewind(made.content())
        return made

    settings = SimpleNamespace(guessing=6.0, course=SimpleNamespace(stages=[None]))
    assert _watch(journal(30, 25, other_data=False), settings).complaint() is not None  # type: ignore[arg-type]
    assert _watch(journal(30, 25, other_data=True), settings).complaint() is None  # type: ignore[arg-type]


def test_epochs_of_a_branch_of_a_branch_count_its_data_only(
    tmp_path: Path, case: Case, other: Artifact, notes: list[str]
) -> None:
    same = {"schedule": "constant", "keep_branch": True, "probe_every": 100}
    run_here(tmp_path / "one", case, notes, **same, steps=20)
    same["data"] = str(other.path)
    run_here(tmp_path / "two", case, notes, **same, steps=26, branch_from=str(tmp_path / "one"))
    run_here(tmp_path / "three", case, notes, **same, steps=30, branch_from=str(tmp_path / "two"))
    ledger = json.loads((tmp_path / "three" / "ledger.json").read_text())
    assert ledger["positions"] == 10 * 4
    told = open_artifact(tmp_path / "three").facts["epochs"]
    assert told == pytest.approx(10 * 4 * 0.75 * 32 / other.facts["sources"]["hu"]["tokens"], rel=0.1)
    # the largest budget that is named can be had, and is the largest
    for branch in ("one", "two"):
        wishes = same | {"branch_from": str(tmp_path / branch), "max_epochs": 2 * told, "keep_branch": False}
        with pytest.raises(ConfigError, match="would read the target") as caught:
            run_here(tmp_path / "more", case, notes, **wishes, steps=200)
        steps = int(re.findall(r"--steps (\d+)", str(caught.value.hint))[0])
        assert 38 <= steps <= 42
        with pytest.raises(ConfigError, match="would read the target"):
            run_here(tmp_path / "more", case, notes, **wishes, steps=steps + 1)
        run_here(tmp_path / f"most-{branch}", case, notes, **wishes, steps=steps)


@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_a_branch_goes_on_at_its_own_rate_whatever_the_strategy_usually_takes(
    tmp_path: Path, case: Case, notes: list[str], strategy: str
) -> None:
    same = {"strategy": strategy, "schedule": "constant"}
    run_here(tmp_path / "one", case, notes, **same, steps=4, keep_branch=True)
    run_here(tmp_path / "two", case, notes, **same, steps=6, branch_from=str(tmp_path / "one"), learning_rate=None)
    assert open_artifact(tmp_path / "two").facts["learning_rate"] == case.config["learning_rate"]
