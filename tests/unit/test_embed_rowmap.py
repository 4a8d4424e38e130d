"""Row maps against slow sums written out here."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt.core.errors import DataError, LangadaptError
from langadapt.core.rng import stream_key
from langadapt.core.types import NewToken
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.position_weighted import Options as Weighted
from langadapt.embed.position_weighted import position_weighted
from langadapt.embed.random import Options as Drawn
from langadapt.embed.random import random
from langadapt.embed.rowmap import RowMap, load_maps, save_maps
from langadapt.embed.subtoken_mean import Options as Plain
from langadapt.embed.subtoken_mean import subtoken_mean
from langadapt.embed.types import Role

LETTERS = " abcdefg"


class Alphabet:
    """One token a letter: id 0 is the space."""

    def spell(self, content: bytes) -> list[int]:
        ids = [LETTERS.find(letter) for letter in content.decode("utf-8", "replace")]
        return [] if -1 in ids else ids

    def bytes_of(self, id: int) -> bytes:
        return LETTERS[id].encode()

    def piece(self, id: int) -> str:
        return LETTERS[id]


def inputs_for(words: list[str], role: Role = "tied", population: int = len(LETTERS)) -> InitInputs:
    tokens = [NewToken(len(LETTERS) + place, word, word.encode(), 1, "test") for place, word in enumerate(words)]
    return InitInputs(Alphabet(), tokens, len(LETTERS), np.arange(population), role, seed=1)


TABLE = np.random.Generator(np.random.Philox(key=2)).standard_normal((len(LETTERS), 5), dtype=np.float32)
words = st.lists(st.text(LETTERS, min_size=1, max_size=9), min_size=1, max_size=12)


def oracle_mean(word: str) -> np.ndarray:
    """Sum of rows of all letters but spaces (unless there are only spaces), divided by their number, in float64."""
    letters = [letter for letter in word if letter != " "] if len(word) > 1 else [word]
    letters = letters or list(word)
    return sum(TABLE[LETTERS.index(letter)].astype(np.float64) for letter in letters) / len(letters)


@settings(max_examples=60, deadline=None)
@given(words)
def test_subtoken_mean_equals_the_oracle(given_words: list[str]) -> None:
    rows = subtoken_mean(inputs_for(given_words), Plain()).apply(TABLE)
    for row, word in zip(rows, given_words, strict=True):
        np.testing.assert_allclose(row, oracle_mean(word), rtol=1e-5, atol=1e-6)


def test_two_pieces_are_exactly_halfway() -> None:
    rows = subtoken_mean(inputs_for(["ab"]), Plain()).apply(TABLE)
    assert rows[0].tobytes() == ((TABLE[1] + TABLE[2]) / 2).tobytes()


def test_the_bare_space_counts_when_asked() -> None:
    with_space = subtoken_mean(inputs_for([" a"]), Plain(skip_bare_space=False)).apply(TABLE)
    np.testing.assert_allclose(with_space[0], (TABLE[0] + TABLE[1]) / 2, rtol=1e-6)
    assert subtoken_mean(inputs_for([" a"]), Plain()).apply(TABLE)[0].tobytes() == TABLE[1].tobytes()


def oracle_weights(count: int, slope: float, sign: int) -> list[float]:
    """AdaptiVocab: exp(sign * slope * i), normalised, with Python's big floats kept in range by hand."""
    raw = [math.exp(sign * slope * (i - (count if sign > 0 else 1))) for i in range(1, count + 1)]
    return [value / sum(raw) for value in raw]


