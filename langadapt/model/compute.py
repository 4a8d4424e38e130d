"""Where and in which precision models compute: what was asked for, or what this machine is good at."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from langadapt.core.errors import ConfigError, ResourceError
from langadapt.core.host import load

if TYPE_CHECKING:
    import torch

Compute = Literal["fp32", "bf16"]
AskedCompute = Literal["auto", "fp32", "bf16"]
AskedDevice = Literal["auto", "cpu", "cuda"]

# Products timed together: about 10 ms, far above the resolution of the clock.
_ROUND = 4
# CPU features with bf16 matrix units. There bf16 autocast scores text 1.9x as fast and moves bits per byte by 0.0008;
# elsewhere bf16 is emulated and slower than fp32.
_UNITS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})


def choose_device(wanted: AskedDevice = "auto") -> "torch.device":
    """The GPU if there is one and it was not excluded; ResourceError if one was asked for and there is none."""
    import torch

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ResourceError("no CUDA device is available", hint="use `--device cpu`, or see `langadapt doctor`")
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def busy_with(device: "torch.device") -> str | None:
    """What else runs here, in words, when it is more than the cores can do at once; None when not, or not known.

    A step that is timed meanwhile says little about a quiet machine: threads that wait for each other lose more than
    their share of the time. A GPU has its own queue, so there it is None.
    """
    return load() if device.type == "cpu" else None


def wait_for(device: "torch.device") -> None:
    """Until all that a GPU was given to do is done; a CPU computes at once."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def repeatable(device: "torch.device", wanted: bool = True) -> Iterator[None]:
    """Let a GPU use only kernels that give the same bits each time, unless that is not wanted; those of a CPU all do.

    To be entered before anything is computed on the GPU: cuBLAS reads its setting once. ConfigError: the model needs an
    operation that has no such kernel.
    """
    import torch
    from torch.utils import deterministic

    if device.type != "cuda" or not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, filled = torch.get_deterministic_debug_mode(), deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    # It would write into all memory that is allocated, for programs that read what they never wrote
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    except RuntimeError as error:
        if "deterministic implementation" not in str(error):
            raise
        raise ConfigError(
            f"on a GPU this model would not give the same result twice: {str(error).split(',')[0]}",
            hint="use `--device cpu`",
        ) from error
    finally:
        torch.set_deterministic_debug_mode(before)
        deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def resolve_compute(asked: AskedCompute, device: "torch.device | None" = None) -> Compute:
    """`auto` is bf16 where the device (by default the GPU, or without one the CPU) has bf16 matrix units, else fp32."""
    if asked != "auto":
        return asked
    return "bf16" if has_bf16_units(device) else "fp32"


def has_bf16_units(device: "torch.device | None" = None) -> bool:
    """Does the device, by default the GPU or without one the CPU, have bf16 matrix units?"""
    import torch

    if (device or choose_device()).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(_UNITS & cpu_features(Path("/proc/cpuinfo")))


def cpu_features(path: Path) -> frozenset[str]:
    """Feature flags of the first processor in a cpuinfo file; empty where there is none (not Linux)."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


@contextmanager
def threads_set(threads: int | None) -> Iterator[None]:
    """Compute with `threads` CPU threads inside the block; None leaves the number as it is."""
    import torch

    if threads is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def matrix_rate(compute: Compute, threads: int | None = None, device: "torch.device | None" = None) -> float:
    """Floating-point operations per second of a matrix product of a small model's size, measured in 0.2 seconds.

    The fastest of all rounds counts: other work on the machine only ever makes one slower.
    """
    import time

    import torch

    device = device or torch.device("cpu")
    with threads_set(threads):
        left, right = torch.full((512, 576), 0.5, device=device), torch.full((576, 1536), 0.5, device=device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=compute == "bf16"):
            torch.matmul(left, right)
            wait_for(device)
            best, until = float("inf"), time.perf_counter() + 0.2
            while (began := time.perf_counter()) < until:
                for _ in range(_ROUND):
                    torch.matmul(left, right)
                wait_for(device)
                best = min(best, (time.perf_counter() - began) / _ROUND)
    return 2.0 * 512 * 576 * 1536 / best
