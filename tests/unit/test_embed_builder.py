"""Maps written from arrays, dense parts, correlated noise, and what a method may ask for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import langadapt
from langadapt.core.errors import ConfigError, DataError, LangadaptError
from langadapt.core.rng import stream_key
from langadapt.core.types import NewToken
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.helper import open_helper
from langadapt.embed.inputs import InitInputs, check_needs, unused
from langadapt.embed.rowmap import load_maps, save_maps
from langadapt.model.matching import match, with_less_overlap
from langadapt.model.tables import open_tables
from langadapt.model.token_table import TokenTable
from tests.fixtures.extended import extended_tokenizer
from tests.fixtures.families import family_tokenizer
from tests.fixtures.given import some_table, world
from tests.unit.test_embed_rowmap import Alphabet

OLD, WIDTH = 8, 6
TABLE = some_table(OLD, WIDTH)


def inputs_for(count: int, seed: int = 1) -> InitInputs:
    tokens = [NewToken(100 + number, f"w{number}", f"w{number}".encode(), 1, "test") for number in range(count)]
    return InitInputs(Alphabet(), tokens, OLD, np.arange(OLD), "tied", seed=seed)


def random_lines(count: int, seed: int) -> tuple[list[int], list[int], list[float]]:
    random = np.random.Generator(np.random.Philox(key=seed))
    lengths = random.integers(1, 5, size=count)
    ids = random.integers(0, OLD + 1, size=int(lengths.sum()))
    return [0, *np.cumsum(lengths).tolist()], ids.tolist(), (random.random(len(ids)) + 0.01).tolist()


@pytest.mark.parametrize("seed", range(6))
def test_many_lines_at_once_equal_line_by_line(seed: int) -> None:
    """Three ways mixed and in a wild order, against sums written out in float64."""
    inputs = inputs_for(30)
    indptr, ids, weights = random_lines(20, seed)
    order = np.random.Generator(np.random.Philox(key=seed + 50)).permutation(20).tolist()
    tokens = [inputs.new_tokens[number] for number in order]
    builder = RowMapBuilder(inputs, "test")
    builder.mean(inputs.new_tokens[25], [1, 2], "pair")
    builder.many(tokens, indptr, ids, weights, [f"line {number}" for number in order])
    for number in (20, 21, 22, 23, 24, 26, 27, 28, 29):
        builder.weighted(inputs.new_tokens[number], [number % OLD, 3], [1.0, 3.0], "two")
    rows = builder.build()
    made = rows.apply(TABLE)
    table = np.vstack([TABLE, TABLE.mean(axis=0)]).astype(np.float64)
    for place, number in enumerate(order):
        part = slice(indptr[place], indptr[place + 1])
        expected = np.average(table[ids[part]], axis=0, weights=weights[part])
        np.testing.assert_allclose(made[number], expected, rtol=1e-5, atol=1e-6)
        assert rows.provenance[number]["why"] == f"line {number}"
    np.testing.assert_allclose(made[25], (TABLE[1] + TABLE[2]) / 2, rtol=1e-6)
    np.testing.assert_allclose(made[29], (TABLE[5] + 3 * TABLE[3]) / 4, rtol=1e-5)
    assert rows.is_convex() and [note["id"] for note in rows.provenance] == list(range(100, 130))


def test_weights_that_are_no_averages_are_taken_as_they_are() -> None:
    inputs = inputs_for(2)
    builder = RowMapBuilder(inputs, "test")
    builder.many(inputs.new_tokens, [0, 2, 3], [0, 1, 2], [2.0, -0.5, -1.0], "sum", scaled=False)
    rows = builder.build()
    np.testing.assert_allclose(rows.apply(TABLE), [2 * TABLE[0] - 0.5 * TABLE[1], -TABLE[2]], rtol=1e-5)
    assert not rows.is_convex()


@pytest.mark.parametrize(
    ("indptr", "ids", "weights", "message"),
    [
        ([0, 1, 1], [0], [1.0], "empty ones"),
        ([0, 1], [0, 1], [1.0, 1.0], "2 tokens 1 lines"),
        ([0, 1, 2], [0, OLD + 1], [1.0, 1.0], "does not have"),
        ([0, 1, 2], [0, 1], [1.0, -1.0], "no usable weights for the token `w1`"),
        ([0, 1, 2], [0, 1], [0.0, 1.0], "no usable weights for the token `w0`"),
        ([0, 1, 2], [0, 1], [1.0, np.nan], "no numbers"),
        ([0, 1, 2], [0, 1, 2], [1.0, 1.0, 1.0], "3 ids and 3 weights"),
    ],
)
def test_lines_that_are_wrong_are_an_error_of_the_method(
    indptr: list[int], ids: list[int], weights: list[float], message: str
) -> None:
    inputs = inputs_for(2)
    builder = RowMapBuilder(inputs, "test")
    with pytest.raises(LangadaptError, match=message):
        builder.many(inputs.new_tokens, indptr, ids, weights, "test")
        builder.build()


@pytest.mark.parametrize("count", [1, 3, 300])
def test_dense_rows_are_the_product_and_do_not_depend_on_their_neighbours(count: int, tmp_path: Path) -> None:
    inputs = inputs_for(count + 1)
    random = np.random.Generator(np.random.Philox(key=count))
    vectors, matrix, offset = random.random((count, 3)), random.random((3, WIDTH)), random.random(WIDTH)
    builder = RowMapBuilder(inputs, "test")
    builder.mean(inputs.new_tokens[-1], [2], "copy")
    builder.dense(inputs.new_tokens[:count][::-1], vectors[::-1], "mapped", matrix=matrix, offset=offset)
    rows = builder.build()
    made = rows.apply(TABLE)
    np.testing.assert_allclose(made[:count], vectors @ matrix + offset, rtol=1e-5)
    np.testing.assert_array_equal(made[count], TABLE[2])
    assert not rows.is_convex() and rows.duplicates() == []
    alone = RowMapBuilder(inputs_for(1), "test")
    alone.dense(inputs.new_tokens[:1], vectors[:1], "mapped", matrix=matrix, offset=offset)
    assert alone.build().apply(TABLE).tobytes() == made[:1].tobytes()
    save_maps({"input": rows}, tmp_path)
    stored = load_file(tmp_path / "row_map.safetensors")
    assert stored["input.dense.0.vectors"].shape == (count, 3) and "input.dense.0.matrix" in stored
    assert load_maps(tmp_path)["input"].apply(TABLE).tobytes() == made.tobytes()
    bias = np.arange(OLD, dtype=np.float32)
    assert rows.apply_bias(bias).tolist() == [bias.mean()] * count + [2.0]


def test_given_rows_are_stored_as_they_are_and_equal_ones_are_found() -> None:
    inputs = inputs_for(3)
    builder = RowMapBuilder(inputs, "test")
    builder.dense(inputs.new_tokens, np.array([TABLE[0], TABLE[1], TABLE[0]]), "given")
    rows = builder.build()
    np.testing.assert_array_equal(rows.apply(TABLE), [TABLE[0], TABLE[1], TABLE[0]])
    assert rows.duplicates() == [[100, 102]]
    with pytest.raises(LangadaptError, match="no numbers"):
        RowMapBuilder(inputs, "test").dense(inputs.new_tokens, np.full((3, WIDTH), np.nan), "given")


@pytest.mark.parametrize("population", [OLD, 3])
def test_correlated_noise_has_the_covariance_of_the_population(population: int) -> None:
    """Also with fewer rows than dimensions, where the covariance has no Cholesky factor."""
    count = 4000
    inputs = inputs_for(count)
    inputs = InitInputs(**{**vars(inputs), "population": np.arange(population)})
    builder = RowMapBuilder(inputs, "test")
    for token in inputs.new_tokens:
        builder.drawn(token, 0.5, "drawn", correlated=True)
    made = builder.build().apply(TABLE).astype(np.float64)
    text = TABLE[:population].astype(np.float64)
    expected = 0.25 * np.cov(text.T, bias=True)
    np.testing.assert_allclose(np.cov(made.T), expected, atol=0.06 * np.abs(expected).max())
    np.testing.assert_allclose(made.mean(axis=0), text.mean(axis=0), atol=0.05)
    key = stream_key(1, "row", "tied", b"w0".hex())
    draw = np.random.Generator(np.random.Philox(key=key)).standard_normal(WIDTH, dtype=np.float32)
    if population == OLD:
        factor = np.linalg.cholesky(np.cov(text.T, bias=True))
        np.testing.assert_allclose(made[0], text.mean(axis=0) + 0.5 * factor @ draw, rtol=1e-4, atol=1e-5)


def test_a_map_of_an_older_version_is_read(tmp_path: Path) -> None:
    inputs = inputs_for(2)
    builder = RowMapBuilder(inputs, "test")
    builder.mean(inputs.new_tokens[0], [1], "copy")
    builder.drawn(inputs.new_tokens[1], 1.0, "drawn")
    rows = builder.build()
    save_maps({"input": rows}, tmp_path)
    arrays = load_file(tmp_path / "row_map.safetensors")
    del arrays["input.correlated"]
    save_file(arrays, tmp_path / "row_map.safetensors")
    assert load_maps(tmp_path)["input"].apply(TABLE).tobytes() == rows.apply(TABLE).tobytes()


def test_a_long_line_is_stored_whole_and_its_heaviest_pieces_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langadapt.embed.rowmap._BLOCK_VALUES", 1000)  # one line alone is more than a block
    inputs = InitInputs(**{**vars(inputs_for(1)), "old_rows": 5000, "base": Numbers()})
    builder = RowMapBuilder(inputs, "test")
    weights = np.ones(5000)
    weights[4321] = 9
    builder.many(inputs.new_tokens, [0, 5000], np.arange(5000), weights, "all")
    rows = builder.build()
    note = rows.provenance[0]
    assert note["of"] == 5000 and len(note["pieces"]) == 16 and note["pieces"][0] == "4321"
    table = some_table(5000, 4)
    np.testing.assert_allclose(rows.apply(table)[0], np.average(table, axis=0, weights=weights), rtol=1e-3, atol=1e-5)


class Numbers(Alphabet):
    """The piece of an id is its number."""

    def piece(self, id: int) -> str:
        return str(id)


def test_needs_are_checked_by_name() -> None:
    check_needs("m", ("base_tokenizer", "corpus|vectors", "dictionary?"), {"vectors": 1})
    with pytest.raises(ConfigError, match="the method `m` needs `corpus` or `vectors`") as caught:
        check_needs("m", ("corpus|vectors",), {"corpus": None, "helper": 1})
    assert "--corpus" in str(caught.value.hint) and "--vectors" in str(caught.value.hint)
    with pytest.raises(LangadaptError, match="corpse"):
        check_needs("m", ("corpse",), {})
    assert unused(("corpus|vectors", "dictionary?"), {"corpus": 1, "dictionary": 1, "helper": 1, "counts": None}) == [
        "helper"
    ]


def test_what_was_not_given_is_an_error_that_says_how_to_give_it(tiny: Path, tmp_path: Path) -> None:
    nothing = inputs_for(1)
    for ask in (nothing.corpus, nothing.vectors, nothing.helper, nothing.dictionary, nothing.counts):
        with pytest.raises(ConfigError, match="is missing") as caught:
            ask()
        assert "--" in str(caught.value.hint)
    table = some_table(TokenTable.from_folder(tiny).size)
    inputs = world(tiny, tmp_path / "w").inputs(table)
    old, new = inputs.anchors()
    assert set(old.tolist()) == set(inputs.population.tolist()) and (old == new).all()
    np.testing.assert_array_equal(inputs.base_rows(old[3:5]), table[old[3:5]])
    np.testing.assert_array_equal(inputs.base_rows(slice(2, 4)), table[2:4])
    assert inputs.stream("x", "y").random() == inputs.stream("x", "y").random() != inputs.stream("x", "z").random()


def test_a_helper_gives_rows_by_ids_of_the_new_tokenizer(tiny: Path, tmp_path: Path) -> None:
    place = world(tiny, tmp_path / "w")
    helper = open_helper(place.files["helper"], place.target)
    tables = open_tables(place.files["helper"])
    ids = np.array([place.target.size - 1, 10])
    np.testing.assert_array_equal(helper.rows(ids, "input"), tables.read_input()[ids].numpy())
    np.testing.assert_array_equal(helper.rows(ids, "head"), tables.read_head()[ids].numpy())
    assert helper.width == 16 and (helper.row_of >= 0).all()
    short = open_helper(tiny, place.target)
    assert (short.row_of[place.base.size :] == -1).all()
    with pytest.raises(DataError, match="lacks 1 of 2 tokens"):
        short.rows(ids, "input")


def test_fewer_tokens_keep_their_rows_when_asked(tiny: Path, tmp_path: Path) -> None:
    """Byte-level pieces and SentencePiece's: an accented letter is the same in bytes and not as a string."""
    base, other = TokenTable.from_folder(tiny), family_tokenizer(tmp_path / "llama", "llama")
    new = TokenTable.from_folder(other)
    found = match(base, new, base_rows=base.size)
    strings = with_less_overlap(found, base, new, same_string=True)
    none = with_less_overlap(found, base, new, same_string=False)
    lost = found.kept.keys() - strings.kept.keys()
    assert any(not base.bytes_of(id).isascii() for id in lost) and strings.kept.items() < found.kept.items()
    assert any(base.piece(id).startswith("Ġ") for id in strings.kept)
    assert not set(none.kept) & set(base.text_ids().tolist())
    assert len(none.new_tokens) + len(none.kept) == len(found.new_tokens) + len(found.kept)
    made = langadapt.init_embeddings(
        out=tmp_path / "o", model=tiny, tokenizer=other, method="subtoken-mean", overlap="special"
    )
    assert made.facts["added"] == len(none.new_tokens) and made.facts["reasons"]["pieces"] > 50


def test_overlap_is_refused_where_the_vocabulary_was_extended(tiny: Path, tmp_path: Path) -> None:
    tokenizer = extended_tokenizer(tiny, tmp_path / "t")
    with pytest.raises(ConfigError, match="all its tokens keep their rows"):
        langadapt.init_embeddings(out=tmp_path / "o", model=tiny, tokenizer=tokenizer, overlap="special")


def test_what_a_method_does_not_look_at_is_said(tiny: Path, tmp_path: Path) -> None:
    heard: list[Any] = []
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("the\ta\n", encoding="utf-8")
    langadapt.init_embeddings(
        out=tmp_path / "o", model=tiny, tokenizer=tiny, method="mean", dictionary=pairs, listener=heard.append
    )
    assert any("`dictionary` was given" in getattr(event, "text", "") for event in heard)