@settings(max_examples=60, deadline=None)
@given(st.text("abcdefg", min_size=1, max_size=60), st.floats(0, 8))
def test_position_weights_equal_the_oracle(word: str, slope: float) -> None:
    letters = TABLE[[LETTERS.index(letter) for letter in word]].astype(np.float64)
    rising = np.array(oracle_weights(len(word), slope, +1)) @ letters
    falling = np.array(oracle_weights(len(word), slope, -1)) @ letters
    options = Weighted(slope=slope)
    for role, expected in (("input", rising), ("head", falling), ("tied", (rising + falling) / 2)):
        row = position_weighted(inputs_for([word], role), options).apply(TABLE)[0]  # type: ignore[arg-type]
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("options", "share"), [(Weighted(), 0.7307), (Weighted(slope=2.0), 0.8668)])
def test_the_last_of_three_pieces_counts_73_percent_and_87_as_published(options: Weighted, share: float) -> None:
    line = position_weighted(inputs_for(["abc"], "input"), options)
    assert line.values[-1] == pytest.approx(share, abs=1e-4)
    head = position_weighted(inputs_for(["abc"], "head"), options)
    assert head.values[0] == pytest.approx(share, abs=1e-4)


def test_the_mean_column_is_the_mean_of_the_population_only() -> None:
    inputs = inputs_for(["x"], population=3)
    row = subtoken_mean(inputs, Plain()).apply(TABLE)[0]
    np.testing.assert_allclose(row, TABLE[:3].astype(np.float64).mean(axis=0), rtol=1e-6)


def test_random_rows_have_the_moments_of_the_table() -> None:
    table = np.random.Generator(np.random.Philox(key=4)).standard_normal((len(LETTERS), 3), dtype=np.float32) * 3 + 1
    rows = random(inputs_for([f"w{number}" for number in range(4000)]), Drawn()).apply(table)
    error = table.std(axis=0) / math.sqrt(4000)
    assert (np.abs(rows.mean(axis=0) - table.mean(axis=0)) < 5 * error).all()
    np.testing.assert_allclose(rows.std(axis=0), table.std(axis=0), rtol=0.06)


def test_a_random_row_is_the_stream_of_its_bytes() -> None:
    row = random(inputs_for(["abc"]), Drawn(scale=0.5)).apply(TABLE)[0]
    key = stream_key(1, "row", "tied", b"abc".hex())
    noise = np.random.Generator(np.random.Philox(key=key)).standard_normal(5, dtype=np.float32)
    mean, spread = TABLE.astype(np.float64).mean(axis=0), TABLE.astype(np.float64).std(axis=0)
    np.testing.assert_allclose(row, mean + 0.5 * spread * noise, rtol=1e-4, atol=1e-5)


def test_head_and_input_get_different_noise() -> None:
    assert random(inputs_for(["a"], "input"), Drawn()).apply(TABLE).tobytes() != (
        random(inputs_for(["a"], "head"), Drawn()).apply(TABLE).tobytes()
    )


@settings(max_examples=30, deadline=None)
@given(words)
def test_head_mass_stays_under_the_jensen_bound(given_words: list[str]) -> None:
    """Rows on the simplex: log Z'/Z <= log(1 + sum_j c_j p_j) for every hidden state."""
    line = subtoken_mean(inputs_for(given_words), Plain())
    assert line.is_convex()
    states = np.random.Generator(np.random.Philox(key=9)).standard_normal((20, 5)) * 4
    old = np.exp(states @ TABLE.T.astype(np.float64))
    new = np.exp(states @ line.apply(TABLE).T.astype(np.float64))
    chances = old / old.sum(axis=1, keepdims=True)
    moved = np.log(1 + new.sum(axis=1) / old.sum(axis=1))
    assert (moved <= np.log(1 + chances @ line.column_mass()) + 1e-5).all()


def test_duplicates_are_found_whatever_the_order_of_pieces() -> None:
    line = subtoken_mean(inputs_for(["ab", "c", "ba", "bc", " c"]), Plain())
    assert line.duplicates() == [[8, 10], [9, 12]]
    assert random(inputs_for(["a", "b"]), Drawn()).duplicates() == []


