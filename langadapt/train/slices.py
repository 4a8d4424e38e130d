"""What moves of a tensor, as a parameter of its own: put into a loaded model, written through, put into the files.

Small parts are sliced: the tensor is frozen, its moving part has an fp32 copy that is trained, and nothing else of it
has a gradient or moments. Of a table most of whose rows move, the others are held: the table is trained whole, the
gradient of the held rows is dropped before its norm is taken, and their values are put back after each step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from langadapt.core.errors import DataError
from langadapt.core.io import canonical_json, sha256_text
from langadapt.core.types import Slice
from langadapt.train.sliced_layers import MOVING, PLACES, looked_up_ids, slice_layer

# Of a table, above this share of its rows, the others are held.
_HELD_FROM = 0.5


@dataclass(frozen=True)
class Part:
    """`slice` of the parameter `name` of the model moves, as the parameter `master`; `module` holds both."""

    name: str
    master: str
    slice: Slice
    module: nn.Module = field(repr=False)
    attribute: str = "weight"

    @property
    def whole(self) -> nn.Parameter:
        """The frozen tensor."""
        return self._own("")

    @property
    def moving(self) -> nn.Parameter:
        """What is trained."""
        return self._own(MOVING)

    def _own(self, suffix: str) -> nn.Parameter:
        # not as an attribute: where single values move that is what a forward pass reads
        found: Any = self.module._parameters[f"{self.attribute}{suffix}"]
        value: nn.Parameter = found
        return value

    @torch.no_grad()
    def write_through(self) -> None:
        """Put what moved into the tensor that the model multiplies by."""
        places: Any = self.module._buffers[f"{self.attribute}{PLACES}"]
        self.whole.index_copy_(self.slice.axis, places, self.moving.to(self.whole.dtype))

    @torch.no_grad()
    def round(self, dtype: torch.dtype) -> None:
        """Make the model what its files will be: what moved is rounded to their dtype."""
        self.moving.copy_(self.moving.to(dtype))
        self.write_through()


@dataclass(frozen=True)
class Parts:
    """Everything of a model that moves in part: `sliced`, and places `held` of parameters that are trained whole."""

    sliced: tuple[Part, ...] = ()
    held: Mapping[str, Slice] = field(default_factory=dict)

    @property
    def masters(self) -> frozenset[str]:
        """Names of the parameters that are trained in place of a tensor."""
        return frozenset(part.master for part in self.sliced)

    def widen(self) -> None:
        """Keep tensors that move in part in fp32: what moved by less than their dtype can hold is computed with too."""
        for part in self.sliced:
            if part.whole.dtype.itemsize < part.moving.dtype.itemsize:
                part.whole.data = part.whole.data.to(part.moving.dtype)
                part.write_through()

    @property
    def digest(self) -> str:
        """What moves of which tensor, as a digest; empty if all that moves does so as a whole."""
        if not self.sliced and not self.held:
            return ""
        every = {part.master: part.slice for part in self.sliced} | dict(self.held)
        listed = [[name, each.axis, sha256_text(each.ids.tobytes().hex())] for name, each in sorted(every.items())]
        return sha256_text(canonical_json(listed))[:32]

    def held_numbers(self, model: nn.Module) -> int:
        """Numbers of trained parameters that do not move."""
        shapes = {name: value.shape for name, value in model.named_parameters() if name in self.held}
        return sum(len(each.ids) * (shapes[name].numel() // shapes[name][each.axis])
                   for name, each in self.held.items())  # fmt: skip


ALL_WHOLE = Parts()


class Hold:
    """Places of a parameter that is trained whole which stand still: bit for bit, whatever the optimiser does."""

    def __init__(self, value: nn.Parameter, held: Slice) -> None:
        self._value, self._axis = value, held.axis
        self._places = torch.from_numpy(held.ids.astype(np.int64)).to(value.device)
        self._first = value.detach().index_select(held.axis, self._places)

    @torch.no_grad()
    def drop_gradient(self) -> None:
        """So that what stands still has no part in the norm."""
        if self._value.grad is not None:
            self._value.grad.index_fill_(self._axis, self._places, 0.0)

    @torch.no_grad()
    def put_back(self) -> None:
        """After a step: the values as they were at first."""
        # a run with 2-byte weights narrows them after it has taken up what stands still
        self._value.index_copy_(self._axis, self._places, self._first.to(self._value.dtype))


def put_in(model: nn.Module, slices: Mapping[str, Slice]) -> tuple[Parts, set[str]]:
    """Let slices of a model's parameters move; returns the parts, and the names of what is trained whole for it.

    `slices` is by names of the loaded model; of a tied table both uses move. DataError: a tensor that the model does
    not have, or places that it does not have.
    """
    owners: dict[int, list[tuple[str, nn.Module, str]]] = {}
    for place, module in model.named_modules():
        for attribute, value in module._parameters.items():
            if value is not None:
                owners.setdefault(id(value), []).append((place, module, attribute))
    named = dict(model.named_parameters(remove_duplicate=False))
    first = {id(value): name for name, value in model.named_parameters()}
    tables = looked_up_ids(model)
    sliced, held = [], {}
    # matrices before biases: the class of a layer is that of its matrix
    for name, part in sorted(slices.items(), key=lambda each: (each[0].rpartition(".")[2] != "weight", each[0])):
        if not len(part.ids):
            continue
        value = _checked(named, name, part)
        dtype = torch.promote_types(value.dtype, torch.float32)
        if id(value) in tables and len(part.ids) > _HELD_FROM * value.shape[part.axis]:
            value.data = value.data.to(dtype)
            held[first[id(value)]] = Slice(part.axis, _others(part, value.shape[part.axis]))
            continue
        places = torch.from_numpy(part.ids.astype(np.int64)).to(value.device)
        moving = nn.Parameter(value.detach().index_select(part.axis, places).to(dtype))
        for place, module, attribute in owners[id(value)]:
            slice_layer(module, attribute, moving, part.axis, places, place.rpartition(".")[2])
        place, module, attribute = owners[id(value)][0]
        master = f"{place}.{attribute}{MOVING}" if place else f"{attribute}{MOVING}"
        sliced.append(Part(name, master, part, module, attribute))
    return Parts(tuple(sorted(sliced, key=lambda each: each.name)), held), set(held)


def _checked(named: Mapping[str, nn.Parameter], name: str, part: Slice) -> nn.Parameter:
    value = named.get(name)
    ids = part.ids
    length = 0 if value is None or not 0 <= part.axis < value.ndim else value.shape[part.axis]
    if value is None or not 0 <= int(ids[0]) <= int(ids[-1]) < length or bool((ids[1:] <= ids[:-1]).any()):
        found = "no such tensor" if value is None else f"{list(value.shape)}"
        raise DataError(
            f"{len(ids):,} places of `{name}` along axis {part.axis} are to move ({int(ids[0])} to {int(ids[-1])}), "
            f"and this model does not have them: it has {found}",
            hint="the selection was made for another model",
        )
    return value


def _others(part: Slice, length: int) -> "np.ndarray[Any, np.dtype[np.int32]]":
    return np.setdiff1d(np.arange(length, dtype=np.int32), part.ids, assume_unique=True)


def complement(part: Slice, length: int) -> Slice:
    """All other places along the same axis."""
    return Slice(part.axis, _others(part, length))


@torch.no_grad()
def put_places(stored: torch.Tensor, part: Slice, moved: Callable[[], torch.Tensor]) -> torch.Tensor:
    """A tensor of the base's files with what moved put in: `moved` gives those places, in any dtype."""
    places = torch.from_numpy(part.ids.astype(np.int64))
    return stored.index_copy(part.axis, places, moved().detach().to(device="cpu", dtype=stored.dtype))
