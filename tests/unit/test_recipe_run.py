"""Runs: what is skipped, what goes on, what runs again and why; what a run leaves; prices before the run."""

import json
from pathlib import Path

import pytest

from langadapt.core.artifact import open_artifact
from langadapt.core.errors import DataError, LangadaptError, ResourceError
from langadapt.core.progress import Event, Finished, Note, Started
from langadapt.recipe import isolate
from langadapt.recipe.document import Setting
from langadapt.recipe.graph import build
from langadapt.recipe.plan import Plan, plan
from langadapt.recipe.runner import RunDone, run
from tests.fixtures import toys

RECIPE = """
vars: {size: 1, act: null}
steps:
  one: {use: note, text: a.txt, size: "${size}", act: "${act}"}
  two: {use: note, text: b.txt}
  base: {use: join, parts: {x: one}}
  adapted: {use: join, parts: {x: one, y: two}}
  score: {base: base, adapted: adapted}
  page: {scores: score}
"""


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toys.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("aaa")
    Path("b.txt").write_text("bbb")
    Path("r.yaml").write_text(RECIPE)


def go(*settings: str, heard: list[Event] | None = None, until: tuple[str, ...] = ()) -> RunDone:
    chosen = tuple(Setting.parse(item) for item in settings)
    graph = build(Path("r.yaml"), chosen)
    graph = graph.up_to(until) if until else graph
    return run(graph, Path("out"), settings=chosen, listener=(heard.append if heard is not None else lambda _: None))


def states(done: RunDone) -> dict[str, str]:
    return {step.id: step.state for step in done.steps}


def reasons(*settings: str) -> dict[str, tuple[str, str]]:
    looked = plan(build(Path("r.yaml"), tuple(Setting.parse(item) for item in settings)), Path("out"))
    return {look.step.id: (look.state, look.reason) for look in looked.looks}


def lines(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path("out", name).read_text().splitlines()]


def test_run_skip_change_and_what_a_run_leaves(tmp_path: Path) -> None:
    first = go()
    assert set(states(first).values()) == {"new"} and list(states(first)) == [
        "one", "two", "base", "adapted", "score", "page",
    ]  # fmt: skip
    pointer = Path("out/steps/one")
    fingerprint = open_artifact(pointer).fingerprint
    assert pointer.readlink() == Path(f"one-{fingerprint[:10]}"), "relative, so that the run folder can be moved"

    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["models"] == {
        "base": str(Path("out/steps/base").resolve()), "adapted": str(Path("out/steps/adapted").resolve()),
        "control": None,
    }  # fmt: skip
    assert summary["model_facts"] == {"base": {"rows": 1}}
    assert Path("out/report.html").read_text() == "<p>page" and Path("out/report.md").read_text() == "page"
    timings = lines("timings.jsonl")
    assert [line["step"] for line in timings] == [*states(first), "whole run"]
    assert all(line["seconds"] > 0 and line["peak_memory_bytes"] > 1e6 for line in timings)  # type: ignore[operator]
    assert [line["event"] for line in lines("run.jsonl")][:3] == ["started", "step", "made"]

    assert set(states(go()).values()) == {"up to date"}

    assert reasons("size=4k") == {
        "one": ("would run", "config `size` changed 1 -> 4000"),
        "two": ("up to date", "nothing changed"),
        "base": ("would run", "input `parts.x` will be made anew (step one)"),
        "adapted": ("would run", "input `parts.x` will be made anew (step one)"),
        "score": ("would run", "input `adapted` will be made anew (step adapted); "
                               "input `base` will be made anew (step base)"),
        "page": ("would run", "input `scores` will be made anew (step score)"),
    }  # fmt: skip
    changed = go("size=4k", until=("one",))
    assert states(changed) == {"one": "new"}
    assert reasons("size=4k")["base"] == ("would run", "input `parts.x` changed (step one)")
    assert reasons()["one"] == ("up to date", "made earlier with these settings")
    assert states(go(until=("base",))) == {"one": "up to date", "base": "up to date"}
    assert Path("out/steps/one").readlink() == Path(f"one-{fingerprint[:10]}"), "the pointer goes back"

    Path("b.txt").write_text("ccc")
    assert reasons()["two"] == ("would run", f"input `text.0` changed ({tmp_path}/b.txt)")


