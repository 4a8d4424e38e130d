"""`init`, `run`, `status` and verbs in a workspace, through the executable's own entry."""

import json
from pathlib import Path

import pytest

from langadapt.cli.app import main
from tests.fixtures import toys

RECIPE = """
vars: {text: null}
steps:
  one: {use: note, text: "${text}", lang: hu}
  base: {use: join, parts: {x: one}}
  score: {base: base, adapted: base}
  page: {scores: score}
"""


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toys.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("aaa")
    Path("r.yaml").write_text(RECIPE)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def test_run_dry_run_and_status(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = call(capsys, "run", "r.yaml")
    assert code == 2 and "variable `text` is not set" in err and "-o text=" in err and out == ""
    code, out, _ = call(capsys, "run", "r.yaml", "-o", "text=a.txt", "--dry-run", "--json")
    planned = json.loads(out)
    assert code == 0 and planned["seconds"] == pytest.approx(11.1) and planned["memory_bytes"] == 5000
    assert [step["reason"] for step in planned["steps"]] == ["never ran"] * 4 and not Path("work").exists()

    code, out, err = call(capsys, "run", "r.yaml", "-o", "text=a.txt")
    assert (code, out) == (0, f"{tmp_path}/work/r\n"), "in a pipe the path of the run folder and nothing else"
    assert "step 1/4 one (note): running: never ran" in err and "4 steps run" in err
    code, out, err = call(capsys, "run", "r.yaml", "-o", "text=a.txt", "--json")
    done = json.loads(out)
    assert {step["state"] for step in done["steps"]} == {"up to date"} and Path(done["report"]).is_file()

    code, out, _ = call(capsys, "status", "work/r", "--json")
    shown = json.loads(out)
    assert [step["state"] for step in shown["steps"]] == ["done"] * 4 and shown["settings"] == {"text": "a.txt"}
    Path("a.txt").write_text("bbb")
    _, out, _ = call(capsys, "status")
    assert out.splitlines()[0].startswith("one\tstale\tinput `text.0` changed")


def test_a_verb_in_a_workspace_and_its_recorded_flag(capsys: pytest.CaptureFixture[str]) -> None:
    Path("langadapt.yaml").write_text(RECIPE.replace('"${text}"', "a.txt"))
    code, out, err = call(capsys, "note", "--lang", "hun", "--size", "3")
    assert code == 0 and Path(out.strip()).parent == Path("steps").absolute(), err
    code, out, err = call(capsys, "note", "--lang", "el")
    assert code == 2 and "it knows: hu" in err and out == ""
    code, out, err = call(capsys, "status", "--json")
    shown = json.loads(out)
    assert [step["state"] for step in shown["steps"]] == ["done", "missing", "missing", "missing"]
    assert shown["settings"] == {"one.size": 3}
    code, out, err = call(capsys, "run", "--dry-run")
    assert code == 0 and "recorded settings are used" in err and "one.size=3" in err


def test_init_and_its_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "init", "ws", "--lang", "el", "--text", "a.txt", "--model", "some/model")
    assert (code, out) == (0, "ws\n") and "next: cd ws && langadapt run --dry-run" in err
    assert "no --source-text" in err
    code, out, err = call(capsys, "init", "ws", "--lang", "el", "--text", "a.txt", "--model", "some/model")
    assert code == 4
    code, out, err = call(capsys, "init", "--lang", "el")
    assert code == 2 and "--text, --model" in err
