"""Native code in a process of its own: what it says comes back, and its limits hold."""

import signal
import sys
import time

import pytest

from langadapt.core import interrupt
from langadapt.core.child import Ended, run_child
from langadapt.core.errors import Interrupted

HUGE = 64 * 1024**3


def run(
    code: str, *arguments: str, seconds: float | None = 30.0, memory: int | None = HUGE, given: bytes = b""
) -> Ended:
    return run_child(code, arguments, seconds=seconds, memory_bytes=memory, given=given, environment={"COLOUR": "red"})


def test_arguments_input_and_environment_arrive_and_output_comes_back() -> None:
    code = (
        "import os, sys; print(sys.argv[1:], sys.stdin.read(), os.environ['COLOUR']); print('a\\nb', file=sys.stderr)"
    )
    ended = run(code, "x y", "-z", given="ő".encode())
    assert (ended.code, ended.output.decode(), ended.said) == (0, "['x y', '-z'] ő red\n", "b")
    assert run(code, seconds=None, memory=None).code == 0


def test_much_input_arrives_whole_also_if_the_child_is_slow_to_read_it() -> None:
    code = "import sys, time; time.sleep(0.3); print(len(sys.stdin.buffer.read()))"
    assert run(code, given=b"ab" * 1_000_000) == Ended(0, b"2000000\n", "")


def test_failures_are_told_apart() -> None:
    assert run("import sys; sys.exit(9)") == Ended(9, b"", "")
    raised = run("raise ValueError('no table')")
    assert (raised.code, raised.said) == (1, "ValueError: no table")
    assert run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)").code == -signal.SIGSEGV


def test_time_is_limited() -> None:
    began = time.monotonic()
    ended = run("import sys, time; print('on', flush=True); time.sleep(600)", seconds=0.3)
    assert ended.code is None and time.monotonic() - began < 60


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count address space in another way")
def test_memory_is_limited() -> None:
    code = "import sys; held = bytearray(int(sys.argv[1])); print(len(held))"
    assert run(code, "1000", memory=1024**3).output == b"1000\n"
    ended = run(code, str(3 * 1024**3), memory=1024**3)
    assert (ended.code, ended.said) == (1, "MemoryError")


def test_a_signal_ends_the_child_and_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter(range(3))

    def poll() -> None:
        if next(looks, None) is None:
            raise Interrupted("stopped")

    monkeypatch.setattr(interrupt, "poll", poll)
    began = time.monotonic()
    with pytest.raises(Interrupted):
        run("import time; time.sleep(600)", seconds=None)
    assert time.monotonic() - began < 60
