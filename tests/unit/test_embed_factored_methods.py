"""ofa, factored and script against slow float64 oracles written from the formulas."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from langadapt.core.errors import ConfigError
from langadapt.core.types import NewToken
from langadapt.embed.factored import Options as FactoredOptions
from langadapt.embed.factored import factored
from langadapt.embed.factors import factorised
from langadapt.embed.inputs import InitInputs
from langadapt.embed.ofa import Options as OfaOptions
from langadapt.embed.ofa import ofa
from langadapt.embed.script import Options as ScriptOptions
from langadapt.embed.script import script
from langadapt.embed.script_groups import Group, group_of, wider
from langadapt.embed.vectors import WordVectors
from langadapt.embed.wechsel import Options as WechselOptions
from langadapt.embed.wechsel import wechsel
from tests.fixtures.given import WIDTH, World, some_table, world


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tiny, tmp_path_factory.mktemp("world"))


def oracle_factors(inputs: InitInputs, table: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """(F by old id, P) from the SVD of the text rows itself."""
    text = table[inputs.population].astype(np.float64)
    left, lengths, right = np.linalg.svd(text, full_matrices=False)
    coordinates = np.zeros((len(table), rank))
    coordinates[inputs.population] = left[:, :rank]
    return coordinates, lengths[:rank, None] * right[:rank]


# factors


@pytest.mark.parametrize("rank", [1, 3, WIDTH, 50])
def test_factors_are_the_best_approximation_of_their_rank(rank: int, place: World) -> None:
    """Eckart and Young: what is left over are the singular values behind the rank, and of all ranks nothing."""
    table = some_table(place.base.size)
    inputs = place.inputs(table)
    text = table[inputs.population]
    found = factorised(inputs, rank)
    rank = min(rank, WIDTH)
    lengths = np.linalg.svd(text.astype(np.float64), compute_uv=False)
    left = text - found.coordinates(text) @ found.directions
    assert np.linalg.norm(left) == pytest.approx(np.sqrt((lengths[rank:] ** 2).sum()), rel=1e-4, abs=1e-4)
    assert found.energy == pytest.approx((lengths[:rank] ** 2).sum() / (lengths**2).sum(), rel=1e-9)
    assert found.directions.shape == (rank, WIDTH)


def test_directions_that_the_table_does_not_have_are_left_out(place: World) -> None:
    table = some_table(place.base.size)
    table[:, 5] = table[:, 4] * 2
    found = factorised(place.inputs(table), WIDTH)
    assert found.directions.shape == (WIDTH - 1, WIDTH) and found.energy == pytest.approx(1)
    text = table[place.inputs(table).population]
    np.testing.assert_allclose(found.coordinates(text) @ found.directions, text, rtol=1e-3, atol=1e-4)


# factored


@pytest.mark.parametrize("rank", [2, WIDTH])
def test_factored_rows_are_the_coordinates_of_the_pieces_times_the_directions(rank: int, place: World) -> None:
    table = some_table(place.base.size)
    inputs = place.inputs(table)
    coordinates, directions = oracle_factors(inputs, table, rank)
    rows = factored(inputs, FactoredOptions(rank=rank))
    for row, token in zip(rows.apply(table), inputs.new_tokens, strict=True):
        pieces = inputs.base.spell(token.content)
        pieces = [id for id in pieces if inputs.base.bytes_of(id) != b" "] or pieces
        np.testing.assert_allclose(row, coordinates[pieces].mean(axis=0) @ directions, rtol=1e-4, atol=1e-5)
    assert rows.dense[0].vectors.shape == (len(inputs.new_tokens), rank) and rows.measured["rank"] == rank


def test_drawn_coordinates_have_the_moments_of_the_old_ones_and_streams_of_their_own(place: World) -> None:
    table = some_table(place.base.size)
    tokens = [NewToken(place.base.size + n, f"t{n}", n.to_bytes(2, "big"), 1, "test") for n in range(4000)]
    inputs = place.inputs(table, new_tokens=tokens)
    coordinates, _ = oracle_factors(inputs, table, 3)
    made = factored(inputs, FactoredOptions(rank=3, coordinates="drawn")).dense[0].vectors
    own, old = made.astype(np.float64), coordinates[inputs.population]
    # the sign of a singular vector is free
    np.testing.assert_allclose(np.abs(own.mean(axis=0)), np.abs(old.mean(axis=0)), atol=4 * old.std() / 60)
    np.testing.assert_allclose(own.std(axis=0), old.std(axis=0), rtol=0.08)
    assert len({row.tobytes() for row in made}) == len(made)


# ofa


@pytest.mark.parametrize("rank", [3, WIDTH])
def test_ofa_is_wechsels_average_of_the_coordinates(rank: int, place: World) -> None:
    """The weights are those of wechsel, which has an oracle of its own; the coordinates are the oracle's."""
    table = some_table(place.base.size)
    inputs = place.inputs(table)
    coordinates, directions = oracle_factors(inputs, table, rank)
    weights = wechsel(inputs, WechselOptions(neighbors=4))
    rows = ofa(inputs, OfaOptions(rank=rank, neighbors=4))
    made, compared = rows.apply(table), 0
    for line, note in enumerate(weights.provenance):
        part = slice(weights.indptr[line], weights.indptr[line + 1])
        if note["why"] == "nearest tokens":
            expected = weights.values[part].astype(np.float64) @ coordinates[weights.indices[part]] @ directions
            np.testing.assert_allclose(made[line], expected, rtol=1e-4, atol=1e-5)
            compared += 1
    assert compared >= 3
    if rank == WIDTH:
        np.testing.assert_allclose(made, weights.apply(table), rtol=1e-4, atol=1e-5)


