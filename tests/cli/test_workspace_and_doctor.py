"""Verbs without inputs in a workspace; the installation check; the generated reference."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from langadapt.cli import checks, doctor
from langadapt.core.artifact import open_artifact
from tests.cli.conftest import ROOT, Run


@pytest.fixture()
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A folder with a recipe; what `run_verb` is asked for is recorded, and answered with an artifact."""
    from langadapt.recipe import workspace
    from langadapt.recipe.runner import StepDone

    asked: list[dict[str, Any]] = []

    def run_verb(verb: str, overrides: dict[str, Any], **options: Any) -> Any:
        asked.append({"verb": verb, "overrides": overrides, **options})
        artifact = open_artifact(tmp_path / "made")
        done = StepDone(id="x", verb=verb, state="up to date", reason="", artifact=artifact)
        return workspace.VerbDone(done, type("Run", (), {"steps": (done,)})())

    monkeypatch.setattr(workspace, "run_verb", run_verb)
    (tmp_path / "langadapt.yaml").write_text("steps: {}\n")
    return asked


def test_a_verb_without_inputs_runs_the_recipe(call: Run, workspace: list[dict[str, Any]]) -> None:
    assert call("count-words", "a.txt", "--out", "made").code == 0
    assert workspace == [], "with inputs the recipe is not asked"
    done = call("count-words", "--lang", "hun", "--top", "4k", "-o", "label=no")
    assert (done.code, done.out) == (0, str(Path.cwd() / "made") + "\n")
    listener = workspace[0].pop("listener")
    assert callable(listener)
    assert workspace == [
        {"verb": "count-words", "overrides": {"top": "4k", "label": "no"}, "lang": "hun", "dry_run": False}
    ]
    assert call("count-words", "--set", "x=a.txt").code == 0, "an optional input alone is an override"
    assert workspace[1]["overrides"] == {"sets": {"x": "a.txt"}}


@pytest.mark.parametrize("option", [("--out", "c"), ("--overwrite",), ("--print-config",)])
def test_options_that_need_inputs(call: Run, workspace: list[dict[str, Any]], option: tuple[str, ...]) -> None:
    done = call("count-words", *option)
    assert done.code == 2
    assert f"{option[0]} needs inputs" in done.err
    assert workspace == []


def test_doctor(call: Run) -> None:
    done = call("doctor", "--json")
    found = json.loads(done.out)
    names = {item["name"] for item in found["checks"]}
    assert {"python", "packages", "device", "bf16 units", "threads", "write and lock", "cache", "disk here"} <= names
    assert done.code == (0 if found["ready"] else 5)
    assert not list(Path.cwd().glob(".langadapt-doctor-*")), "nothing is left behind"


def test_doctor_with_a_problem(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = checks.Check("disk here", "problem", "full", "free some")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: [bad],))
    done = call("doctor")
    assert done.code == 5
    assert done.out == "disk here\tproblem\tfull\n\t\tfix: free some\n"


def test_checks_see_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checks, "free_disk_bytes", lambda folder: 1000)
    assert all(item.state == "problem" and item.fix for item in checks.folders())
    monkeypatch.setattr(checks, "available_memory_bytes", lambda: 10**9)
    assert checks.memory()[0].state == "problem"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    assert [item.state for item in checks.device() if item.name == "threads"] == ["problem"]
    monkeypatch.setattr(checks, "PACKAGES", ("no-such-package",))
    assert any(item.state == "problem" and "no-such-package is missing" in item.text for item in checks.versions())
    monkeypatch.setenv("LANGADAPT_LID_MODEL", str(tmp_path / "none.ftz"))
    assert checks.language_identification()[0].state == "problem"
    monkeypatch.setattr(checks, "Lock", lambda path: open(path, "w"))  # noqa: SIM115, PTH123
    assert "taken twice" in checks.locks()[0].text


def test_reference_page_is_deterministic_and_complete() -> None:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "tools" / "make_docs.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = tool.page()
    assert page == tool.page()
    from langadapt.core.listing import command_names, verb_names

    for name in verb_names() + command_names():
        assert f"\n## {name}\n" in page
