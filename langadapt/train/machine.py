"""The device and the threads to train with."""

from typing import Literal

import torch

from langadapt.core.errors import ResourceError
from langadapt.core.host import load


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The GPU if there is one and it was not excluded; ResourceError if one was asked for and there is none."""
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ResourceError("no CUDA device is available", hint="use `--device cpu`, or see `langadapt doctor`")
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def busy_with(device: torch.device) -> str | None:
    """What else runs here, in words, when it is more than the cores can do at once; None when not, or not known.

    A step that is timed meanwhile says little about a quiet machine: threads that wait for each other lose more than
    their share of the time. A GPU has its own queue, so there it is None.
    """
    return load() if device.type == "cpu" else None
