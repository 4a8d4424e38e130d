"""What selectors share: the highest and the lowest of many scores, how many of a matrix, lengths of columns, tables."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from langadapt.core.types import Movable, Slice

if TYPE_CHECKING:
    from langadapt.model.anatomy import Matrix
    from langadapt.select.inputs import SelectInputs

    Floats = np.ndarray[Any, np.dtype[np.float64]]
    Ids = np.ndarray[Any, np.dtype[np.int32]]

TablesMove = Literal["train", "new-rows", "freeze"]
_TABLES_SHARE = {"train": 1.0, "new-rows": 0.1, "freeze": 0.0}
# Values that are widened to float64 at once.
_PIECE = 4_000_000


def tables_share(tables: TablesMove) -> float:
    """Share of the tables that moves, as far as it is known before the model is: new rows are taken as a tenth."""
    return _TABLES_SHARE[tables]


def whole_part(size: int, share: float) -> int:
    """floor(size x share), where a product like 0.29 x 100 counts as the 29 that it is meant to be."""
    return math.floor(size * share + 1e-9)


def lowest(scores: "Floats", count: int) -> "Ids":
    """Places of the `count` lowest scores, ascending; of equal scores the place that comes first is lower."""
    return np.sort(np.argsort(scores, kind="stable")[: max(0, count)]).astype(np.int32)


def all_but_highest(scores: "Floats", share: float) -> "Ids":
    """Places that are left when the floor(n x share) highest are shielded; of equal scores the first are shielded."""
    order = np.argsort(-scores, kind="stable")
    return np.sort(order[whole_part(len(scores), share) :]).astype(np.int32)


def column_norms(inputs: "SelectInputs", matrix: "Matrix", order: Literal[1, 2]) -> "Floats":
    """Length of each column (all weights that read one input) [inputs]: sum of |w|, or root of the sum of squares.

    Summed in float64 piece by piece, so that neither threads nor the size of a matrix can change an order.
    """
    key = ("column_norms", matrix.weight, order)
    if key not in inputs.memory:
        inputs.memory[key] = _column_norms(inputs, matrix, order)
    norms: Floats = inputs.memory[key]
    return norms


def _column_norms(inputs: "SelectInputs", matrix: "Matrix", order: int) -> "Floats":
    values = inputs.read(matrix.weight).numpy()
    rows = values.T if matrix.transposed else values
    total: Floats = np.zeros(matrix.inputs, dtype=np.float64)
    step = max(1, _PIECE // max(1, matrix.inputs))
    for first in range(0, matrix.outputs, step):
        piece = rows[first : first + step].astype(np.float64)
        total += np.abs(piece).sum(0) if order == 1 else (piece * piece).sum(0)
    return total if order == 1 else np.sqrt(total)


def vectors_of(inputs: "SelectInputs") -> list[str]:
    """Parameters with one axis that belong to the body: norms and biases."""
    tables = inputs.tables.among(inputs.parameters)
    return [name for name, shape in inputs.parameters.items() if len(shape) == 1 and name not in tables]


def tables_of(inputs: "SelectInputs", tables: TablesMove) -> dict[str, Slice]:
    """Rows of input table, head and its bias that move: all but those of special tokens, those of new tokens, or none.

    A tied head is the input table. Rows of new special tokens move where they are new: nobody has trained them yet.
    """
    if tables == "freeze":
        return {}
    rows = np.arange(inputs.rows) if tables == "train" else inputs.new_rows
    if tables == "train":
        rows = np.setdiff1d(rows, np.setdiff1d(inputs.special_rows, inputs.new_rows))
    moves: Ids = np.unique(rows[(rows >= 0) & (rows < inputs.rows)]).astype(np.int32)
    return {name: Slice(0, moves) for name in sorted(inputs.tables.among(inputs.parameters))}


def moving(inputs: "SelectInputs", slices: Mapping[str, Slice], names: Collection[str] = ()) -> Movable:
    """These parts and whole tensors, in their one form."""
    return Movable(*formed(names, slices, inputs.parameters))


def formed(
    names: Collection[str], slices: Mapping[str, Slice], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[frozenset[str], dict[str, Slice]]:
    """The one form of a set: a part that is all of its tensor is named, an empty one is left out, names are sorted."""
    parts = {name: part for name, part in sorted(slices.items()) if len(part.ids)}
    whole = {name for name, part in parts.items() if len(part.ids) == shapes[name][part.axis]}
    return frozenset(names) | whole, {name: part for name, part in parts.items() if name not in whole}


def layers_of(inputs: "SelectInputs") -> dict[str, int]:
    """The layer of every parameter that lies in one, by the numbers that its matrices have."""
    roots: set[tuple[str, ...]] = set()
    for matrix in inputs.anatomy.matrices:
        parts = matrix.module.split(".")
        if matrix.layer is not None:
            roots.add(tuple(parts[: parts.index(str(matrix.layer))]))
    found = {}
    for name in inputs.parameters:
        parts = name.split(".")
        for root in sorted(roots):
            if tuple(parts[: len(root)]) == root and len(parts) > len(root) and parts[len(root)].isdecimal():
                found[name] = int(parts[len(root)])
    return found


def by_layer(places: "Ids", widths: Sequence[int]) -> list["Ids"]:
    """Places in the layers laid end to end, as places in each layer."""
    ends = np.cumsum([0, *widths])
    return [(places[(places >= first) & (places < last)] - first).astype(np.int32)
            for first, last in pairwise(ends)]  # fmt: skip
