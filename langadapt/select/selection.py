"""What may move of one model, as a file: whole tensors by name, rows and columns as int32, and how they were chosen.

The sets can be joined, cut and subtracted. A part of a tensor lies along one axis; rows of a tensor and columns of the
same one are no such part together, and that is an error, never a larger or a smaller set.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.io import pretty_json, read_json_object, write_durably
from langadapt.core.types import Movable, Portion, Slice
from langadapt.select.choice import formed

MOVES, RECORD = "moves.safetensors", "selection.json"
_MADE_AGAIN = "run `langadapt select` again"
Ids = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class Selection:
    """`names` move as wholes, `slices` in part; `shapes` are those of all parameters of the model.

    In it no slice is empty and none is all of its tensor, so equal sets are equal files. `method` and `options` say how
    it was chosen, `found` what the method has to tell (neurons by language, stability).
    """

    names: frozenset[str]
    slices: Mapping[str, Slice]
    shapes: Mapping[str, tuple[int, ...]]
    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    found: Mapping[str, Any] = field(default_factory=dict)

    def moving(self, name: str) -> int:
        """Numbers of a parameter that move."""
        shape = self.shapes[name]
        if name in self.names:
            return prod(shape)
        part = self.slices.get(name)
        return 0 if part is None else len(part.ids) * (prod(shape) // shape[part.axis])

    @property
    def total(self) -> int:
        """Numbers that move."""
        return sum(map(self.moving, self.shapes))

    @property
    def parameters(self) -> int:
        """Numbers of the model."""
        return sum(map(prod, self.shapes.values()))

    def same_places(self, other: "Selection") -> bool:
        """Does the same move in both?"""
        if self.names != other.names or self.slices.keys() != other.slices.keys():
            return False
        pairs = ((part, other.slices[name]) for name, part in self.slices.items())
        return all(mine.axis == its.axis and np.array_equal(mine.ids, its.ids) for mine, its in pairs)

    def portion(self, tables: frozenset[str]) -> Portion:
        """Shares of the body's and the tables' numbers that move."""
        body = [name for name in self.shapes if name not in tables]
        whole = self.slices.keys() <= tables
        return Portion(self._share(body), self._share(sorted(tables & self.shapes.keys())), whole=whole)

    def movable(self) -> Movable:
        """As training takes it."""
        return Movable(self.names, dict(self.slices))

    def _share(self, names: list[str]) -> float:
        whole = sum(prod(self.shapes[name]) for name in names)
        return sum(map(self.moving, names)) / whole if whole else 0.0


def selection_of(
    movable: Movable,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    method: str = "",
    options: Mapping[str, Any] | None = None,
    found: Mapping[str, Any] | None = None,
) -> Selection:
    """What a method chose, checked and in its one form. ConfigError: it names what the model does not have."""
    unknown = sorted((movable.names | movable.slices.keys()) - shapes.keys())
    if unknown:
        raise ConfigError(f"`{method}` chose `{unknown[0]}`, which is no parameter of the model")
    both = sorted(movable.names & movable.slices.keys())
    if both:
        raise ConfigError(f"`{method}` chose `{both[0]}` as a whole and in part")
    for name, part in movable.slices.items():
        fault = _fault(part, shapes[name])
        if fault is not None:
            raise ConfigError(f"`{method}` chose of `{name}` {fault}")
    return Selection(*formed(movable.names, movable.slices, shapes), shapes, method, options or {}, found or {})


def nothing(shapes: Mapping[str, tuple[int, ...]]) -> Selection:
    """The empty set."""
    return Selection(frozenset(), {}, shapes)


def union(one: Selection, other: Selection) -> Selection:
    """What moves in either. DataError: a tensor is cut along two axes, or the two are of different models."""

    def of(mine: "_Part", its: "_Part", name: str) -> "_Part":
        if mine is True or its is True:
            return True
        if mine is None or its is None:
            return mine if its is None else its
        _same_axis(mine, its, name, "their union is no set of rows or of columns")
        return Slice(mine.axis, np.union1d(mine.ids, its.ids).astype(np.int32))

    return _combined(one, other, of)


def intersection(one: Selection, other: Selection) -> Selection:
    """What moves in both."""

    def of(mine: "_Part", its: "_Part", name: str) -> "_Part":
        if mine is None or its is None:
            return None
        if mine is True or its is True:
            return its if mine is True else mine
        _same_axis(mine, its, name, "what they share is a block, no set of rows or of columns")
        return Slice(mine.axis, np.intersect1d(mine.ids, its.ids).astype(np.int32))

    return _combined(one, other, of)


def minus(one: Selection, other: Selection) -> Selection:
    """What moves in the first and not in the second."""

    def of(mine: "_Part", its: "_Part", name: str) -> "_Part":
        if mine is None or its is True:
            return None
        if its is None:
            return mine
        if mine is True:
            mine = Slice(its.axis, np.arange(one.shapes[name][its.axis], dtype=np.int32))
        _same_axis(mine, its, name, "what is left is no set of rows or of columns")
        return Slice(mine.axis, np.setdiff1d(mine.ids, its.ids).astype(np.int32))

    return _combined(one, other, of)


def agreement(one: Selection, other: Selection, without: frozenset[str] = frozenset()) -> float:
    """Numbers that move in both, as a share of those that move in either (Jaccard); 1 for two empty sets.

    `without` are tensors that are not looked at.
    """
    names = sorted(one.shapes.keys() - without)
    shared = sum(map(intersection(one, other).moving, names))
    either = sum(map(one.moving, names)) + sum(map(other.moving, names)) - shared
    return shared / either if either else 1.0


# A tensor as a whole, in part, or not at all.
_Part = Slice | Literal[True] | None


def _combined(one: Selection, other: Selection, rule: Callable[[Any, Any, str], Any]) -> Selection:
    if dict(one.shapes) != dict(other.shapes):
        odd = sorted(name for name in one.shapes.keys() | other.shapes.keys()
                     if one.shapes.get(name) != other.shapes.get(name))  # fmt: skip
        raise DataError(f"two selections are of different models: they disagree on `{odd[0]}`")
    names, slices = set(), {}
    for name in one.shapes:
        found = rule(_part(one, name), _part(other, name), name)
        if found is True:
            names.add(name)
        elif found is not None:
            slices[name] = found
    whole, parts = formed(names, slices, one.shapes)
    return replace(one, names=whole, slices=parts)


def _part(selection: Selection, name: str) -> _Part:
    return True if name in selection.names else selection.slices.get(name)


def _same_axis(one: Slice, other: Slice, name: str, why: str) -> None:
    if one.axis != other.axis:
        raise DataError(
            f"`{name}` is cut along axis {one.axis} in one selection and along axis {other.axis} in the other: {why}",
            hint="choose both with methods that cut the same way, by columns (ssu, magnitude) or by neurons (lape)",
        )


def _fault(part: Slice, shape: tuple[int, ...]) -> str | None:
    """What is wrong with a part of a tensor of this shape."""
    if not 0 <= part.axis < len(shape):
        return f"axis {part.axis} of a tensor with {len(shape)}"
    ids = part.ids
    if ids.ndim != 1 or ids.dtype != np.int32:
        return f"places as {ids.dtype} with {ids.ndim} axes, not a list of int32"
    if len(ids) and (ids[0] < 0 or ids[-1] >= shape[part.axis] or not np.all(ids[1:] > ids[:-1])):
        return f"places that are not ascending numbers below {shape[part.axis]:,}"
    return None


def write_selection(folder: Path, selection: Selection) -> None:
    """Write `moves.safetensors` and `selection.json` into a folder; it is made if it is not there."""
    from safetensors.numpy import save_file

    from langadapt.model.save import saving

    folder.mkdir(exist_ok=True)
    with saving(folder / MOVES):
        save_file({f"{part.axis}/{name}": np.ascontiguousarray(part.ids)
                   for name, part in selection.slices.items()}, folder / MOVES)  # fmt: skip
    record = {
        "method": selection.method,
        "options": dict(selection.options),
        "whole": sorted(selection.names),
        "parts": {
            name: {"axis": part.axis, "moving": len(part.ids), "of": selection.shapes[name][part.axis]}
            for name, part in selection.slices.items()
        },
        "shapes": {name: list(shape) for name, shape in selection.shapes.items()},
        "found": dict(selection.found),
    }
    write_durably(folder / RECORD, pretty_json(record))


def read_selection(folder: Path) -> Selection:
    """Read what `write_selection` wrote. DataError if a file is damaged, or if the two do not fit together."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    record = read_json_object(folder / RECORD)
    try:
        shapes = {str(name): tuple(map(int, shape)) for name, shape in record["shapes"].items()}
        names = frozenset(map(str, record["whole"]))
        said = {str(name): (int(part["axis"]), int(part["moving"])) for name, part in record["parts"].items()}
        method, options, found = str(record["method"]), dict(record["options"]), dict(record["found"])
        stored = {key.partition("/")[2]: Slice(int(key.partition("/")[0]), ids)
                  for key, ids in load_file(folder / MOVES).items()}  # fmt: skip
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"`{folder}` holds no selection that can be read: {error}", hint=_MADE_AGAIN) from error
    if {name: (part.axis, part.ids.size) for name, part in stored.items()} != said:
        raise DataError(f"`{folder / MOVES}` does not hold the places that `{RECORD}` lists", hint=_MADE_AGAIN)
    for name, part in stored.items():
        fault = "a part of no parameter" if name not in shapes else _fault(part, shapes[name])
        if fault is not None or name in names:
            raise DataError(f"`{folder / MOVES}` holds of `{name}` {fault or 'a part and the whole'}", hint=_MADE_AGAIN)
    if names - shapes.keys():
        raise DataError(f"`{folder / RECORD}` names `{min(names - shapes.keys())}` and no shape of it")
    return Selection(names, stored, shapes, method, options, found)


def check_model(selection: Selection, shapes: Mapping[str, tuple[int, ...]], given: str) -> None:
    """DataError if a selection is not of a model with these parameters."""
    if dict(selection.shapes) != dict(shapes):
        odd = sorted(name for name in selection.shapes.keys() | shapes.keys()
                     if selection.shapes.get(name) != shapes.get(name))  # fmt: skip
        raise DataError(f"the selection `{given}` is of another model: they disagree on `{odd[0]}`", hint=_MADE_AGAIN)