def test_bias_follows_the_same_sums() -> None:
    bias = np.arange(len(LETTERS), dtype=np.float32)
    assert subtoken_mean(inputs_for(["ac"]), Plain()).apply_bias(bias).tolist() == [2.0]
    assert random(inputs_for(["ac"]), Drawn()).apply_bias(bias).tolist() == [bias.mean()]


def test_saved_maps_come_back_and_give_the_same_bytes(tmp_path: Path) -> None:
    given_words = ["ab", "x", "gfed"]
    maps = {
        "input": random(inputs_for(given_words, "input"), Drawn()),
        "head": subtoken_mean(inputs_for(given_words, "head"), Plain()),
    }
    (tmp_path / "again").mkdir()
    save_maps(maps, tmp_path)
    loaded = load_maps(tmp_path)
    save_maps(loaded, tmp_path / "again")
    for name, rows in maps.items():
        assert loaded[name].apply(TABLE).tobytes() == rows.apply(TABLE).tobytes()
        assert [dict(note) for note in loaded[name].provenance] == [dict(note) for note in rows.provenance]
    for name in ("row_map.safetensors", "provenance.jsonl"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_map_is_refused_for_a_table_of_another_size() -> None:
    rows = subtoken_mean(inputs_for(["ab"]), Plain())
    with pytest.raises(DataError, match="8 rows"):
        rows.apply(TABLE[:5])


def test_many_lines_give_the_same_rows_as_few() -> None:
    """Maps are applied in pieces of 4,096 lines; the seam must not show."""
    given_words = [LETTERS[1 + number % 7] + LETTERS[1 + number // 7 % 7] for number in range(5000)]
    rows = subtoken_mean(inputs_for(given_words), Plain()).apply(TABLE)
    for place in (0, 4094, 4095, 4096, 4097, 4999):
        np.testing.assert_allclose(rows[place], oracle_mean(given_words[place]), rtol=1e-6, atol=1e-7)


def test_blocks_of_any_size_give_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs_for([f"w{place}" for place in range(23)])
    builder, tokens = RowMapBuilder(given, "test"), given.new_tokens
    draws = np.random.Generator(np.random.Philox(key=3))
    for token in tokens[::4]:
        builder.mean(token, [1, 2, token.id % 7], "pieces")
    for place, token in enumerate(tokens[1::4]):
        builder.drawn(token, 0.5 * place, "drawn")
    for token in tokens[2::4]:
        builder.drawn(token, 0.7, "together", correlated=True)
    vectors, matrix = draws.standard_normal((len(tokens[3::4]), 3)), draws.standard_normal((3, 5))
    builder.dense(tokens[3::4], vectors, "mapped", matrix=matrix, offset=np.ones(5), noise=0.1)
    rows = builder.build()
    whole = rows.apply(TABLE)
    np.testing.assert_allclose(whole[3::4], vectors @ matrix + 1, atol=0.1 * 6 * TABLE.std())
    assert len(np.unique(whole, axis=0)) == len(whole), "each line is one of its own"
    for lines in (1, 3, 5, 100):
        monkeypatch.setattr("langadapt.embed.rowmap._LINES_AT_A_TIME", lines)
        starts = [start for start, _ in rows.parts(TABLE)]
        assert starts == list(range(0, len(whole), lines))
        assert rows.apply(TABLE).tobytes() == whole.tobytes()


def test_a_method_must_give_every_token_exactly_one_line() -> None:
    inputs = inputs_for(["a", "b"])
    builder = RowMapBuilder(inputs, "half")
    builder.mean(inputs.new_tokens[0], [1], "test")
    with pytest.raises(LangadaptError, match="gave no row to 1 tokens"):
        builder.build()
    with pytest.raises(LangadaptError, match="two rows"):
        builder.mean(inputs.new_tokens[0], [1], "test")
    with pytest.raises(LangadaptError, match="no usable weights"):
        builder.weighted(inputs.new_tokens[1], [1, 2], [0.0, 0.0], "test")
    assert isinstance(replace(RowMapBuilder(inputs_for([]), "none").build()), RowMap)