def test_ofa_takes_one_space_without_a_dictionary_and_no_two(place: World) -> None:
    """Vectors in one space by nature: aligning them with the identity of a dictionary changes nothing."""
    table = some_table(place.base.size)
    inputs = place.inputs(table)
    ours, theirs = inputs.vectors(), inputs.base_vectors()
    words = {**dict(zip(theirs.words, theirs.table, strict=True)), **dict(zip(ours.words, ours.table, strict=True))}
    both = WordVectors(list(words), np.stack(list(words.values())))
    one = replace(inputs.given, dictionary=None, vectors=lambda: both, base_vectors=lambda: both)
    pairs = replace(one, dictionary=lambda: iter([(word, word) for word in both.words]))
    alone, told = (ofa(replace(inputs, given=given), OfaOptions()).apply(table) for given in (one, pairs))
    np.testing.assert_allclose(alone, told, rtol=1e-3, atol=1e-4)
    narrow = WordVectors(both.words, both.table[:, :3])
    learned = WordVectors(both.words, both.table, counts=np.ones(len(both.words), dtype=np.int64))
    for other, message in ((narrow, "of different widths"), (learned, "learned from two texts")):
        changed = replace(one, base_vectors=lambda other=other: other)
        with pytest.raises(ConfigError, match=f"{message} are not in one space") as caught:
            ofa(replace(inputs, given=changed), OfaOptions())
        assert "--dictionary" in str(caught.value.hint)


# script


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" ország", ("LATIN", "lower", "begins a word")),
        ("ország", ("LATIN", "lower", "within a word")),
        (" Ország", ("LATIN", "title", "begins a word")),
        ("EU", ("LATIN", "upper", "within a word")),
        ("A", ("LATIN", "title", "within a word")),
        ("iPhone", ("LATIN", "mixed", "within a word")),
        (" και", ("GREEK", "lower", "begins a word")),
        ("日本", ("CJK", "letters", "within a word")),
        ("aж", ("LATIN", "lower", "within a word")),
        ("жжa", ("CYRILLIC", "lower", "within a word")),
        (" 1998", ("no script", "numbers", "begins a word")),
        ("),", ("no script", "marks", "within a word")),
        ("   ", ("no script", "spaces", "begins a word")),
        (" ", ("no script", "spaces", "within a word")),
        ("\u0301", ("no script", "letters", "within a word")),
    ],
)
def test_groups(text: str, expected: tuple[str, str, str]) -> None:
    assert group_of(text.encode()) == Group(*expected)
    assert group_of(text.encode() + b"\xc3").kind == "bytes"


def test_groups_widen_by_place_by_kind_and_by_script() -> None:
    assert [group.named for group in wider(group_of("ország".encode()))] == [
        "LATIN, lower, within a word", "LATIN, lower", "LATIN", "lower, within a word", "all text tokens",
    ]  # fmt: skip


def test_script_rows_are_means_of_groups_that_are_large_enough(place: World) -> None:
    table = some_table(place.base.size)
    contents = [b" sze", b"sze", "και".encode(), b"\xc3", b" 12", b"\x00"]
    tokens = [NewToken(place.base.size + n, f"t{n}", content, 1, "test") for n, content in enumerate(contents)]
    inputs = place.inputs(table, new_tokens=tokens)
    for least in (1, 12, 10**6):
        rows = script(inputs, ScriptOptions(min_tokens=least, scale=0))
        made = rows.apply(table)
        for row, token, note in zip(made, tokens, rows.provenance, strict=True):
            for group in wider(group_of(token.content)):
                members = [
                    id for id in inputs.population.tolist()
                    if group in set(wider(group_of(place.base.bytes_of(id))))
                ]  # fmt: skip
                if len(members) >= least:
                    np.testing.assert_allclose(
                        row, table[members].astype(np.float64).mean(axis=0), rtol=1e-5, atol=1e-6
                    )
                    assert note["why"] == f"mean of {group.named}"
                    break
            else:
                assert note["why"] == "no group has enough old tokens"
                np.testing.assert_allclose(row, table[inputs.population].mean(axis=0), rtol=1e-5, atol=1e-6)
    assert script(inputs, ScriptOptions(min_tokens=12)).measured["groups"] >= 2


def test_script_noise_tells_tokens_of_a_group_apart_and_is_small(place: World) -> None:
    table = some_table(place.base.size)
    inputs = place.inputs(table)
    calm, drawn = (script(inputs, ScriptOptions(scale=scale)).apply(table) for scale in (0.0, 0.1))
    assert len({row.tobytes() for row in calm}) < len({row.tobytes() for row in drawn}) == len(drawn)
    spread = table[inputs.population].std(axis=0)
    assert 0.05 < ((drawn - calm) / spread).std() < 0.2


def test_a_stored_map_keeps_factors_and_noise(place: World, tmp_path: Path) -> None:
    from langadapt.embed.rowmap import load_maps, save_maps

    table = some_table(place.base.size)
    made: Any = script(place.inputs(table), ScriptOptions())
    save_maps({"input": made}, tmp_path)
    again = load_maps(tmp_path)["input"]
    assert again.apply(table).tobytes() == made.apply(table).tobytes()
    assert again.dense[0].matrix is not None and again.noise.all()
    assert torch.from_numpy(again.dense[0].vectors).sum(dim=1).eq(1).all()
