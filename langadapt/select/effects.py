"""What neurons of languages do: those of one language are silenced, and every language is scored without them.

A silenced neuron passes nothing on: what the down matrix reads of it is 0, whatever the text. Each set has a control,
as many neurons drawn from all.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from langadapt.core.progress import Task
from langadapt.core.rng import stream
from langadapt.core.types import Table
from langadapt.model.anatomy import Neurons
from langadapt.select.choice import by_layer

Ids = np.ndarray[Any, np.dtype[np.int32]]
# Bits per byte of each language, of the model as it is at the moment of the call.
Score = Callable[[], Mapping[str, float]]


@contextmanager
def silenced(model: Any, neurons: Sequence[Neurons], chosen: Sequence[Sequence[int]]) -> Iterator[None]:
    """Within this block the chosen neurons of each layer are 0; a layer without any is left alone, hook and all."""
    import torch

    modules, handles = dict(model.named_modules()), []
    for layer, ids in zip(neurons, chosen, strict=True):
        if len(ids):
            places = torch.tensor(list(ids), dtype=torch.long, device=model.device)

            def hook(module: Any, given: tuple[Any, ...], places: Any = places) -> tuple[Any, ...]:
                return (given[0].index_fill(-1, places, 0), *given[1:])

            handles.append(modules[layer.down.module].register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def effects(
    model: Any,
    neurons: Sequence[Neurons],
    sets: Mapping[str, Sequence[Sequence[int]]],
    score: Score,
    *,
    seed: int,
    progress: Task,
) -> dict[str, Any]:
    """Bits per byte of each language, and by how much they grow without the neurons of each set, layer by layer.

    `random` is the same without as many neurons drawn from all; each set has its own draw.
    """
    plain = dict(score())
    progress.advance()
    widths = [layer.width for layer in neurons]
    found: dict[str, Any] = {"bits_per_byte": _rounded(plain), "change": {}, "random": {}}
    for name, chosen in sorted(sets.items()):
        count = sum(map(len, chosen))
        drawn = stream(seed, "select", "effects", name).choice(sum(widths), size=count, replace=False)
        control = [ids.tolist() for ids in by_layer(np.sort(drawn).astype(np.int32), widths)]
        for key, each in (("change", chosen), ("random", control)):
            with silenced(model, neurons, each):
                now = score()
            found[key][name] = _rounded({lang: now[lang] - plain[lang] for lang in plain})
            progress.advance()
    return found


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {lang: round(value, 6) for lang, value in sorted(values.items())}


def table(found: Mapping[str, Any], counts: Mapping[str, int]) -> Table:
    """One row a set: the neurons of a language, and as many at random; one column a language that is scored."""
    langs = sorted(found["bits_per_byte"])
    rows = [("nothing", "0", *(f"{found['bits_per_byte'][lang]:.4f}" for lang in langs))]
    for name in sorted(found["change"]):
        for key, words in (("change", f"neurons of {name}"), ("random", "as many at random")):
            rows.append((words, f"{counts[name]:,}", *(f"{found[key][name][lang]:+.4f}" for lang in langs)))
    note = "bits per byte; below the first row their change. A set is of its language if its own column grows most"
    return Table("without", ("silenced", "neurons", *langs), tuple(rows), (note,), key="without")
