"""A loaded model made ready: what of it moves, an adapter where one was asked for, and how the result is written."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.io import write_durably
from langadapt.core.progress import Progress
from langadapt.core.types import Movable, Slice
from langadapt.model import shield
from langadapt.model.row_origin import copy_origin
from langadapt.model.save import stored_as, write_model
from langadapt.model.weights import Weights, open_weights
from langadapt.train.slices import ALL_WHOLE, Parts, put_in, put_places
from langadapt.train.stages import Moving

if TYPE_CHECKING:
    import torch

    from langadapt.model.compute import Compute
    from langadapt.train.adapters import Adapter
    from langadapt.train.drift import Drift
    from langadapt.train.merge import Replaced
    from langadapt.train.optimiser import Ints, Optimiser


@dataclass(frozen=True)
class Trainable:
    """`names` are the parameters of `model`, as it is now, that move; `parts` says which of them stand for a part.

    `movable` is what was asked for: names and slices of the model as it was loaded.
    """

    model: Any
    names: frozenset[str]
    movable: Movable
    adapter: "Adapter | None" = None
    parts: Parts = field(default=ALL_WHOLE)

    @property
    def parameters(self) -> int:
        """Numbers that move."""
        trained = sum(value.numel() for name, value in self.model.named_parameters() if name in self.names)
        return int(trained) - self.parts.held_numbers(self.model)

    def moving(self, movable: Movable) -> Moving:
        """Which of its parameters move where only a part of what it was made for does, and which places of them do not.

        A stage moves such a part.
        """
        masters = {part.name: part for part in self.parts.sliced}
        shapes = {name: value.shape for name, value in self.model.named_parameters()}
        names, still = set(movable.names), dict[str, Slice]()
        for name, part in movable.slices.items():
            if not len(part.ids):
                continue
            own = masters.get(name)
            # places of what is trained: of the moving part of a tensor, or of all of it
            every = np.arange(shapes[name][part.axis]) if own is None else own.slice.ids
            trained = name if own is None else own.master
            others = np.flatnonzero(~np.isin(every, part.ids)).astype(np.int32)
            names.add(trained)
            if len(others):
                still[trained] = Slice(part.axis, others)
        return frozenset(names), still

    def drift(self, optimiser: "Optimiser", base: Path, *, old_rows: int | None, new_rows: "Ints | None") -> "Drift":
        """How far it has gone from the files in `base`."""
        from langadapt.train.drift import Drift

        return Drift(self.model, optimiser, base, adapter=self.adapter, old_rows=old_rows, new_rows=new_rows)

    def write(
        self, base: Path, out: Path, texts: Sequence[Sequence[int]], *, progress: Progress
    ) -> dict[str, float] | None:
        """Write the model folder; with an adapter, what merging and writing changed of the logits of `texts`."""
        copy_origin(base, out)
        own = dict(self.model.named_parameters())
        if self.adapter is None:
            moved = {name: own[name] for name in sorted(self.names - self.parts.masters)}
            write_model(base, out, self._placed(base, moved), progress=progress)
            return None
        from langadapt.train.merge import write_merged

        found = write_merged(
            self.adapter,
            base,
            out,
            texts,
            keep=self.movable.keep_adapter,
            parts=self.parts,
            placed=partial(self._placed, base),
            progress=progress,
        )
        return {"merging": found.merging, "reading": found.reading}

    def _placed(self, base: Path, moved: "Mapping[str, torch.Tensor]") -> "dict[str, Replaced]":
        """What is written: tensors that moved as wholes, and of the others the base's with the moved places put in."""
        weights = open_weights(base)
        found: dict[str, Replaced] = dict(moved)
        masters = {part.name: part.moving for part in self.parts.sliced}
        for name, part in self.movable.slices.items():
            if name in masters:
                values = partial(_same, masters[name])
            elif name in found:
                values = partial(_places_of, moved[name], part)
            else:
                continue
            found[name] = partial(_put, weights, stored_as(weights, name), part, values)
        return found

    def prove_shield(self, base: Path, out: Path, *, progress: Progress) -> dict[str, int] | None:
        """Compare the files that were written with the base's; returns counts, None where everything may move.

        Writes `shield.json` beside the model. LangadaptError: something that was shielded moved.
        """
        names, slices = self.may_move()
        own = {name.replace(".base_layer.", ".") for name, _ in self.model.named_parameters()}
        if not slices and names >= own:
            return None
        drifts = shield.compare(base, out, names, slices, progress=progress)
        shield.check(drifts, out)
        write_durably(out / shield.SHIELD_FILE, shield.content(drifts))
        return shield.total(drifts)

    def may_move(self) -> tuple[set[str], Mapping[str, Slice]]:
        """Names of the loaded model that may move as wholes, and slices of others."""
        names, slices = set(self.movable.names), self.movable.slices
        if self.adapter is not None:
            names |= self.adapter.biases
            names |= {f"{name}.{part}" for name, layer in self.adapter.layers.items()
                      for part, _ in layer.get_base_layer().named_parameters()}  # fmt: skip
        return names - slices.keys(), slices


