"""Native code that a damaged file can crash, hang or fill the memory of runs in a process of its own, with limits."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langadapt.core import interrupt

_POLL_SECONDS = 0.05
# Address space, of which native libraries take more than they use.
MOST_MEMORY = 4 * 1024**3
# The child lowers its own limits: a function that runs between fork and exec is not safe beside threads. Systems that
# do not know a limit go without.
_LIMITS = """
import resource
for kind, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_CPU, {seconds}), (resource.RLIMIT_AS, {memory})):
    try:
        if most is not None:
            resource.setrlimit(kind, (most, most))
    except (ValueError, OSError):
        pass
"""


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (below 0: the signal), None if it was stopped after its time; what it wrote."""

    code: int | None
    output: bytes
    said: str
    """The last line on stderr."""


def run_child(
    code: str,
    arguments: Sequence[str],
    *,
    seconds: float | None,
    memory_bytes: int | None,
    given: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run Python code with `arguments` in `sys.argv[1:]` and `given` on stdin; Interrupted between two looks.

    At most `seconds` of time (None: any) and `memory_bytes` of address space (None: any).
    """
    # this one holds when we were killed; else the time on the clock is over first
    processor_seconds = None if seconds is None else round(seconds) + 5
    limits = _LIMITS.format(seconds=processor_seconds, memory=memory_bytes)
    # a group of its own: Ctrl-C in a terminal would end it, and it would look like a damaged file. What may run for
    # ever stays in ours, to end with us.
    group = None if seconds is None else 0
    began = time.monotonic()
    late = False
    # what is given lies in a file: a pipe that is fed between two looks loses what did not go through at once
    with tempfile.TemporaryFile() as file:
        file.write(given)
        file.seek(0)
        with subprocess.Popen(
            [sys.executable, "-P", "-c", limits + code, *arguments],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=group,
            env=os.environ | (environment or {}),
        ) as running:
            try:
                while True:
                    try:
                        output, error = running.communicate(timeout=_POLL_SECONDS)
                        break
                    except subprocess.TimeoutExpired:
                        interrupt.poll()
                    if not late and seconds is not None and time.monotonic() - began > seconds:
                        late = True
                        running.kill()
            finally:
                running.kill()
    # a signal that reached both of us is no fault of the file
    interrupt.poll()
    lines = error.decode("utf-8", "replace").strip().splitlines()
    return Ended(None if late else running.returncode, output, lines[-1] if lines else "")
