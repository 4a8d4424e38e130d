"""stdout carries the result and nothing else; colours, bars and markup stay where they belong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run, environment

ESCAPE = "\x1b["


def test_a_pipe_gets_the_path_only(run: Run, tmp_path: Path) -> None:
    done = run("count-words", "a.txt", "--out", "my counts")
    assert (done.code, done.out) == (0, "my counts\n")
    assert (tmp_path / done.out.rstrip("\n") / "artifact.json").is_file()
    assert "warning: toy counts only" in done.err
    assert "counted [hu] :smile:" in done.err, "text is not markup"
    again = run("count-words", "a.txt", "--out", "my counts")
    assert (again.code, again.out) == (0, "my counts\n")
    assert "up to date" in again.err


def test_json_is_one_object(run: Run) -> None:
    done = run("--json", "count-words", "a.txt", "--out", "c", "--lang", "no", "-q")
    found = json.loads(done.out)
    assert found["facts"] == {"words": 4, "types": 3, "lang": "no"}
    assert (found["schema"], found["state"], found["warnings"]) == ("langadapt/result/1", "new", ["toy counts only"])
    assert done.err == "warning: toy counts only\n", "quiet leaves warnings"


def test_no_escapes_in_pipes(run: Run) -> None:
    extra = {"FORCE_COLOR": "1", "GITHUB_ACTIONS": "true"}
    for arguments in (
        ["--help"],
        ["count-words", "--help"],
        ["list"],
        ["count-words", "a.txt", "--out", "c"],
        ["shwo"],
    ):
        done = run(*arguments, **extra)
        assert ESCAPE not in done.out + done.err


def test_a_terminal_gets_a_table_in_colours(terminal: Run) -> None:
    done = terminal("count-words", "a.txt", "--out", "c", "--lang", "hu")
    assert done.code == 0
    assert ESCAPE in done.out
    assert "words [hu]" in done.out, "a language code in brackets is not markup"
    assert "only [a] toy" in done.out
    assert done.out.count("\x1b[?25l") == done.out.count("\x1b[?25h"), "the cursor is shown again"


@pytest.mark.parametrize(("arguments", "extra"), [((), {"NO_COLOR": "1"}), (("--no-color",), {})])
def test_no_color(terminal: Run, arguments: tuple[str, ...], extra: dict[str, str]) -> None:
    for command in (["count-words", "--help"], ["list"]):
        done = terminal(*command, *arguments, **extra)
        assert ESCAPE not in done.out, command


def test_terminal_that_is_not_utf8(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ő.txt").write_text("a", encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("count-words", "ő.txt", "--out", "c", **plain)
    assert done.code == 2
    assert "`\\udcc5\\udc91.txt` is not text" in done.err and "PYTHONUTF8=1" in done.err
    done = run("count-words", "ő.txt", "--out", "ő-számok", PYTHONIOENCODING="ascii")
    assert (done.code, done.out) == (0, "ő-számok\n"), "a path is given as the bytes it has on the disk"
    assert "\\u0151.txt" in done.err, "what cannot be shown is escaped"
    assert run("count-words", "--help", **plain).code == 0
    assert run("list", "--json", **plain).out.isascii()


def test_control_characters_of_file_names_do_not_reach_the_terminal(terminal: Run) -> None:
    done = terminal("count-words", "evil\x1b[31m\x07.txt", "--out", "c", "--no-color")
    assert done.code == 3
    assert "\x1b[31m" not in done.out and "\x07" not in done.out


def test_closed_pipe(tmp_path: Path) -> None:
    for arguments in (["--help"], ["list", "--json"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "tests.cli.launch", *arguments],
            cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, env=environment(), timeout=60,
        )  # fmt: skip
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, b""), arguments


def test_wide_and_narrow(run: Run) -> None:
    for width in ("40", "200"):
        done = run("count-words", "--help", COLUMNS=width)
        assert done.code == 0
        assert max(map(len, done.out.splitlines())) <= int(width)


def test_two_streams_stay_apart_in_list_and_show(run: Run) -> None:
    done = run("list", "verbs")
    assert done.out == "count-words\tCount the words of text files [a toy]\n"
    assert done.err == ""
    assert json.loads(run("list", "--json").out)["verbs"] == [
        {"name": "count-words", "summary": "Count the words of text files [a toy]"}
    ]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(tmp_path: Path, closed: str) -> None:
    (tmp_path / "a.txt").write_text("egy két három egy\n", encoding="utf-8")
    line = f'exec "{sys.executable}" -m tests.cli.launch count-words a.txt --out c {closed}'
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, env=environment(), timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "c" / "artifact.json").is_file()


def test_an_empty_out_is_a_missing_out(run: Run, tmp_path: Path) -> None:
    done = run("count-words", "a.txt", "--out", "")
    assert done.code == 2
    assert "missing option: --out" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
