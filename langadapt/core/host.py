"""The machine and the versions that a run record names; nothing of this is ever hashed."""

import platform
import resource
import socket
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

VERSIONED = ("langadapt", "torch", "transformers", "tokenizers", "safetensors", "numpy")


def peak_memory_bytes() -> int:
    """Highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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
