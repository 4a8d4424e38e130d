"""What training changed of a model's files, and the proof that it changed nothing else: both are read and compared.

Compared are the stored bits: 0.0 in place of -0.0 is a change, and so is one kind of not-a-number for another.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langadapt.core.errors import DataError, LangadaptError
from langadapt.core.io import pretty_json
from langadapt.core.progress import Progress
from langadapt.core.types import Slice
from langadapt.model.facts import INPUT_TABLES
from langadapt.model.save import stored_as, tied_copies
from langadapt.model.weights import DTYPE_NAMES, Weights, bits, open_weights

if TYPE_CHECKING:
    import torch

    Mask = np.ndarray[Any, np.dtype[np.bool_]]

SHIELD_FILE = "shield.json"
# Values of a tensor that are looked at together.
_PIECE_NUMBERS = 2**22
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Drift:
    """How far one stored tensor moved. Counts are of single values.

    `may_move` of its `of` values were free to move, `moved` of them have other bits; so have `broken` of the others,
    `first` being the place of one. `largest` is the largest change, `relative` the norm of all changes over that of the
    base's values; None where one of them is not a number.
    """

    moved: int
    may_move: int
    of: int
    broken: int
    largest: float | None
    relative: float | None
    first: tuple[int, ...] | None = None


def compare(
    base: Path,
    tuned: Path,
    names: Collection[str],
    slices: Mapping[str, Slice],
    *,
    progress: Progress | None = None,
) -> dict[str, Drift]:
    """Every tensor of two model folders, by its name in the files of `base`.

    `names` may have moved as wholes and `slices` in their places, under the names of the loaded model; everything else
    is shielded. DataError: a tensor that only one of them has, or that has another shape or dtype in the other.
    """
    one, other = open_weights(base), open_weights(tuned)
    _check_same(one, other)
    free: dict[str, Slice | None] = {stored_as(one, name): None for name in names}
    free |= {stored_as(one, name): part for name, part in slices.items()}
    tables = [name for name in free if name.endswith(INPUT_TABLES)]
    # a head that is stored although it is the input table is written as that is
    free |= {copy: free[table] for copy in tied_copies(base, one) - free.keys() for table in tables[:1]}
    task = (progress or Progress()).track(
        sorted(one.tensors), "comparing with the base", total=len(one.tensors), unit="tensors"
    )
    return {name: _drift(one, other, name, free.get(name, _NOTHING)) for name in task}


def content(drifts: Mapping[str, Drift]) -> str:
    """What `shield.json` holds."""
    return pretty_json({"total": total(drifts), "tensors": {name: asdict(drift) for name, drift in drifts.items()}})


def total(drifts: Mapping[str, Drift]) -> dict[str, int]:
    """Counts over all tensors."""
    return {
        "moved": sum(drift.moved for drift in drifts.values()),
        "may_move": sum(drift.may_move for drift in drifts.values()),
        "of": sum(drift.of for drift in drifts.values()),
        "broken": sum(drift.broken for drift in drifts.values()),
    }


def check(drifts: Mapping[str, Drift], tuned: Path) -> None:
    """LangadaptError if anything that was shielded differs."""
    broken = {name: drift for name, drift in drifts.items() if drift.broken}
    if broken:
        name, drift = next(iter(broken.items()))
        raise LangadaptError(
            f"{sum(each.broken for each in broken.values()):,} shielded values of {len(broken)} tensors in `{tuned}` "
            f"are not those of the base: the first is `{name}` {list(drift.first or ())}",
            hint="it is not the base that this model was made from, or another selection; "
            "if langadapt has just written it, report this",
        )


_NOTHING = Slice(0, np.zeros(0, dtype=np.int32))


def _check_same(one: Weights, other: Weights) -> None:
    if lacking := sorted(one.tensors.keys() ^ other.tensors.keys()):
        without = other if lacking[0] in one.tensors else one
        raise DataError(f"`{without.folder}` has no tensor `{lacking[0]}`, so the two cannot be compared")
    for name, info in one.tensors.items():
        found = other.tensors[name]
        if (info.shape, info.dtype) != (found.shape, found.dtype):
            raise DataError(
                f"`{name}` is {info.dtype} {list(info.shape)} in `{one.folder}` and {found.dtype} {list(found.shape)} "
                f"in `{other.folder}`: they can only be compared as they are",
                hint="compare with the model that training began with (after `init-embeddings`, with its new rows)",
            )


def _drift(one: Weights, other: Weights, name: str, part: Slice | None) -> Drift:
    info = one.tensors[name]
    shape, axes = info.shape, len(info.shape)
    free = _mask(name, shape, part)
    moved = broken = 0
    largest = change = size = 0.0
    first: tuple[int, ...] | None = None
    for begin, old, new in _pieces(one, other, name):
        differ = bits(old) != bits(new)
        if info.dtype in DTYPE_NAMES:
            was = old.double()
            # equal bits are no change, also where they are those of infinity
            delta = (new.double() - was).masked_fill_(~differ, 0.0)
            size += float(was.square().sum())
            change += float(delta.square().sum())
            # not max(): it would pass over what is not a number
            here = float(delta.abs().max()) if delta.numel() else 0.0
            largest = here if not here <= largest else largest
        here_free = free[begin : begin + len(old)] if part is not None and part.axis == 0 and axes else free
        shielded = ~here_free.reshape([-1 if axis == (part.axis if part else 0) else 1 for axis in range(axes)])
        wrong = differ.numpy() & shielded
        moved += int(differ.sum()) - int(wrong.sum())
        if first is None and wrong.any():
            place = np.argwhere(wrong)[0] if axes else ()
            first = tuple(int(at) + (begin if axis == 0 else 0) for axis, at in enumerate(place))
        broken += int(wrong.sum())
    may_move = info.elements if part is None else int(free.sum()) * (info.elements // max(1, free.size))
    relative = math.sqrt(change / size) if size else (0.0 if not change else math.inf)
    return Drift(moved, may_move, info.elements, broken, _shown(largest), _shown(relative), first)


def _mask(name: str, shape: tuple[int, ...], part: Slice | None) -> "Mask":
    """Which places along the axis of `part` are free; a single true value where the whole tensor is."""
    if part is None:
        return np.ones(1, dtype=bool)
    length = shape[part.axis] if part.axis < len(shape) else 1
    if len(part.ids) and not (part.axis < len(shape) and 0 <= int(part.ids.min()) <= int(part.ids.max()) < length):
        raise DataError(
            f"the selection names place {int(part.ids.max()):,} along axis {part.axis} of `{name}`, "
            f"which is {list(shape)}: it was made for another model"
        )
    mask = np.zeros(length, dtype=bool)
    mask[part.ids] = True
    return mask


def _pieces(one: Weights, other: Weights, name: str) -> "Iterator[tuple[int, torch.Tensor, torch.Tensor]]":
    """The same rows of a tensor in both, some at a time: number of the first row, values of one and of the other."""
    from safetensors import safe_open

    shape = one.tensors[name].shape
    if not shape:
        yield 0, one.read(name), other.read(name)
        return
    rows = max(1, _PIECE_NUMBERS * shape[0] // max(1, one.tensors[name].elements))
    with ExitStack() as stack:
        old, new = (
            stack.enter_context(safe_open(weights.tensors[name].file, framework="pt")).get_slice(name)
            for weights in (one, other)
        )
        for begin in range(0, shape[0], rows):
            yield begin, old[begin : begin + rows], new[begin : begin + rows]


def _shown(value: float) -> float | None:
    """Rounded: the last digits of a sum depend on how many threads there were."""
    return float(f"{value:.{_DIGITS - 1}e}") if math.isfinite(value) else None
