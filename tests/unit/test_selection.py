"""Selections as sets, and as files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.types import Movable, Slice
from langadapt.select.selection import (
    Selection,
    agreement,
    intersection,
    minus,
    nothing,
    read_selection,
    selection_of,
    union,
    write_selection,
)

SHAPES = {"a": (4, 6), "b": (3, 2), "norm": (5,)}
ALL = selection_of(Movable(frozenset(SHAPES)), SHAPES)


def part(axis: int, *ids: int) -> Slice:
    return Slice(axis, np.array(sorted(ids), dtype=np.int32))


def places(selection: Selection) -> set[tuple[str, tuple[int, ...]]]:
    """Every number that moves, one by one."""
    found = set()
    for name, shape in SHAPES.items():
        for place in np.ndindex(*shape):
            slice = selection.slices.get(name)
            if name in selection.names or (slice is not None and place[slice.axis] in slice.ids):
                found.add((name, place))
    return found


@st.composite
def selections(draw: Any) -> Selection:
    """Columns of `a`, rows of `b`, values of `norm`."""
    slices = {}
    for name, axis in (("a", 1), ("b", 0), ("norm", 0)):
        slices[name] = part(axis, *draw(st.sets(st.integers(0, SHAPES[name][axis] - 1))))
    return selection_of(Movable(frozenset(), slices), SHAPES)


@settings(max_examples=40, deadline=None)
@given(selections(), selections(), selections())
def test_set_algebra_is_that_of_the_numbers(one: Selection, other: Selection, third: Selection) -> None:
    mine, its = places(one), places(other)
    assert places(union(one, other)) == mine | its
    assert places(intersection(one, other)) == mine & its
    assert places(minus(one, other)) == mine - its
    assert places(minus(ALL, minus(ALL, one))) == mine
    assert places(minus(one, union(other, third))) == places(minus(minus(one, other), third))
    assert places(union(one, nothing(SHAPES))) == mine == places(intersection(one, ALL))
    assert one.total == len(mine)
    assert agreement(one, other) == pytest.approx(len(mine & its) / len(mine | its) if mine | its else 1)


def test_a_tensor_cut_along_two_axes_is_refused_by_name() -> None:
    rows = selection_of(Movable(frozenset(), {"a": part(0, 1)}), SHAPES)
    columns = selection_of(Movable(frozenset(), {"a": part(1, 2)}), SHAPES)
    for combine in (union, intersection, minus):
        with pytest.raises(DataError, match=r"`a` is cut along axis 0 .* and along axis 1"):
            combine(rows, columns)
    assert places(union(rows, ALL)) == places(ALL)
    assert places(intersection(rows, ALL)) == places(rows)
    assert minus(ALL, rows).slices["a"].ids.tolist() == [0, 2, 3]


def test_a_part_of_all_places_is_a_whole_and_one_of_none_is_nothing() -> None:
    found = selection_of(Movable(frozenset(), {"b": part(0, 0, 1, 2), "a": part(1)}), SHAPES)
    assert (found.names, dict(found.slices)) == (frozenset({"b"}), {})


@pytest.mark.parametrize(
    ("movable", "words"),
    [
        (Movable(frozenset({"c"})), "no parameter"),
        (Movable(frozenset({"a"}), {"a": part(0, 1)}), "as a whole and in part"),
        (Movable(frozenset(), {"a": part(2, 1)}), "axis 2"),
        (Movable(frozenset(), {"a": part(1, 6)}), "below 6"),
        (Movable(frozenset(), {"a": Slice(1, np.array([1, 1], dtype=np.int32))}), "ascending"),
        (Movable(frozenset(), {"a": Slice(1, np.array([2.0]))}), "float64"),  # type: ignore[arg-type]
    ],
)
def test_what_a_method_chooses_is_checked(movable: Movable, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        selection_of(movable, SHAPES, method="other")


def test_selections_come_back_from_their_files(tmp_path: Path) -> None:
    one = selection_of(
        Movable(frozenset({"b"}), {"a": part(1, 0, 5), "norm": part(0, 2)}), SHAPES, method="ssu",
        options={"ratio": 0.5}, found={"neurons": {"hu": [[1, 2]]}},
    )  # fmt: skip
    for number, each in enumerate((one, nothing(SHAPES), ALL)):
        write_selection(tmp_path / str(number), each)
        back = read_selection(tmp_path / str(number))
        assert (back.names, back.shapes, back.found) == (each.names, each.shapes, each.found)
        assert {name: (s.axis, s.ids.tolist()) for name, s in back.slices.items()} == {
            name: (s.axis, s.ids.tolist()) for name, s in each.slices.items()
        }
        write_selection(tmp_path / "again", back)
        for file in ("moves.safetensors", "selection.json"):
            assert (tmp_path / "again" / file).read_bytes() == (tmp_path / str(number) / file).read_bytes()


@pytest.mark.parametrize(
    "harm",
    ["cut", "other places", "no record", "unknown name", "record", "a number", "method", "options", "found",
     "options that are a list"],
)  # fmt: skip
def test_damaged_selections_are_named(tmp_path: Path, harm: str) -> None:
    write_selection(tmp_path, selection_of(Movable(frozenset({"b"}), {"a": part(1, 0, 5)}), SHAPES))
    moves, record = tmp_path / "moves.safetensors", tmp_path / "selection.json"
    if harm == "cut":
        moves.write_bytes(moves.read_bytes()[:-3])
    elif harm == "other places":
        write_selection(tmp_path / "x", selection_of(Movable(frozenset(), {"a": part(1, 0)}), SHAPES))
        moves.write_bytes((tmp_path / "x" / "moves.safetensors").read_bytes())
    elif harm == "no record":
        record.unlink()
    elif harm == "unknown name":
        record.write_text(json.dumps(json.loads(record.read_text()) | {"whole": ["c"]}))
    elif harm == "a number":
        save_file({"1/a": np.array(5, dtype=np.int32)}, moves)
    elif harm in ("method", "options", "found"):
        told = json.loads(record.read_text())
        del told[harm]
        record.write_text(json.dumps(told))
    elif harm == "options that are a list":
        record.write_text(json.dumps(json.loads(record.read_text()) | {"options": [1]}))
    else:
        record.write_text("{}")
    with pytest.raises(DataError, match=str(tmp_path)):
        read_selection(tmp_path)
