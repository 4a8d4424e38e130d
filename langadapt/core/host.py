"""The machine and the versions that a run record names; nothing of this is ever hashed."""

import os
import platform
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

VERSIONED = ("langadapt", "torch", "transformers", "tokenizers", "safetensors", "numpy")


_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


@dataclass
class Spent:
    """Seconds of a stretch of work, and the memory it took above what the process held before (None: not known)."""

    seconds: float = 0.0
    memory_bytes: int | None = None


# The highest memory that was seen before the system was told to count anew.
_earlier = Spent(memory_bytes=0)


@contextmanager
def spending() -> Iterator[Spent]:
    """What the work inside the block takes. Not for blocks inside each other: the inner one counts anew (Linux)."""
    spent, began = Spent(), time.monotonic()
    before = _count_anew()
    yield spent
    spent.seconds = time.monotonic() - began
    if before is not None:
        spent.memory_bytes = max(0, _status("VmHWM") - before)


def _count_anew() -> int | None:
    """Memory held now, from where the peak is counted from now on; None where the system cannot."""
    _earlier.memory_bytes = peak_memory_bytes()
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:
        return None
    return _status("VmRSS") or None


def _status(name: str) -> int:
    """A line of the kernel's account of this process, in bytes; 0 without one."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def peak_memory_bytes() -> int:
    """Highest resident memory of this process so far.

    Linux keeps it in /proc. Its getrusage goes on from what the starting process held before it became this one, so a
    small program that a large one starts would seem large.
    """
    if held := _status("VmHWM"):
        return max(held, _earlier.memory_bytes or 0)
    # macOS counts bytes, others kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_device_memory_bytes() -> int | None:
    """Most memory of a GPU that torch held for this process so far; None where none was used."""
    # not imported: most verbs do without torch, and what did not load it used no GPU
    torch = sys.modules.get("torch")
    used = torch is not None and torch.cuda.is_initialized()
    return int(torch.cuda.max_memory_reserved()) if torch is not None and used else None


def load() -> str | None:
    """What runs on this machine, in words, when it is more than its cores can do at once; None if not, or not known."""
    if not hasattr(os, "getloadavg"):
        return None
    try:
        running = os.getloadavg()[0]
    except OSError:
        return None
    cores = os.cpu_count() or 1
    return f"load {running:.1f} on {cores} core(s)" if running > cores else None


def timed_rows(busy: str | None) -> tuple[tuple[str, str], ...]:
    """What a price says that was timed on a machine in this state; nothing about a quiet one."""
    return (
        () if busy is None else (("timed while busy", f"{busy}; with nothing else running it may take far less time"),)
    )


def environment() -> dict[str, Any]:
    """Time, host, system and versions of what decides the last bits of a result."""
    versions: dict[str, str | None] = {}
    for name in VERSIONED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "versions": versions,
    }
