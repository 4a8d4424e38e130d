"""A command line in a child process, with the toy verb: what a shell sees."""

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Done:
    """What a command left."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


def environment(**extra: str) -> dict[str, str]:
    drop = (
        "NO_COLOR",
        "FORCE_COLOR",
        "COLUMNS",
        "LC_ALL",
        "LANG",
        "PYTHONUTF8",
        "PYTHONIOENCODING",
        "LANGADAPT_LID_MODEL",
    )
    kept = {key: value for key, value in os.environ.items() if key not in drop}
    return kept | {"PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "COLUMNS": "100"} | extra


@pytest.fixture()
def run(tmp_path: Path) -> Run:
    """`run("count-words", "a.txt", ...)` in an empty folder with one text file; stdout and stderr are pipes."""
    (tmp_path / "a.txt").write_text("egy két három egy\n", encoding="utf-8")

    def call(*arguments: str, stdin: bytes = b"", module: str = "tests.cli.launch", **extra: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=tmp_path, input=stdin, capture_output=True, env=environment(**extra), timeout=60,
        )  # fmt: skip
        return Done(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))

    return call


@pytest.fixture()
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """The same in this process, where what the streams are makes no difference."""
    import langadapt.steps
    from langadapt.cli.app import main
    from tests.cli.launch import TOYS

    (tmp_path / "a.txt").write_text("egy két három egy\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["langadapt"])
    paths = [str(TOYS), *(path for path in langadapt.steps.__path__ if path != str(TOYS))]
    before = list(langadapt.steps.__path__)
    monkeypatch.setenv("COLUMNS", "100")

    def inner(*arguments: str, stdin: bytes = b"", **extra: str) -> Done:
        for key, value in extra.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        langadapt.steps.__path__[:] = paths
        try:
            main(list(arguments))
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            langadapt.steps.__path__[:] = before
        found = capfdbinary.readouterr()
        return Done(code, found.out.decode("utf-8", "replace"), found.err.decode("utf-8", "replace"))

    return inner


@pytest.fixture()
def terminal(tmp_path: Path) -> Run:
    """The same on a pseudo-terminal: both streams in `out`."""
    (tmp_path / "a.txt").write_text("egy két három egy\n", encoding="utf-8")

    def call(*arguments: str, **extra: str) -> Done:
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.launch", *arguments],
            cwd=tmp_path, stdin=slave, stdout=slave, stderr=slave, env=environment(TERM="xterm-256color", **extra),
        )  # fmt: skip
        os.close(slave)
        parts = []
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            parts.append(part)
        os.close(master)
        return Done(process.wait(60), b"".join(parts).decode("utf-8", "replace"), "")

    return call
