"""Kill the runner, signal it, run it twice at once: nothing is done twice, nothing is left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from langadapt.core.artifact import is_artifact
from langadapt.recipe.document import Setting
from tests.fixtures import toys
from tests.fixtures.toys import ROOT

RECIPE = (
    "vars: {act: null}\nsteps:\n  one: {use: note, text: a.txt, act: '${act}'}\n  two: {use: join, parts: {x: one}}\n"
)


@pytest.fixture
def start(tmp_path: Path):  # type: ignore[no-untyped-def]
    (tmp_path / "a.txt").write_text("aaa")
    (tmp_path / "r.yaml").write_text(RECIPE)
    running: list[subprocess.Popen[str]] = []

    def launch(*settings: str, group: bool = False) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.fixtures.toys", "run", "r.yaml", "out", *settings]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=group,
        )  # fmt: skip
        running.append(process)
        return process

    yield launch
    for process in running:
        process.kill()
        process.communicate()


def step_process(folder: Path, seconds: float = 60) -> int:
    """Process id of the step that is running, once it is at work."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for marker in folder.glob("out/steps/one-*.partial/marker"):
            if text := marker.read_text():
                return int(text)
        time.sleep(0.02)
    raise AssertionError("the step did not start")


def gone(process: int, seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_gives_75_and_the_same_command_goes_on(start, tmp_path: Path, number: int) -> None:  # type: ignore[no-untyped-def]
    first = start("act=wait")
    child = step_process(tmp_path)
    first.send_signal(number)
    _, told = first.communicate(timeout=100)
    assert first.returncode == 75, told
    assert "Interrupted" in told and signal.Signals(number).name in told and "run the same command" in told
    assert gone(child)
    second = start("act=wait")
    out, told = second.communicate(timeout=100)
    assert (second.returncode, out) == (0, "one=continue two=new"), told


def test_a_signal_to_all_processes_counts_once(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """As Slurm does it: the step gets the signal from the scheduler and from the runner."""
    first = start("act=wait")
    child = step_process(tmp_path)
    os.kill(child, signal.SIGTERM)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=100)
    assert first.returncode == 75


def test_kill_9_of_the_runner_takes_the_step_with_it(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first = start("act=wait")
    child = step_process(tmp_path)
    first.kill()
    first.wait()
    assert gone(child), "an orphan would hold the lock and go on"
    second = start("act=wait")
    out, told = second.communicate(timeout=100)
    assert (second.returncode, out) == (0, "one=continue two=new"), told


def test_kill_9_of_the_step_is_an_error_and_the_same_command_goes_on(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first = start("act=wait")
    os.kill(step_process(tmp_path), signal.SIGKILL)
    _, told = first.communicate(timeout=100)
    assert first.returncode == 5 and "killed" in told
    second = start("act=wait")
    assert second.communicate(timeout=100)[0] == "one=continue two=new"


def test_two_runs_at_once_share_the_work(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Each step is made once. Which run makes a step that both have reached is left open."""
    first = start("act=slow")
    step_process(tmp_path)
    second = start("act=slow")
    ends: list[dict[str, str]] = []
    for run in (first, second):
        out, told = run.communicate(timeout=100)
        assert run.returncode == 0, told
        ends.append(dict(pair.split("=") for pair in out.split()))
    assert [end["one"] for end in ends] == ["new", "up-to-date"], "the second one waited and reused it"
    assert sorted(end["two"] for end in ends) == ["new", "up-to-date"]
    for step in ("one", "two"):
        made = [path for path in (tmp_path / "out/steps").glob(f"{step}-*") if is_artifact(path)]
        assert len(made) == 1
    assert not list((tmp_path / "out/steps").glob("*.tmp-*"))


def test_a_waiting_run_can_be_stopped(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    start("act=wait")
    step_process(tmp_path)
    second = start("act=wait")
    time.sleep(2)
    assert second.poll() is None
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=100)
    assert second.returncode == 75


BOTH = "vars: {act: null}\nsteps:\n" + "".join(
    f"  {name}: {{use: note, text: a.txt, act: '${{act}}', size: {size}}}\n" for name, size in (("one", 1), ("two", 2))
)


def both_at_work(folder: Path, seconds: float = 60) -> list[int]:
    """Process ids of two steps that run side by side, once both are at work."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = [int(text) for marker in folder.glob("out/steps/*.partial/marker") if (text := marker.read_text())]
        if len(found) == 2:
            return found
        time.sleep(0.02)
    raise AssertionError("the steps did not start")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_reaches_all_steps_that_run_side_by_side(start, tmp_path: Path, number: int) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "r.yaml").write_text(BOTH)
    first = start("act=wait", "--jobs=2")
    children = both_at_work(tmp_path)
    first.send_signal(number)
    _, told = first.communicate(timeout=100)
    assert first.returncode == 75, told
    assert all(gone(child, 60) for child in children)
    second = start("act=wait", "--jobs=2")
    out, told = second.communicate(timeout=100)
    assert (second.returncode, out) == (0, "one=continue two=continue"), told


def test_kill_9_of_the_runner_takes_all_steps_with_it(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "r.yaml").write_text(BOTH)
    first = start("act=wait", "--jobs=2")
    children = both_at_work(tmp_path)
    first.kill()
    first.wait()
    assert all(gone(child, 60) for child in children), "an orphan would hold a lock and go on"
    second = start("act=wait", "--jobs=2")
    out, told = second.communicate(timeout=100)
    assert (second.returncode, out) == (0, "one=continue two=continue"), told


def test_status_says_who_is_at_work(start, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from langadapt.recipe.graph import build
    from langadapt.recipe.plan import plan

    patch = pytest.MonkeyPatch()
    try:
        toys.install(patch)
        first = start("act=wait")
        child = step_process(tmp_path, 60)
        settings = (Setting.parse("act=wait"),)
        look = plan(build(tmp_path / "r.yaml", settings, cwd=tmp_path), tmp_path / "out", estimates=False).looks[0]
        assert look.standing == "running" and look.reason.startswith(f"process {child} on ")
        first.kill()
        first.wait()
        assert gone(child, 60)
        look = plan(build(tmp_path / "r.yaml", settings, cwd=tmp_path), tmp_path / "out", estimates=False).looks[0]
        assert look.standing == "partial" and look.reason == "an earlier run was interrupted"
    finally:
        patch.undo()
