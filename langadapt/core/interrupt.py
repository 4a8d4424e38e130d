"""Signals and the end of the job's time become a flag that loops look at.

The second signal of the same kind ends the process at once.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from langadapt.core.errors import Interrupted

# SIGUSR1 is what Slurm sends with `--signal=USR1@300`, SIGTERM what it sends at the limit.
HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_seen: list[int] = []
_tell: Callable[[int], None] | None = None


@dataclass
class Deadline:
    """When the job ends (`time.monotonic`), and how many seconds before that work has to stop.

    `fixed`: the user chose the margin, and no step may widen it.
    """

    end: float
    margin: float
    fixed: bool = False

    @property
    def stop(self) -> float:
        """The moment at which work has to stop."""
        return self.end - self.margin


_deadline: Deadline | None = None


def _remember(number: int, frame: FrameType | None) -> None:
    if number in _seen:
        # 128 + n is what a shell reports for a process killed by signal n; no clean-up may run here.
        os._exit(128 + number)
    _seen.append(number)
    if _tell is not None:
        _tell(number)


@contextmanager
def telling(tell: Callable[[int], None]) -> Iterator[None]:
    """Within this block `tell` is called at the first signal: the work may take a while to come to its next look.

    It runs inside the signal handler, so it may do no more than `os.write`.
    """
    global _tell
    before, _tell = _tell, tell
    try:
        yield
    finally:
        _tell = before


@contextmanager
def signals_as_flag() -> Iterator[None]:
    """Within this block the first signal only sets the flag; the old handlers come back at the end."""
    _seen.clear()
    before = {number: signal.signal(number, _remember) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def request(number: int) -> None:
    """Set the flag as if signal `number` had arrived: a runner passes its own signals on to the step it waits for."""
    if number not in _seen:
        _seen.append(number)


def received() -> tuple[int, ...]:
    """The signals that have arrived, in order."""
    return tuple(_seen)


@contextmanager
def until(deadline: Deadline | None) -> Iterator[None]:
    """Within this block the time of the job is limited; the limit from before comes back at the end."""
    global _deadline
    before, _deadline = _deadline, deadline
    try:
        yield
    finally:
        _deadline = before


def deadline() -> Deadline | None:
    """The limit that is in force."""
    return _deadline


def requested() -> bool:
    """Has a signal or the end of its time asked this process to stop?"""
    return bool(_seen) or (_deadline is not None and time.monotonic() >= _deadline.stop)


def poll() -> None:
    """Raise Interrupted if a signal has arrived or time is up; for every loop that can take longer than a second."""
    if not requested():
        return
    if _seen:
        name = signal.Signals(_seen[0]).name
        raise Interrupted(f"stopped by {name}", hint="run the same command again to go on")
    raise Interrupted("stopped before the job's time is over", hint="run the same command again to go on")
