"""Signals become a flag that loops look at; the second signal of the same kind ends the process at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from langadapt.core.errors import Interrupted

# SIGUSR1 is what Slurm sends with `--signal=USR1@300`, SIGTERM what it sends at the limit.
HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_seen: list[int] = []


def _remember(number: int, frame: FrameType | None) -> None:
    if number in _seen:
        # 128 + n is what a shell reports for a process killed by signal n; no clean-up may run here.
        os._exit(128 + number)
    _seen.append(number)


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


def requested() -> bool:
    """Has a signal asked this process to stop?"""
    return bool(_seen)


def poll() -> None:
    """Raise Interrupted if a signal has arrived; called by every loop that can take longer than a second."""
    if _seen:
        name = signal.Signals(_seen[0]).name
        raise Interrupted(f"stopped by {name}", hint="run the same command again to go on")
