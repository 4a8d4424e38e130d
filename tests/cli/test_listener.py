"""Progress in a log and on a terminal."""

from pathlib import Path

import pytest

from langadapt.cli.listener import Plain, listening
from langadapt.cli.output import Screen
from langadapt.core.progress import Advanced, Finished, Progress, Started


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_plain_line_every_thirty_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    plain = Plain(Screen(), clock)
    plain(Started(task="training", total=100, unit="steps"))
    for step in range(1, 101):
        clock.now += 1
        plain(Advanced(task="training", done=step, detail=f"loss {step}"))
    plain(Finished(task="training", done=100, seconds=100))
    assert capsys.readouterr().err.splitlines() == [
        "training: 30/100 steps (30 %), 1 min 10 s left, loss 30",
        "training: 60/100 steps (60 %), 40 s left, loss 60",
        "training: 90/100 steps (90 %), 10 s left, loss 90",
        "training: 100 steps in 1 min 40 s",
    ]


def test_short_tasks_say_nothing_and_unknown_totals_have_no_share(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    plain = Plain(Screen(), clock)
    plain(Started(task="reading", total=None, unit="lines"))
    clock.now += 31
    plain(Advanced(task="reading", done=1234))
    plain(Finished(task="reading", done=1234, seconds=0.5))
    plain(Advanced(task="never started", done=5))
    assert capsys.readouterr().err == "reading: 1,234 lines\n"


def test_quiet_leaves_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(Screen(quiet=True)) as listener:
        progress = Progress(listener)
        progress.note("a note")
        progress.warn("a [bold]warning[/bold]")
        assert list(progress.track(range(3), "work")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "warning: a [bold]warning[/bold]\n")


def test_a_bar_on_a_terminal_is_gone_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(RuntimeError), listening(Screen()) as listener:
        progress = Progress(listener)
        for number in progress.track(range(10), "task [hu]", total=10):
            if number == 5:
                progress.note("note [fi]")
                raise RuntimeError
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "task [hu]" in captured.err and "note [fi]" in captured.err
    assert captured.err.count("\x1b[?25l") == captured.err.count("\x1b[?25h") == 1, "the cursor is back"


def test_screen_writes_nothing_by_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    screen = Screen(quiet=True)
    screen.say("x")
    screen.detail("y")
    Screen(verbose=0).detail("z")
    assert capsys.readouterr() == ("", "")
    Screen(verbose=1).detail("shown")
    assert capsys.readouterr() == ("", "shown\n")


def test_time_left_does_not_count_what_an_earlier_process_did(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    plain = Plain(Screen(), clock)
    plain(Started(task="training", total=100, unit="steps", done=90))
    clock.now += 30
    plain(Advanced(task="training", done=95))
    assert "30 s left" in capsys.readouterr().err
