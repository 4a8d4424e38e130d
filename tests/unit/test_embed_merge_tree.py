"""merge-tree against a recursion in float64 that reads the merges from the file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from langadapt.core.errors import ConfigError
from langadapt.embed.merge_tree import Options, merge_tree
from langadapt.model.matching import match
from langadapt.model.token_table import TokenTable
from tests.fixtures.extended import MERGES, extended_tokenizer
from tests.fixtures.families import family_tokenizer
from tests.fixtures.given import World, some_table, world


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A token of a new one and a space, of two new ones, one that two merges make, and one of spaces alone."""
    folder = tmp_path_factory.mktemp("world")
    merges = (*MERGES, ("Ġ", "Ġ"), ("Ġ", "sz"), ("Ã", "±"), ("Ġsz", "e"))
    return world(tiny, folder / "world", extended_tokenizer(tiny, folder / "tokenizer", merges))


def oracle(piece: str, place: World, table: np.ndarray, skip_bare_space: bool) -> np.ndarray:
    base = {place.base.piece(id): table[id].astype(np.float64) for id in place.base.text_ids().tolist()}
    model = json.loads((place.target.folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]

    def row(piece: str) -> np.ndarray:
        if piece in base:
            return base[piece]
        merges = [pair for pair in model["merges"] if "".join(pair) == piece]
        made = []
        for pair in merges:
            words = [part for part in pair if part != "Ġ"] if skip_bare_space else []
            made.append(np.mean([row(part) for part in words or pair], axis=0))
        return np.mean(made, axis=0)

    return row(piece)


@pytest.mark.parametrize("skip_bare_space", [True, False])
def test_rows_equal_the_recursion(skip_bare_space: bool, place: World) -> None:
    table = some_table(place.base.size)
    inputs = place.inputs(table)
    rows = merge_tree(inputs, Options(skip_bare_space=skip_bare_space))
    assert rows.reasons() == {"merges": len(inputs.new_tokens)}
    for row, token in zip(rows.apply(table), inputs.new_tokens, strict=True):
        np.testing.assert_allclose(row, oracle(token.piece, place, table, skip_bare_space), rtol=1e-5, atol=1e-6)


def test_the_token_that_two_merges_make_has_both(place: World) -> None:
    """` sze` is ` ` + `sze` and ` sz` + `e`: without the space (s/4 + z/4 + e/2) both times, with it two averages."""
    inputs = place.inputs(some_table(place.base.size))
    rows = merge_tree(inputs, Options(skip_bare_space=False))
    token = next(token for token in inputs.new_tokens if token.piece == "Ġsze")
    line = list(rows.new_ids).index(token.id)
    part = slice(rows.indptr[line], rows.indptr[line + 1])
    weights = {
        place.base.piece(id): value
        for id, value in zip(rows.indices[part].tolist(), rows.values[part].tolist(), strict=True)
    }
    assert weights == pytest.approx({"Ġ": 0.375, "s": 0.125, "z": 0.125, "e": 0.375})


def test_a_token_that_nothing_merges_gets_its_pieces(place: World, tmp_path: Path) -> None:
    """A vocabulary may hold tokens that only `ignore_merges` or another engine emits."""
    file = tmp_path / "tokenizer" / "tokenizer.json"
    extended_tokenizer(place.base.folder, file.parent)
    content: Any = json.loads(file.read_text(encoding="utf-8"))
    highest = max(content["model"]["vocab"].values())
    content["model"]["vocab"]["Ġrt"] = highest + 1
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    table = some_table(place.base.size)
    inputs = world(place.base.folder, tmp_path / "world", file.parent).inputs(table)
    rows = merge_tree(inputs, Options())
    assert rows.reasons() == {"merges": len(MERGES), "no merge: mean of its pieces": 1}
    pieces = [id for id in place.base.spell(b" rt") if place.base.bytes_of(id) != b" "]
    np.testing.assert_allclose(rows.apply(table)[-1], table[pieces].mean(axis=0), rtol=1e-5)


def test_a_part_without_a_row_is_spelled_by_the_base(place: World) -> None:
    """Nothing is kept: every row is made of letters that the base spells."""
    table = some_table(place.base.size)
    rows = merge_tree(place.inputs(table, kept={}), Options())
    letters = {place.base.piece(id): table[id].astype(np.float64) for id in place.base.text_ids().tolist()}
    made = dict(zip((note["piece"] for note in rows.provenance), rows.apply(table), strict=True))
    expected = (letters["s"] + letters["z"]) / 4 + letters["e"] / 2
    np.testing.assert_allclose(made["sze"], expected, rtol=1e-5, atol=1e-6)


def test_a_tree_as_deep_as_its_token_is_long(place: World, tmp_path: Path) -> None:
    """1,500 letters, each merged to what stood before it."""
    chain = [("q" * length, "q") for length in range(1, 1500)]
    target = TokenTable.from_folder(extended_tokenizer(place.base.folder, tmp_path / "tokenizer", chain))
    table = some_table(place.base.size)
    inputs = place.inputs(table, target=target)
    token = match(place.base, target, base_rows=place.base.size).new_tokens[-1]
    opened = Tokenizer.from_file(str(target.folder / "tokenizer.json"))
    given = replace(inputs.given, target_tokenizer=lambda: opened)
    rows = merge_tree(replace(inputs, new_tokens=(token,), given=given), Options())
    assert len(token.content) == 1500
    np.testing.assert_allclose(rows.apply(table)[0], table[place.base.spell(b"q")[0]], rtol=1e-5)


@pytest.mark.parametrize("family", ["unigram", "wordpiece"])
def test_a_tokenizer_without_merges_is_refused(family: str, place: World, tmp_path: Path) -> None:
    folder = family_tokenizer(tmp_path / family, family)
    inputs = place.inputs(some_table(place.base.size))
    opened = Tokenizer.from_file(str(folder / "tokenizer.json"))
    given = replace(inputs.given, target_tokenizer=lambda: opened)
    with pytest.raises(ConfigError, match="has none") as caught:
        merge_tree(replace(inputs, given=given), Options())
    assert "subtoken-mean" in (caught.value.hint or "")
