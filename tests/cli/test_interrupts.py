"""Ctrl-C and TERM on a real terminal while a bar is drawn: the cursor comes back, the exit code says what happened.

The signals of a pipe or a batch system are in tests/faults; what a bar leaves on an error is in test_listener.py.
"""

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import environment

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
TOY = ("-m", "tests.cli.launch", "count-words", "a.txt", "--out", "c", "-o")
# a command that keeps nothing leaves the signals to Python; it shows progress all the same
PLAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from itertools import count
from langadapt.cli import app
from langadapt.cli.listener import listening
from langadapt.cli.output import screen
from langadapt.core.progress import Progress
def work(arguments):
    with listening(screen) as listener:
        for _ in Progress(listener).track(count(), "waiting"):
            pass
app._dispatch = work
app.main([])
"""


class Session:
    """A command on a terminal of its own: keys go in, what it draws comes out."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        (folder / "a.txt").write_text("egy két három egy\n", encoding="utf-8")
        self.master, self.slave = pty.openpty()
        self.settings = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, stdin=self.slave, stdout=self.slave, stderr=self.slave,
            env=environment(TERM="xterm-256color", CI=""), start_new_session=True,
            # Ctrl-C is sent to the foreground group of the terminal that controls a session
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.shown = ""

    def until(self, text: str) -> None:
        """Read until it has drawn `text`."""
        while text not in self.shown:
            assert select.select([self.master], [], [], 60)[0], f"no `{text}` in {self.shown!r}"
            self.shown += os.read(self.master, 65536).decode("utf-8", "replace")

    def press_ctrl_c(self) -> None:
        os.write(self.master, b"\x03")

    def end(self) -> int:
        """Its exit code; everything that it has drawn is in `shown`."""
        code = self.process.wait(60)
        while select.select([self.master], [], [], 0)[0]:
            self.shown += os.read(self.master, 65536).decode("utf-8", "replace")
        return code


@pytest.fixture()
def sessions() -> Iterator[list[Session]]:
    started: list[Session] = []
    yield started
    for session in started:
        session.process.kill()
        session.process.wait()
        os.close(session.master)
        os.close(session.slave)


def check(session: Session) -> None:
    """The terminal is as a person wants to find it."""
    assert session.shown.count(HIDE) == 1, "a bar was drawn"
    assert session.shown.rfind(SHOW) > session.shown.rfind(HIDE), "the cursor is shown"
    assert "Traceback" not in session.shown and "Exception" not in session.shown
    assert termios.tcgetattr(session.slave) == session.settings


def test_ctrl_c_with_a_bar(tmp_path: Path, sessions: list[Session]) -> None:
    session = Session(tmp_path, *TOY, "fail=wait")
    sessions.append(session)
    session.until("waiting")
    session.press_ctrl_c()
    assert session.end() == 75
    check(session)
    assert "SIGINT: saving and stopping" in session.shown and "error: stopped by SIGINT" in session.shown.replace(
        "\x1b[1;31m", ""
    ).replace("\x1b[0m", "")
    assert not (tmp_path / "c").exists() and not list(tmp_path.glob("c.tmp*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_twice_with_a_bar(tmp_path: Path, sessions: list[Session], number: int) -> None:
    session = Session(tmp_path, *TOY, "fail=deaf")
    sessions.append(session)
    session.until("waiting")
    for time in ("first", "second"):
        if number == signal.SIGINT:
            session.press_ctrl_c()
        else:
            os.kill(session.process.pid, number)
        if time == "first":
            session.until("once more ends at once")
    assert session.end() == 128 + number
    check(session)


def test_ctrl_c_in_a_command_that_keeps_nothing(tmp_path: Path, sessions: list[Session]) -> None:
    session = Session(tmp_path, "-c", PLAIN)
    sessions.append(session)
    session.until("waiting")
    session.press_ctrl_c()
    assert session.end() == 130
    check(session)