def make_trainable(model: Any, movable: Movable, *, seed: int, folder: Path | None, compute: "Compute") -> Trainable:
    """Put slices and adapter in, where there are any; `folder` holds the model's files (None: one without values).

    Computing in bf16, frozen matrices are kept as the files store them. ConfigError: nothing moves, or an adapter that
    cannot be used. DataError: something would move that the files have no tensor for, or that is not finite, which
    would be found only when it is written; or a slice of what the model does not have.
    """
    slices = {name: part for name, part in movable.slices.items() if len(part.ids)}
    if twice := sorted(movable.names & slices.keys()):
        raise ConfigError(f"`{twice[0]}` is to move as a whole and in part")
    movable = replace(movable, slices=slices)
    if not movable.names and not slices and movable.adapter is None:
        raise ConfigError("nothing of the model may move, so there is nothing to train")
    _check_written(model, folder, movable.names | slices.keys())
    if movable.adapter is None:
        if folder is not None and compute == "bf16":
            _narrow(model, movable.names, folder)
        parts, held = put_in(model, slices)
        return Trainable(model, movable.names | held | parts.masters, movable, parts=parts)
    from langadapt.train.adapters import attach
    from langadapt.train.shielded import hold_factors

    adapter = attach(model, movable.adapter, movable.names, seed=seed)
    factors, beside = hold_factors(adapter, slices)
    parts, held = put_in(model, beside)
    adapter = replace(adapter, names=adapter.names | held)
    bases = {f"{name}.{part}" for name, layer in adapter.layers.items()
             for part, _ in layer.get_base_layer().named_parameters()}  # fmt: skip
    _check_written(model, folder, bases)
    if folder is not None and compute == "bf16" and adapter.kind in _READS_NARROW:
        _narrow(model, adapter.names, folder)
    return Trainable(
        model, adapter.names | parts.masters, movable, adapter, replace(parts, held={**parts.held, **factors})
    )


def _narrow(model: Any, trained: Collection[str], folder: Path) -> None:
    from langadapt.train.merge import stored_dtypes
    from langadapt.train.stored import keep_stored

    keep_stored(model, trained, stored_dtypes(folder))


def _same(values: "torch.Tensor") -> "torch.Tensor":
    return values


def _places_of(values: "torch.Tensor", part: Slice) -> "torch.Tensor":
    import torch

    return values.detach().index_select(part.axis, torch.from_numpy(part.ids).to(values.device))


def _put(weights: Weights, stored: str, part: Slice, values: "Callable[[], torch.Tensor]") -> "torch.Tensor":
    return put_places(weights.read(stored), part, values)


def _check_written(model: Any, folder: Path | None, names: Collection[str]) -> None:
    """DataError for what could be trained and then not written: no tensor of the files, or one that is not finite.

    Of a part too: the tensor is written as a whole. A row that no text reads may be so, and nobody would see it before.
    """
    if folder is None:
        return
    import torch

    weights, own = open_weights(folder), dict(model.named_parameters(remove_duplicate=False))
    for name in sorted(names):
        stored = stored_as(weights, name.replace(".base_layer.", "."))
        if name in own and not bool(own[name].detach().sum(dtype=torch.float64).isfinite()):
            raise DataError(f"`{folder}`: `{stored}` holds NaN or infinity", hint="copy the model again")


# Adapters that use the frozen matrix through its layer only; others multiply it by their own fp32 matrices.
_READS_NARROW = frozenset({"LORA", "LOHA", "LOKR", "IA3", "VERA"})
