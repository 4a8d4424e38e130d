"""How text becomes statistics: the model loaded for it, the loop that keeps what it has, what a token costs.

`calibrate` reads corpora, `cpt` the blocks that it will train on; what happens to their windows is the same.
"""

import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core import interrupt
from langadapt.core.artifact import Artifact

if TYPE_CHECKING:
    import torch

    from langadapt.model.compute import AskedCompute, AskedDevice, Compute
    from langadapt.select.measure import Meter, Window
    from langadapt.steps._calibrate_kept import Kept
    from langadapt.train.footprint import Shape, Work

# A kill loses at most this much work; what is kept is a few MB for a small model and 50 MB for one of 7B.
KEEP_SECONDS = 30.0
# Adding up what hooks see, as a share of the layer's own time.
_WATCHING = {"fp32": 0.06, "bf16": 0.15}
# A backward pass through frozen matrices is one product more; with its own hooks and without inference mode.
_BACKWARD = 1.3


def load_meter(
    folder: Path,
    compute: "AskedCompute",
    device: "AskedDevice",
    *,
    taylor: bool,
) -> "Meter":
    """A model, loaded in the dtype that it is computed in, with what adds up its activity."""
    import torch

    from langadapt.model.anatomy import anatomy
    from langadapt.model.compute import choose_device, resolve_compute
    from langadapt.model.load import load_model
    from langadapt.select.measure import Meter

    where = choose_device(device)
    dtype = torch.bfloat16 if resolve_compute(compute, where) == "bf16" else torch.float32
    loaded = load_model(folder, dtype=dtype).to(where)
    return Meter(loaded, anatomy(loaded), taylor=taylor)


def go_on(meter: "Meter", kept: "Kept", lang: str) -> Artifact | None:
    """Begin a language where an earlier process stopped; returns what it kept, None at the beginning."""
    from langadapt.select.statistics import read_language

    state = kept.newest(lang)
    meter.start()
    if state is not None:
        meter.start(read_language(state.path, lang), int(state.facts["windows"]))
    return state


def reading(
    meter: "Meter", kept: "Kept", lang: str, windows: "Iterator[Window]", beside: Mapping[str, Any]
) -> "Iterator[tuple[list[Window], int]]":
    """Read what is left of `windows`; gives each batch and how many of its tokens counted.

    Every half minute, and when the run is to stop, what was measured is kept, with the facts `beside`.
    """
    from langadapt.select.measure import BATCH_TOKENS, batches

    saved = time.monotonic()
    for batch in batches(islice(windows, meter.windows, None), BATCH_TOKENS[meter.device.type]):
        yield batch, meter.add(batch)
        if interrupt.requested() or time.monotonic() - saved >= KEEP_SECONDS:
            kept.save(meter.found(lang), meter.windows, dict(beside))
            saved = time.monotonic()
        interrupt.poll()


def work_of(window_tokens: int, compute: "Compute", device: "torch.device") -> "Work":
    """How much is read at once."""
    from langadapt.select.measure import BATCH_TOKENS
    from langadapt.train.footprint import Work

    together = max(1, BATCH_TOKENS[device.type] // window_tokens)
    return Work(window_tokens, together, together, compute)


def token_seconds(shape: "Shape", work: "Work", device: "torch.device", *, taylor: bool) -> tuple[float, float]:
    """Seconds that a token takes, and those of the head's product for it: one layer is timed on this machine."""
    from langadapt.train.cost import forward_seconds

    layer = forward_seconds(shape, work, device=device)
    body = layer * shape.layers * (1 + _WATCHING[work.compute])
    head = layer * shape.rows / shape.layer_width
    return (body + head) * (1 + _BACKWARD) if taylor else body, head
