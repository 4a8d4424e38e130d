"""The device and the threads to train with."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from langadapt.core.errors import ResourceError


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The GPU if there is one and it was not excluded; ResourceError if one was asked for and there is none."""
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ResourceError("no CUDA device is available", hint="use `--device cpu`, or see `langadapt doctor`")
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


@contextmanager
def threads_set(threads: int | None) -> Iterator[None]:
    """Compute with `threads` CPU threads inside the block; None leaves the number as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
