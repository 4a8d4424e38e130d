"""The whole chain by one command on a tiny model: result, repetition, control, and kill -9 at random moments."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from langadapt.core.artifact import open_artifact
from tests.e2e.chain import command, go, manifests, texts

NUMBERS = {"base", "adapted", "uniform_base", "uniform_adapted", "ratio", "delta", "delta_low", "delta_high"}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: Path, given: dict[str, str]) -> Path:
    run = tmp_path_factory.mktemp("runs") / "quickstart"
    done = go(run, tiny, given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(run), "in a pipe, stdout is the run folder and nothing else"
    return run


@pytest.fixture(scope="module")
def summary(finished: Path) -> dict[str, Any]:
    return json.loads((finished / "summary.json").read_text())


def test_summary_has_every_promised_key(summary: dict[str, Any]) -> None:
    sets = {lang: set(facts["sets"]) for lang, facts in summary["languages"].items()}
    assert sets == {"hu": {"held-out"}, "en": {"replay", "other"}}
    for facts in summary["languages"].values():
        assert {"base", "adapted"} <= facts["tokens_per_word"].keys()
        for scores in facts["sets"].values():
            bits = scores["bits_per_byte"]
            assert bits.keys() >= NUMBERS
            assert bits["delta_low"] <= bits["delta"] <= bits["delta_high"]
            assert bits["ratio"] == pytest.approx(bits["adapted"] / bits["base"])
            assert bits["verdict"] in ("better", "worse", "no detectable change")
    assert 0 <= summary["languages"]["en"]["held_out_lines_same_ids"] <= 1
    assert Path(summary["models"]["adapted"]).is_dir() and Path(summary["models"]["base"]).is_dir()
    assert not summary["models"].get("control")


def test_training_helped_on_the_target(summary: dict[str, Any]) -> None:
    bits = summary["languages"]["hu"]["sets"]["held-out"]["bits_per_byte"]
    assert bits["adapted"] < bits["base"] and bits["verdict"] == "better"
    tokens = summary["languages"]["hu"]["tokens_per_word"]
    assert tokens["adapted"] < tokens["base"]


def test_every_artifact_verifies_and_times_are_recorded(finished: Path) -> None:
    for folder in (finished / "steps").iterdir():
        if folder.is_symlink():
            open_artifact(folder.resolve()).verify()
    timings = [json.loads(line) for line in (finished / "timings.jsonl").read_text().splitlines()]
    assert all(line["seconds"] >= 0 for line in timings)
    assert any("peak_memory_bytes" in line for line in timings)


def test_running_again_is_up_to_date(finished: Path, tiny: Path, given: dict[str, str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("artifact.json")}
    again = go(finished, tiny, given)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("artifact.json")} == before


def test_a_dry_run_says_what_a_change_would_cost_and_writes_nothing(
    finished: Path, tiny: Path, given: dict[str, str]
) -> None:
    before = sorted((path, path.lstat().st_mtime_ns) for path in finished.rglob("*"))
    dry = go(finished, tiny, {**given, "steps": "13"}, "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    assert sorted((path, path.lstat().st_mtime_ns) for path in finished.rglob("*")) == before
    plan = json.loads(dry.stdout)
    states = {step["step"]: step["state"] for step in plan["steps"]}
    assert states["tokenizer"] == states["mix"] == "up to date"
    assert states["cpt"] == states["evaluate"] == states["report"] == "would run"
    reason = next(step["reason"] for step in plan["steps"] if step["step"] == "cpt")
    assert "12" in reason and "13" in reason


def test_models_load_without_langadapt(summary: dict[str, Any]) -> None:
    code = (
        "import sys; sys.modules['langadapt'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "m = AutoModelForCausalLM.from_pretrained(sys.argv[1]); t = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "x = t.apply_chat_template([{'role': 'user', 'content': 'a'}], return_tensors='pt', return_dict=True)\n"
        "assert m.generate(**x, max_new_tokens=3, do_sample=False).shape[1] > x['input_ids'].shape[1]\n"
    )
    subprocess.run([sys.executable, "-c", code, summary["models"]["adapted"]], check=True, timeout=120)


@pytest.mark.timeout(400)
def test_kill_9_at_random_moments_ends_in_the_same_bytes(
    tmp_path: Path, finished: Path, tiny: Path, given: dict[str, str]
) -> None:
    moments = random.Random(20261124)
    run = tmp_path / "quickstart"
    kills = 0
    while kills < 7:
        process = subprocess.Popen(command(run, tiny, given), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(1.0, 9.0))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        kills += 1
    last = go(run, tiny, given)
    assert last.returncode == 0, last.stderr
    assert kills >= 2
    mine, reference = manifests(run), manifests(finished)
    assert mine == {name: reference[name] for name in mine}
    assert not list((run / "steps").glob("*.tmp-*")) and not list((run / "steps").glob("*.partial"))


def test_the_control_is_compared_and_claimed_as_no_more(finished: Path, tiny: Path, given: dict[str, str]) -> None:
    done = go(finished, tiny, {**given, "control": "true"})
    assert done.returncode == 0, done.stderr
    summary = json.loads((finished / "summary.json").read_text())
    assert Path(summary["models"]["control"]).is_dir()
    bits = summary["languages"]["hu"]["sets"]["held-out"]["bits_per_byte"]
    assert {"control", "delta_control", "delta_control_low", "delta_control_high", "verdict_control"} <= bits.keys()
    adapted, control = (open_artifact(Path(summary["models"][name])).facts for name in ("adapted", "control"))
    assert (adapted["steps"], adapted["tokens"]) == (control["steps"], control["tokens"])
    assert adapted["document_separator"] == control["document_separator"]
