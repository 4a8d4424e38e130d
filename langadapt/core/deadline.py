"""The end of this job's time: every loop that polls for signals stops in time for its work to be saved."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from langadapt.core import interrupt
from langadapt.core.errors import ConfigError
from langadapt.core.interrupt import Deadline

# What Slurm gives to a job (22.05 and later): seconds since 1970 at which it will be ended.
SLURM_END = "SLURM_JOB_END_TIME"
_MOST_MARGIN = 300.0
_MARGIN_SHARE = 0.1


@contextmanager
def time_limit(seconds: float | None = None, stop_before: float | None = None) -> Iterator[None]:
    """Stop what runs inside the block `stop_before` seconds before `seconds` from now are over.

    Without `seconds` the end is that of the Slurm job, if this is one; with both, the earlier one. The margin is by
    default a tenth of the time that is left, at most 5 minutes, or what a step said that it needs (`reserve`).
    A limit around this one stays. ConfigError if the margin leaves no time.
    """
    outer = interrupt.deadline()
    left = [item for item in (seconds, _slurm_seconds_left() if outer is None else None) if item is not None]
    if seconds is not None and stop_before is not None and stop_before >= seconds:
        raise ConfigError(
            f"--stop-before {stop_before:g} s leaves nothing of --time {seconds:g} s",
            hint="give more time or a smaller margin",
        )
    if not left:
        with interrupt.until(outer):
            yield
        return
    rest = min(left)
    margin = min(_MOST_MARGIN, _MARGIN_SHARE * max(rest, 0.0)) if stop_before is None else stop_before
    own = Deadline(time.monotonic() + rest, margin, fixed=stop_before is not None)
    with interrupt.until(own if outer is None or own.stop < outer.stop else outer):
        yield


def reserve(seconds: float) -> None:
    """Say that this step needs `seconds` to save its work once it is asked to stop.

    That widens a margin that nobody chose, up to half of the time that is left: work is worth more than its safety.
    """
    found = interrupt.deadline()
    if found is None or found.fixed:
        return
    most = max(0.0, (found.end - time.monotonic()) / 2)
    found.margin = max(found.margin, min(seconds, most))


def to_child() -> dict[str, float | bool] | None:
    """The limit of this process for one that it starts; None without a limit."""
    found = interrupt.deadline()
    if found is None:
        return None
    return {"seconds": found.end - time.monotonic(), "margin": found.margin, "fixed": found.fixed}


@contextmanager
def as_parent(told: Mapping[str, float | bool] | None) -> Iterator[None]:
    """Take over what `to_child` said."""
    if told is None:
        with time_limit():
            yield
        return
    limit = Deadline(time.monotonic() + float(told["seconds"]), float(told["margin"]), fixed=bool(told["fixed"]))
    with interrupt.until(limit):
        yield


def _slurm_seconds_left() -> float | None:
    given = os.environ.get(SLURM_END, "")
    return float(given) - time.time() if given.isdecimal() else None
