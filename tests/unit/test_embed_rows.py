"""Rows from a file: whose they are, in which order, and what is wrong with a file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import langadapt
from langadapt.core.errors import ConfigError, DataError
from langadapt.embed.inputs import InitInputs
from langadapt.embed.predicted import open_rows
from langadapt.embed.rowmap import load_maps
from langadapt.embed.rows import Options, rows
from langadapt.model.tables import open_tables
from tests.fixtures.extended import extended_tokenizer
from tests.fixtures.given import WIDTH, World, some_table, world
from tests.fixtures.tiny import tiny_model


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tiny, tmp_path_factory.mktemp("world"))


def written(path: Path, pieces: Any = None, **tensors: Any) -> Path:
    arrays = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in tensors.items()}
    save_file(arrays, path, metadata=None if pieces is None else {"pieces": json.dumps(pieces)})
    return path


def inputs_of(place: World, path: Path, **changes: Any) -> InitInputs:
    made = place.inputs(some_table(place.base.size), **changes)
    return replace(made, given=replace(made.given, rows=lambda: open_rows(path, place.target)))


def new_ids(place: World) -> list[int]:
    return [token.id for token in place.inputs(some_table(place.base.size)).new_tokens]


def test_rows_are_found_by_id_by_piece_and_by_place(place: World, tmp_path: Path) -> None:
    """The oracle: the row of the token itself, whatever the order of the file."""
    ids, size = new_ids(place), place.target.size
    whole = some_table(size, WIDTH, 8).astype(np.float32)
    order = np.random.Generator(np.random.Philox(key=1)).permutation(size)
    pieces = [place.target.piece(id) for id in order.tolist()]
    few = np.concatenate([whole[:2], whole[ids][::-1], whole[:1]])
    files = (
        written(tmp_path / "a", input=whole),
        written(tmp_path / "b", input=whole[order], ids=order),
        written(tmp_path / "c", input=whole[order], ids=order.astype(np.int32), pieces=pieces),
        written(tmp_path / "d", input=whole[order], pieces=pieces),
        written(tmp_path / "e", input=few, ids=np.array([-1, size, *ids[::-1], -1])),
    )  # fmt: skip
    for path in files:
        made = rows(inputs_of(place, path), Options())
        np.testing.assert_array_equal(made.apply(some_table(place.base.size)), whole[ids])
        assert made.reasons() == {"row of the file": len(ids)} and not made.is_convex()
    assert made.measured == {"from_file": len(ids), "strangers": 3}


def test_a_head_gets_rows_of_its_own(place: World, tmp_path: Path) -> None:
    ids, size = new_ids(place), place.target.size
    tables = {"input": some_table(size, WIDTH, 8), "head": some_table(size, WIDTH, 9)}
    path = written(tmp_path / "r", **tables)
    for role, name in (("input", "input"), ("head", "head"), ("tied", "input")):
        made = rows(inputs_of(place, path, role=role), Options()).apply(some_table(place.base.size))
        np.testing.assert_array_equal(made, tables[name][ids])
    one = written(tmp_path / "one", input=tables["input"])
    with pytest.raises(DataError, match="has no tensor `head`") as caught:
        rows(inputs_of(place, one, role="head"), Options())
    assert "head_method" in str(caught.value.hint)


def test_tokens_that_the_file_lacks_get_the_mean_of_their_pieces(place: World, tmp_path: Path) -> None:
    ids, table = new_ids(place), some_table(place.base.size)
    values = some_table(2, WIDTH, 8)
    values[1] = 0
    path = written(tmp_path / "r", input=values, ids=np.array(ids[:2]))
    made = rows(inputs_of(place, path), Options())
    whys = [note["why"] for note in made.provenance]
    assert whys[:3] == [
        "row of the file",
        "zeros in the file: mean of its pieces",
        "not in the file: mean of its pieces",
    ]
    pieces = place.base.spell(place.target.bytes_of(ids[2]))
    np.testing.assert_allclose(made.apply(table)[2], table[pieces].mean(axis=0), rtol=1e-6)
    with pytest.raises(DataError, match=f"no row for {len(ids) - 1} of {len(ids)} new tokens"):
        rows(inputs_of(place, path), Options(missing="error"))


def test_what_is_wrong_with_a_file_is_said(place: World, tmp_path: Path) -> None:
    ids, size = new_ids(place), place.target.size
    values = some_table(size, WIDTH, 8)
    broken = values.copy()
    broken[ids[1], 3], broken[0, 0] = np.nan, np.inf  # the second one is of an old token: nobody asks for it
    pieces = [place.target.piece(id) for id in range(size)]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"input": broken}, rf"1 rows hold NaN or infinity: {ids[1]} "),
        ({"input": some_table(size, WIDTH + 1)}, rf"are {WIDTH + 1} wide, those of the model {WIDTH}"),
        ({"rows": values}, "no tensor `input`; it has rows"),
        ({"input": values.astype(np.int32)}, "not floats"),
        ({"input": values, "head": values[1:]}, "`head` has shape"),
        ({"input": values[1:]}, "does not say whose"),
        ({"input": values, "ids": np.arange(size)[1:]}, r"`ids` is I64 of shape \[\d+\], not integers"),
        ({"input": values, "ids": np.zeros(size, dtype=np.int64)}, "two rows for token 0"),
        ({"input": values, "ids": np.arange(size) + size}, "a row for none"),
        ({"input": values, "pieces": pieces[1:]}, "not a list of"),
        ({"input": values, "pieces": pieces, "ids": np.arange(size)[::-1]}, "row 0 is for token"),
    ]  # fmt: skip
    for number, (content, message) in enumerate(wrong):
        path = written(tmp_path / str(number), **content)
        with pytest.raises(DataError, match=message):
            rows(inputs_of(place, path), Options())
    with pytest.raises(DataError, match="is a folder"):
        open_rows(tmp_path, place.target)
    (tmp_path / "cut").write_bytes((tmp_path / "0").read_bytes()[:-5])
    with pytest.raises(DataError, match="is cut"):
        open_rows(tmp_path / "cut", place.target)
    save_file({"input": torch.from_numpy(values)}, tmp_path / "json", metadata={"pieces": "[1"})
    with pytest.raises(DataError, match="not JSON"):
        open_rows(tmp_path / "json", place.target)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'", "an array of numpy"),
        (b"PK\x03\x04" + bytes(20), "torch.save"),
        (b"\x80\x02}q" + bytes(20), "a pickle"),
        (b'{"a": [1, 2, 3]}', "is no safetensors file"),
    ],
)
def test_a_file_of_another_kind_is_named_with_the_way_to_make_one(
    place: World, tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "rows").write_bytes(content)
    with pytest.raises(DataError, match=told) as caught:
        open_rows(tmp_path / "rows", place.target)
    assert "save_file" in str(caught.value.hint) and caught.value.exit_code == 3


def test_through_the_step_for_both_tables_and_in_the_stored_map(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", tied=False, dtype="bfloat16")
    target = extended_tokenizer(base, tmp_path / "tok")
    tables = open_tables(base)
    size = tables.rows + 3
    ids = np.arange(tables.rows, size)
    values = {name: some_table(3, tables.width, seed) for seed, name in enumerate(("input", "head"))}
    path = written(tmp_path / "r.safetensors", ids=ids, **values)
    with pytest.raises(ConfigError, match="`rows` needs `rows`"):
        langadapt.init_embeddings(model=base, tokenizer=target, method="rows", out=tmp_path / "no")
    made = langadapt.init_embeddings(model=base, tokenizer=target, method="rows", rows=path, out=tmp_path / "out")
    saved = open_tables(made.path)
    assert saved.stored.head is not None
    for name, stored in (("input", saved.stored.input), ("head", saved.stored.head)):
        assert torch.equal(saved.weights.read(stored)[ids], torch.from_numpy(values[name]).bfloat16())
        np.testing.assert_array_equal(load_maps(made.path)[name].dense[0].vectors, values[name])
    assert made.facts["measured"]["head"]["from_file"] == 3
    assert made.facts["reasons"]["not in the file: mean of its pieces"] == saved.tokens.size - size
