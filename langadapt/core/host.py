"""The machine and the versions that a run record names; nothing of this is ever hashed."""

import platform
import resource
import socket
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

VERSIONED = ("langadapt", "torch", "transformers", "tokenizers", "safetensors", "numpy")


_STATUS = Path("/proc/self/status")


def peak_memory_bytes() -> int:
    """Highest resident memory of this process so far.

    Linux keeps it in /proc. Its getrusage goes on from what the starting process held before it became this one, so a
    small program that a large one starts would seem large.
    """
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    # macOS counts bytes, others kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


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
