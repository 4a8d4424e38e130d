"""Gradient checkpointing and compilation: the same layers, other ways to run them."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from langadapt.core.errors import ConfigError, ResourceError

Asked = Literal["auto", "on", "off"]
# Of the free memory, before activations are given up for time: estimates are good to 15 %.
ENOUGH = 0.85


def recompute(model: Any, asked: Asked, *, needed_bytes: int, device: torch.device) -> bool:
    """Make the model compute activations again in the backward pass; returns whether it will.

    `auto` does so where `needed_bytes` are more than what is free. Results are the same to the last bit.
    ConfigError: it was asked for and the model cannot.
    """
    able = bool(getattr(model, "supports_gradient_checkpointing", False))
    if asked == "on" and not able:
        raise ConfigError(f"{type(model).__name__} has no gradient checkpointing", hint="leave the option out")
    if asked == "off" or not able or (asked == "auto" and needed_bytes <= ENOUGH * free_memory(device)):
        return False
    # The recomputed forward pass draws the same dropout: random state is kept and put back (preserve_rng_state)
    # (transformers 6 has the second name only)
    old, new = "gradient_checkpointing", "activation_checkpointing"
    name = new if hasattr(model, f"{new}_enable") else old
    getattr(model, f"{name}_enable")(**{f"{name}_kwargs": {"use_reentrant": False}})
    return True


def free_memory(device: torch.device) -> int:
    """Bytes that this process can use, what it has already included."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + int(torch.cuda.memory_reserved(device))
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 2**62  # not Linux: the rehearsal will tell
    available = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 2**62)
    return available + pages * os.sysconf("SC_PAGE_SIZE")


def check_compiler(device: torch.device) -> None:
    """ResourceError if compiling for this device needs a compiler that is not there."""
    if device.type == "cpu" and not _compiler():
        raise ResourceError(
            "`--compile` needs a C++ compiler, and none was found",
            hint="install one (`apt-get install g++`) or name it in CXX; or leave `--compile` out",
        )


def compile_layers(model: nn.Module) -> "Callable[[], Any]":
    """Compile each decoder layer, for fixed shapes; returns a context in which they run as they were.

    Layers of one kind share their code, so compiling takes as long as one of them. Probes have other shapes: run
    compiled, what they leave in the compiler would depend on whether a run was interrupted. ConfigError: no layers.
    """
    layers = layers_of(model)
    if not layers:
        raise ConfigError(f"{type(model).__name__} has no list of layers to compile", hint="leave `--compile` out")
    for layer in layers:
        layer.compile(dynamic=False)

    @contextmanager
    def plainly() -> Iterator[None]:
        compiled = [layer._compiled_call_impl for layer in layers]
        for layer in layers:
            layer._compiled_call_impl = None
        try:
            yield
        finally:
            for layer, call in zip(layers, compiled, strict=True):
                layer._compiled_call_impl = call

    return plainly


def _compiler() -> str | None:
    named = os.environ.get("CXX")
    return next(
        (path for name in ([named] if named else ["g++", "clang++", "c++"]) if (path := shutil.which(name))), None
    )


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The entries of the longest list of modules."""
    lists: list[nn.ModuleList] = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    lists.sort(key=lambda each: -len(each))
    return list(lists[0]) if lists else []
