"""What a command knows of the job it runs in: how long it may take, and the script that Slurm runs."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from langadapt.cli.options import switch
from langadapt.core.deadline import time_limit
from langadapt.core.errors import ConfigError
from langadapt.core.types import Estimate
from langadapt.core.units import parse_seconds

PANEL = "Job"
Time = Annotated[
    str | None,
    typer.Option(
        "--time",
        metavar="TIME",
        help="Wall time of this job, e.g. 8h: save and exit 75 before it is over; by default that of the Slurm job.",
        rich_help_panel=PANEL,
    ),
]
StopBefore = Annotated[
    str | None,
    typer.Option(
        "--stop-before",
        metavar="TIME",
        help="How long before; by default a tenth of the time, at most 5 min, more if a checkpoint takes longer.",
        rich_help_panel=PANEL,
    ),
]
Sbatch = Annotated[
    bool, switch("--sbatch", help="Print a Slurm script that runs this command to its end; do nothing.", panel=PANEL)
]
OPTIONS: dict[str, Any] = {"time": Time, "stop_before": StopBefore, "sbatch": Sbatch}
# Slurm counts a job's restarts; a job that comes to no checkpoint in its time would be restarted for ever.
MOST_RESTARTS = 100
_TIME = "8h"


@contextmanager
def limited(time: str | None, stop_before: str | None) -> Iterator[None]:
    """Limit the time of what runs inside the block as --time and --stop-before say."""
    with time_limit(_seconds(time, "--time"), _seconds(stop_before, "--stop-before")):
        yield


def _seconds(text: str | None, flag: str) -> float | None:
    if text is None:
        return None
    try:
        found = parse_seconds(text)
    except ValueError as error:
        raise ConfigError(str(error), where=flag) from error
    if not isinstance(found, int) or found <= 0:
        raise ConfigError(f"`{text}` is no time", where=flag)
    return found


def script(estimate: Estimate, name: str, *, arguments: Sequence[str] | None = None) -> str:
    """A batch script for this command: requeued when it exits with 75, so that it goes on until it is done.

    Memory is the estimate and a quarter; nothing is known of partitions and accounts.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = shlex.join(["langadapt", *[text for text in given if text != "--sbatch"]])
    time = _seconds(_value(given, "--time") or _TIME, "--time") or 0
    hours, rest = divmod(round(time), 3600)
    memory = max(1, round((estimate.memory_bytes or 8e9) * 1.25 / 1e9 + 0.5))
    return f"""#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem={memory}G
#SBATCH --time={hours:02d}:{rest // 60:02d}:{rest % 60:02d}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@120
# Your cluster may ask for --partition, --account and --gres=gpu:1 as well.
export OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"

srun {command}
code=$?
# 75: the time of the job was nearly over and everything is saved; the same command goes on.
if [ "$code" -eq 75 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {MOST_RESTARTS} ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def _value(arguments: Sequence[str], flag: str) -> str | None:
    """What was typed for a flag, as `--flag value` or `--flag=value`."""
    for number, text in enumerate(arguments):
        if text == flag and number + 1 < len(arguments):
            return arguments[number + 1]
        if text.startswith(flag + "="):
            return text.partition("=")[2]
    return None
