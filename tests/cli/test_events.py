"""Progress as JSON lines; narrow, dumb and ASCII terminals; streams that break."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from langadapt.cli.layout import fits
from langadapt.cli.listener import Bars, Lines, Plain, draws, listening
from langadapt.cli.output import EVENT_KEYS, Screen
from langadapt.core.progress import Advanced, Finished, Note, Started, of_step
from tests.cli.conftest import Run, environment


def lines(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    assert all(list(line)[: len(EVENT_KEYS)] == list(EVENT_KEYS) for line in found)
    return found


def test_everything_on_stderr_is_an_event(call: Run) -> None:
    done = call("count-words", "a.txt", "--out", "c", "--progress", "json")
    found = lines(done.err)
    task = [line for line in found if line["task"] == "counting"]
    assert [line["event"] for line in task] == ["started", "advanced", "finished"]
    assert {(line["step"], line["total"], line["unit"]) for line in task} == {("count-words", 1, "files")}
    assert task[-1]["done"] == 1 and "seconds" in task[-1]
    assert [line["message"] for line in found if line["level"] == "warning"] == ["toy counts only"]
    assert done.out == "c\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("shwo",), 2), (("count-words", "none.txt", "--out", "c"), 3), (("show", "--foo"), 2)],
)
@pytest.mark.parametrize("option", [("--progress", "json"), ("--progress=json",)])
def test_errors_are_events(call: Run, arguments: tuple[str, ...], code: int, option: tuple[str, ...]) -> None:
    for words in ((*arguments, *option), (*option, *arguments)):
        done = call(*words)
        last = lines(done.err)[-1]
        assert (done.code, last["event"], last["exit_code"]) == (code, "error", code)
        assert last["message"] and (last["hint"] is not None or code == 3)


def test_steps_side_by_side_stay_apart(capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter(range(100))
    listener = Lines(Screen(progress="json"), clock=lambda: float(next(clock)))
    one, two = of_step(listener, "one"), of_step(listener, "two")
    for step, total in ((one, 10), (two, 20)):
        step(Started(task="train", total=total, unit="steps"))
    one(Advanced(task="train", done=4, detail="loss 2"))
    two(Note(text="careful", level="warning"))
    one(Finished(task="train", done=10, seconds=1.23456))
    two(Advanced(task="train", done=5))
    found = [(item["event"], item["step"], item["done"], item["total"], item["message"]) for item in
             lines(capsys.readouterr().err)]  # fmt: skip
    assert found == [
        ("started", "one", 0, 10, None), ("started", "two", 0, 20, None), ("advanced", "one", 4, 10, "loss 2"),
        ("note", "two", None, None, "careful"), ("finished", "one", 10, 10, None), ("advanced", "two", 5, 20, None),
    ]  # fmt: skip


def test_a_task_tells_at_most_ten_times_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, *(number / 1000 for number in range(1000)), 1.0])
    listener = Lines(Screen(progress="json"), clock=lambda: next(times))
    listener(Started(task="t", total=1000, unit="x"))
    for number in range(1000):
        listener(Advanced(task="t", done=number + 1))
    listener(Finished(task="t", done=1000, seconds=1))
    found = lines(capsys.readouterr().err)
    assert len(found) <= 13 and found[-1]["done"] == 1000


def test_which_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    kinds = {"auto": Plain, "plain": Plain, "none": Plain, "json": Lines, "bar": Bars}
    for mode, kind in kinds.items():
        with listening(Screen(progress=mode)) as listener:  # type: ignore[arg-type]
            assert isinstance(listener, kind), mode
    assert draws(True) and not draws(False)
    for name, value in (("TERM", "dumb"), ("CI", "true")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not draws(True)


@pytest.mark.parametrize("width", [20, 40, 250])
@pytest.mark.parametrize("command", [("--help",), ("count-words", "--help"), ("list", "--table")])
def test_any_width_loses_nothing(run: Run, width: int, command: tuple[str, ...]) -> None:
    narrow, wide = (run(*command, COLUMNS=str(columns)) for columns in (width, 120))
    assert max(map(len, narrow.out.splitlines())) <= width
    letters = "".join(filter(str.isalnum, narrow.out))
    # a list has no heading for its first column, and narrow help files `--help` under another heading
    for word in set(wide.out.replace("|", " ").split()) - {"name", "Options"}:
        if word.isalnum():
            assert word in letters, word


def test_columns_that_fit() -> None:
    rows = [("a" * 30, "b")]
    assert fits(("x", "y"), rows, 17) and not fits(("x", "y"), rows, 16)
    assert fits(("x", "y"), [("a", "b")], 4)


ASCII = [
    {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "C"}, {"TERM": "dumb"},
]  # fmt: skip


@pytest.mark.parametrize("extra", ASCII, ids=str)
def test_ornaments_become_ascii(run: Run, extra: dict[str, str]) -> None:
    for command in (("--help",), ("count-words", "--help"), ("list", "methods", "--table"), ("shwo",)):
        done = run(*command, **extra)
        assert (done.out + done.err).isascii(), command
        assert "Error" not in done.err


def test_sentences_of_ours_are_spelt_in_ascii(run: Run, tmp_path: Path) -> None:
    done = run("count-words", "a.txt", "--out", "…→ő", "--progress", "plain", PYTHONIOENCODING="ascii")
    assert "...->\\u0151" in done.err


def test_a_broken_stderr_does_not_stop_the_work(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("egy két három egy\n", encoding="utf-8")
    for number, more in enumerate(((), ("--progress", "json"), ("--progress", "bar"), ("-o", "fail=data"))):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "tests.cli.launch", "count-words", "a.txt", "--out", f"c{number}", *more],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=writer, env=environment(), timeout=60,
        )  # fmt: skip
        os.close(writer)
        expected = (3, b"") if "fail=data" in more else (0, f"c{number}\n".encode())
        assert (done.returncode, done.stdout) == expected, more


def test_a_signal_is_answered_at_once(run: Run) -> None:
    done = run("count-words", "a.txt", "--out", "c", "-o", "fail=signal")
    assert done.code == 75
    assert "SIGTERM: saving and stopping" in done.err


def test_list_and_version(call: Run) -> None:
    assert "se\tNorthern Sami\n" in call("list", "langs", "SAMI").out
    assert call("list", "methods", "mean").out.startswith("mean\tembed\t")
    assert "langadapt show method mean" in call("list", "methods", "mean").err
    assert call("list", "langs", "xyzzy").code == call("list", "verbs", "xyzzy").code == 2
    assert all(line.split("\t")[0] in ("verbs", "methods", "recipes") for line in call("list").out.splitlines())
    for words in (("--version", "--json"), ("--json", "--version")):
        assert set(json.loads(call(*words).out)) == {"schema", "version", "python"}
