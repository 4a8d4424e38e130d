"""`init`, `run`, `status` and verbs in a workspace, through the executable's own entry."""

import json
import os
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


def test_a_dry_run_on_a_busy_machine_says_so_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for running, times in ((7.04, 1), (1.5, 0)):
        monkeypatch.setattr("os.getloadavg", lambda running=running: (running, 3.0, 1.0))
        _, out, _ = call(capsys, "run", "r.yaml", "-o", "text=a.txt", "--dry-run", "--table")
        assert out.count("busy now: load 7.0 on 2 core(s)") == times


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


def test_what_was_typed_in_a_workspace_is_recorded_and_can_be_dropped(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Path("langadapt.yaml").write_text(
        "vars: {text: null, size: 1}\nsteps:\n  one: {use: note, text: '${text}', size: 2}\n"
    )
    code, _, err = call(capsys, "run", "-o", "text=a.txt", "-o", "one.size=4k", "-o", "one.tags={x: no}")
    assert code == 0 and "recorded for later commands" in err
    kept = json.loads(Path("overrides.json").read_text())
    assert kept == {"one": {"size": "4k", "tags": {"x": "no"}}, "vars": {"text": [str(tmp_path / "a.txt")]}}
    code, out, _ = call(capsys, "status", "--json")
    shown = json.loads(out)
    assert shown["steps"][0]["state"] == "done" and shown["settings"]["one.size"] == "4k"
    _, out, err = call(capsys, "status", "--table")
    assert "instead of 2 in langadapt.yaml:3" in " ".join(out.split()) and '["' not in out

    _, _, err = call(capsys, "run", "--dry-run")
    assert "warning" not in err, "the file is older than what was recorded"
    later = Path("overrides.json").stat().st_mtime_ns + 10**9
    Path("langadapt.yaml").write_text(Path("langadapt.yaml").read_text().replace("size: 2", "size: 3"))
    os.utime("langadapt.yaml", ns=(later, later))
    _, _, err = call(capsys, "run", "--dry-run")
    assert 'warning: `one.size="4k"` is recorded and holds, not `3` in langadapt.yaml:3' in err
    assert "langadapt run --forget one.size" in err

    for more in (("--dry-run",), ("--why",), ("-o", "one.size=3")):
        assert call(capsys, "run", "--forget", "one.size", *more)[0] == 2, "nothing is dropped by what only looks"
    code, out, _ = call(capsys, "run", "--forget", "one.size")
    assert (code, out) == (0, 'forgotten: one.size="4k"\n')
    code, out, _ = call(capsys, "run", "--forget", "one", "--json")
    assert json.loads(out)["forgotten"] == ["one.tags"]
    code, _, err = call(capsys, "run", "--forget", "one.size")
    assert code == 2 and "is not recorded" in err
    code, _, _ = call(capsys, "run", "--forget", "all")
    assert code == 0 and json.loads(Path("overrides.json").read_text()) == {}
    code, _, _ = call(capsys, "run", "-o", "text=a.txt", "--out", "elsewhere")
    assert code == 0 and json.loads(Path("overrides.json").read_text()) == {}, "another folder is another run"


def test_parts_reasons_and_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    text = "matrix: {seed: [1, 2]}\nsteps:\n  one: {use: note, matrix: seed, text: a.txt, seed: '${seed}'}\n"
    Path("r.yaml").write_text(text + "  all: {use: join, parts: {'s${seed}': one}}\n")
    code, _, err = call(capsys, "run", "r.yaml", "--jobs", "2", "--until", "one")
    assert code == 0 and "one@1: copying" in err and "one@2: copying" in err
    code, _, err = call(capsys, "run", "r.yaml", "--only", "all", "--json")
    assert code == 0
    code, out, _ = call(capsys, "run", "r.yaml", "--why", "-o", "one@2.size=7", "--json")
    told = {step["step"]: step for step in json.loads(out)["steps"]}
    assert told["one@2"]["changes"] == [{"part": "config", "name": "size", "old": 1, "new": 7}]
    assert told["all"]["changes"][0]["name"] == "parts.s2" and told["one@1"]["changes"] == []
    code, out, _ = call(capsys, "run", "r.yaml", "--dry-run", "--from", "all", "-o", "one@2.size=7", "--json")
    taken = {step["step"]: step["state"] for step in json.loads(out)["taken"]}
    assert taken == {"one@1": "up to date", "one@2": "as it is"}
    code, out, _ = call(capsys, "status", "work/r", "--json")
    assert [step["point"] for step in json.loads(out)["steps"]] == [{"seed": 1}, {"seed": 2}, {}]
    for wrong in (("--only", "al"), ("--from", "one@3"), ("--jobs", "0")):
        code, out, err = call(capsys, "run", "r.yaml", *wrong)
        assert (code, out) == (2, ""), err


def test_recipe_check_show_and_schema(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "recipe", "check", "r.yaml")
    assert code == 0 and out == "r.yaml: no faults found in 4 steps\n" and "note: give `-o text=...`" in err
    code, out, _ = call(capsys, "recipe", "check", "r.yaml", "-o", "text=a.txt", "--json")
    assert json.loads(out)["missing"] == []
    code, out, _ = call(capsys, "recipe", "show", "r.yaml", "-o", "text=a.txt")
    assert out == "one (note)\nbase (join)  <- one\nscore  <- base\npage  <- score\n"
    code, out, _ = call(capsys, "recipe", "show", "r.yaml", "-o", "text=a.txt", "--json")
    one = json.loads(out)["steps"][0]
    assert one["values"]["lang"] == {"value": "hu", "from": "r.yaml:4"}
    assert one["values"]["text"]["from"] == "r.yaml:4 (text from -o text=a.txt)"
    code, out, _ = call(capsys, "recipe", "show", "r.yaml", "--table")
    assert "line 4" in out and "graph\n  one (note)\n" in out
    code, out, _ = call(capsys, "recipe", "schema")
    assert json.loads(out)["$defs"]["note"]["properties"]["size"]["anyOf"][0] == {"type": "integer"}
    code, _, err = call(capsys, "recipe", "chekc")
    assert code == 2 and "did you mean `langadapt recipe check`?" in err
    Path("bad.yaml").write_text("steps:\n  a: {use: note, text: nothing.txt, sise: 3}\n  b: {use: nota}\n")
    code, out, err = call(capsys, "recipe", "check", "bad.yaml")
    assert (code, out) == (2, "") and all(text in err for text in ("3 problems", "nothing.txt", "sise", "nota"))


def test_show_of_a_workspace_is_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    Path("ws").mkdir()
    Path("ws/langadapt.yaml").write_text("steps:\n  one: {use: note, text: b.txt}\n")
    Path("ws/b.txt").write_text("b")
    code, out, _ = call(capsys, "show", "ws")
    assert (code, out) == (0, "one\tmissing\tnever ran\n")
    call(capsys, "run", "ws/langadapt.yaml", "--out", "other")
    code, out, _ = call(capsys, "show", "other")
    assert (code, out) == (0, "one\tdone\tnothing changed\n")


@pytest.mark.parametrize("file", ["config.json", "artifact.json"])
def test_init_does_not_move_into_a_model(capsys: pytest.CaptureFixture[str], file: str) -> None:
    Path("model").mkdir()
    Path("model", file).write_text("{}")
    code, _, err = call(capsys, "init", "model", "--lang", "el", "--text", "a.txt", "--model", "model")
    assert code == 4 and "holds a" in err and "hint: langadapt init el " in err
    assert [path.name for path in Path("model").iterdir()] == [file]
