"""The precision a forward pass computes in: what was asked for, or what this machine is good at."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Compute = Literal["fp32", "bf16"]
AskedCompute = Literal["auto", "fp32", "bf16"]

# Products timed together: about 10 ms, far above the resolution of the clock.
_ROUND = 4
# CPU features with bf16 matrix units. There bf16 autocast scores text 1.9x as fast and moves bits per byte by 0.0008;
# elsewhere bf16 is emulated and slower than fp32.
_UNITS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})


def resolve_compute(asked: AskedCompute) -> Compute:
    """`auto` is bf16 where the device has bf16 matrix units, else fp32."""
    if asked != "auto":
        return asked
    return "bf16" if has_bf16_units() else "fp32"


def has_bf16_units() -> bool:
    """Does the GPU, or without one the CPU, have bf16 matrix units?"""
    import torch

    if torch.cuda.is_available():
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


def matrix_rate(compute: Compute, threads: int | None = None) -> float:
    """Floating-point operations per second of a matrix product of a small model's size, measured in 0.2 seconds.

    The fastest of all rounds counts: other work on the machine only ever makes one slower.
    """
    import time

    import torch

    with threads_set(threads):
        left, right = torch.full((512, 576), 0.5), torch.full((576, 1536), 0.5)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=compute == "bf16"):
            torch.matmul(left, right)
            best, until = float("inf"), time.perf_counter() + 0.2
            while (began := time.perf_counter()) < until:
                for _ in range(_ROUND):
                    torch.matmul(left, right)
                best = min(best, (time.perf_counter() - began) / _ROUND)
    return 2.0 * 512 * 576 * 1536 / best
