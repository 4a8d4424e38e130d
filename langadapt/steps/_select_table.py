"""A selection as two small tables: what moves by layer, and by kind of tensor."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from math import prod
from typing import Any

from langadapt.core.types import Table
from langadapt.model.layer_names import layer_and_kind
from langadapt.select.effects import table as effects_table


def tables(facts: Mapping[str, Any], record: Mapping[str, Any]) -> list[Table]:
    """`record` is what selection.json holds."""
    whole, parts = set(record["whole"]), record["parts"]
    layers: dict[str, list[int]] = {}
    kinds: dict[str, list[int]] = {}
    for name, shape in record["shapes"].items():
        of = prod(shape)
        part = parts.get(name)
        moves = of if name in whole else 0 if part is None else of // part["of"] * part["moving"]
        layer, kind = layer_and_kind(name)
        for place, key in ((layers, "outside" if layer is None else str(layer)), (kinds, kind)):
            seen = place.setdefault(key, [0, 0])
            seen[0] += moves
            seen[1] += of
    order = sorted(layers, key=lambda key: (not key.isdecimal(), int(key) if key.isdecimal() else 0, key))
    moving, parameters = int(facts["moving"]), int(facts["parameters"])
    notes = [f"{moving:,} of {parameters:,} numbers may move ({moving / parameters:.2%})"]
    stability = facts.get("stability")
    if stability is not None:
        notes.append(f"the two halves of the text agree on {stability:.2%} of what one of them chooses")
    notes += [str(note) for note in record["found"].get("notes", ())]
    notes += [f"{_HOW[each['how']]} `{each['method'] or 'a union'}`" for each in record["found"].get("combined", ())]
    effects = record["found"].get("effects")
    return [
        *([] if effects is None else [effects_table(effects, record["found"]["counts"])]),
        Table("what may move, by layer", _COLUMNS, tuple(_layers(order, layers)), key="layer"),
        Table(
            "by kind of tensor", _COLUMNS, tuple(_row(key, kinds[key]) for key in sorted(kinds)), tuple(notes),
            key="kind",
        ),
    ]  # fmt: skip


_COLUMNS = ("", "may move", "of", "share")
_HOW = {"union": "joined with", "intersection": "cut by", "minus": "less"}


def _layers(order: list[str], layers: Mapping[str, list[int]]) -> Iterator[tuple[str, ...]]:
    """A row a layer, or one for neighbours of which the same moves."""
    for _, run in groupby(order, key=lambda key: layers[key] if key.isdecimal() else key):
        keys = list(run)
        first, last = keys[0], keys[-1]
        yield _row(first if len(keys) == 1 else f"{first} to {last}, each", layers[first])


def _row(key: str, seen: list[int]) -> tuple[str, ...]:
    return (key, f"{seen[0]:,}", f"{seen[1]:,}", f"{seen[0] / seen[1] if seen[1] else 0.0:.2%}")