def test_never_ran_and_gone() -> None:
    assert reasons()["one"] == ("would run", "never ran")
    done = go(until=("two",))
    for path in done.steps[0].artifact.path.iterdir():
        path.unlink()
    done.steps[0].artifact.path.rmdir()
    assert reasons()["two"] == ("would run", "its output is gone")
    assert states(go(until=("two",))) == {"two": "new"}


def test_prices_use_what_earlier_steps_predict_and_nothing_is_written(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    looked = plan(build(Path("r.yaml"), (Setting.parse("size=3"),)), Path("out"))
    assert isinstance(looked, Plan)
    assert sorted(tmp_path.rglob("*")) == before
    seconds = {look.step.id: look.estimate.seconds for look in looked.looks if look.estimate}
    assert seconds == {"one": 30.0, "two": 10.0, "base": 3.0, "adapted": 4.0, "score": None, "page": 0.1}
    table = looked.table()
    # both notes need some of it only while they run: 3 and 1 of 22 bytes, so the 1 is free for the other
    assert table.rows[-1] == ("whole run", "6 of 6 steps", "", "47 s", "5.0 kB", "21 B")
    assert any("score" in note and "not known" in note for note in table.notes)
    assert any("cannot say how long" in note for note in table.notes)


def test_events_and_warnings_reach_the_listener() -> None:
    heard: list[Event] = []
    done = go("act=slow", heard=heard, until=("one",))
    assert any(isinstance(event, Started) and event.task == "copy" and event.total == 20 for event in heard)
    assert any(isinstance(event, Finished) and event.done == 20 for event in heard)
    notes = [event.text for event in heard if isinstance(event, Note)]
    assert notes[0] == "step 1/1 one (note): running: never ran" and "copying" in notes
    assert done.steps[0].warnings == ("a warning",)
    assert states(go(until=("one",))) == {"one": "up to date"}, "what cannot change the result is not fingerprinted"


def test_an_error_keeps_class_place_and_hint() -> None:
    with pytest.raises(DataError) as caught:
        go("act=refuse")
    assert (caught.value.message, caught.value.where, caught.value.hint) == ("refused", "here:1", "there")
    assert lines("run.jsonl")[-1]["exit_code"] == 3
    assert reasons()["one"] == ("continue", "an earlier run was interrupted")
    assert states(go(until=("one",))) == {"one": "continue"}


def test_a_crash_ends_the_step_and_not_the_runner(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LangadaptError, match="ZeroDivisionError: boom") as caught:
        go("act=crash")
    assert caught.value.exit_code == 1 and "Traceback" in caught.value.__notes__[0]
    assert capfd.readouterr().err == "", "no traceback unless asked for"
    with pytest.raises(LangadaptError, match="SIGABRT"):
        go("act=die")


def test_a_process_killed_for_memory_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "CHILD", ("sh", "-c", "kill -9 $$"))
    with pytest.raises(ResourceError, match="memory"):
        isolate.call({}, what="step `x`")


def test_the_current_folder_cannot_replace_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "importlib.py").write_text("raise SystemExit('hijacked')")
    (tmp_path / "langadapt.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.setattr(isolate, "CHILD", (*isolate.CHILD[:1], "-P", "-m", "langadapt.recipe.child"))
    told = isolate.call({"do": "resolve", "resolver": "tests.fixtures.toys:resolve", "given": "x.gguf"}, what="x")
    assert told["path"] == "x"


def test_a_resolver_runs_in_a_process_of_its_own_and_what_was_typed_is_kept() -> None:
    Path("m").mkdir()
    Path("m/weights").write_text("w")
    Path("m.gguf").write_text("gguf")
    Path("r.yaml").write_text("steps:\n  a: {use: join, model: m.gguf}\n")
    look = plan(build(Path("r.yaml")), Path("out")).looks[0]
    given = look.inputs["model"]
    assert given.path == Path("m").absolute() and given.given == str(Path("m.gguf").absolute())  # type: ignore[union-attr]
    assert states(go()) == {"a": "new"}
    Path("m/weights").write_text("v")
    assert reasons()["a"][1].startswith("input `model` changed")
