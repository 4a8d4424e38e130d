"""A loaded model made ready: what of it moves, an adapter where one was asked for, and how the result is written."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from langadapt.core.progress import Progress
from langadapt.core.types import Movable
from langadapt.model.row_origin import copy_origin
from langadapt.model.save import stored_as, write_model
from langadapt.model.weights import open_weights

if TYPE_CHECKING:
    from langadapt.train.adapters import Adapter
    from langadapt.train.drift import Drift
    from langadapt.train.optimiser import Ints, Optimiser


@dataclass(frozen=True)
class Trainable:
    """`names` are the parameters of `model`, as it is now, that move."""

    model: Any
    names: frozenset[str]
    movable: Movable
    adapter: "Adapter | None" = None

    @property
    def parameters(self) -> int:
        """Numbers that move."""
        return sum(value.numel() for name, value in self.model.named_parameters() if name in self.names)

    def drift(self, optimiser: "Optimiser", base: Path, *, old_rows: int | None, new_rows: "Ints | None") -> "Drift":
        """How far it has gone from the files in `base`."""
        from langadapt.train.drift import Drift

        slices, adapter = self.movable.slices, self.adapter
        return Drift(self.model, optimiser, base, slices=slices, adapter=adapter, old_rows=old_rows, new_rows=new_rows)

    def write(
        self, base: Path, out: Path, texts: Sequence[Sequence[int]], *, progress: Progress
    ) -> dict[str, float] | None:
        """Write the model folder; with an adapter, what merging and writing changed of the logits of `texts`."""
        copy_origin(base, out)
        if self.adapter is None:
            replace = {name: value for name, value in self.model.named_parameters() if name in self.names}
            write_model(base, out, replace, progress=progress)
            return None
        from langadapt.train.merge import write_merged

        found = write_merged(self.adapter, base, out, texts, keep=self.movable.keep_adapter, progress=progress)
        return {"merging": found.merging, "reading": found.reading}


def make_trainable(
    model: Any, movable: Movable, *, seed: int, folder: Path | None, compute: Literal["fp32", "bf16"]
) -> Trainable:
    """Put the adapter in, if there is one; `folder` holds the model's files (None: a model without values).

    Computing in bf16, frozen matrices are kept as the files store them. ConfigError: an adapter that cannot be used.
    DataError: something would move that the files have no tensor for, which would be found only when it is written.
    """
    if movable.adapter is None:
        _check_stored(folder, movable.names)
        return Trainable(model, movable.names, movable)
    from langadapt.train.adapters import attach
    from langadapt.train.merge import stored_dtypes
    from langadapt.train.stored import keep_stored

    adapter = attach(model, movable.adapter, movable.names, seed=seed)
    bases = {f"{name}.{part}" for name, layer in adapter.layers.items()
             for part, _ in layer.get_base_layer().named_parameters()}  # fmt: skip
    _check_stored(folder, movable.names | bases)
    if folder is not None and compute == "bf16" and adapter.kind in _READS_NARROW:
        keep_stored(model, adapter.names, stored_dtypes(folder))
    return Trainable(model, adapter.names, movable, adapter)


def _check_stored(folder: Path | None, names: Collection[str]) -> None:
    if folder is not None:
        weights = open_weights(folder)
        for name in sorted(names):
            stored_as(weights, name.replace(".base_layer.", "."))


# Adapters that use the frozen matrix through its layer only; others multiply it by their own fp32 matrices.
_READS_NARROW = frozenset({"LORA", "LOHA", "LOKR", "IA3", "VERA"})
