"""normal, focus and wechsel against slow float64 oracles written from the formulas."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.host import spending
from langadapt.core.rng import stream_key
from langadapt.embed import focus as focus_file
from langadapt.embed import nearest as nearest_file
from langadapt.embed.alignment import aligned, dictionary_places
from langadapt.embed.focus import focus
from langadapt.embed.nearest import neighbors, sparse_weights, sparsemax, top, unit
from langadapt.embed.normal import Options as NormalOptions
from langadapt.embed.normal import normal
from langadapt.embed.rotation import procrustes
from langadapt.embed.vectors import WordVectors
from langadapt.embed.wechsel import Options as WechselOptions
from langadapt.embed.wechsel import wechsel
from tests.fixtures.given import World, some_table, world


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tiny, tmp_path_factory.mktemp("world"))


def random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=seed)).standard_normal(shape, dtype=np.float32)


# normal


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_normal_is_the_mean_plus_the_factor_times_the_tokens_own_numbers(covariance: Any, place: World) -> None:
    table = some_table(place.base.size)
    inputs = place.inputs(table)
    made = normal(inputs, NormalOptions(scale=0.04, covariance=covariance)).apply(table)
    text = table[inputs.population].astype(np.float64)
    spread = np.cov(text.T, bias=True)
    factor = np.linalg.cholesky(spread) if covariance == "full" else np.diag(np.sqrt(np.diag(spread)))
    for row, token in zip(made, inputs.new_tokens, strict=True):
        key = stream_key(3, "row", "input", token.content.hex())
        draw = np.random.Generator(np.random.Philox(key=key)).standard_normal(8, dtype=np.float32)
        np.testing.assert_allclose(row, text.mean(axis=0) + 0.2 * factor @ draw, rtol=1e-4, atol=1e-5)


def test_normal_rows_of_the_usual_scale_hardly_differ_and_keep_hewitts_bound(place: World) -> None:
    table = some_table(place.base.size)
    inputs = place.inputs(table)
    made = normal(inputs, NormalOptions()).apply(table)
    assert len({row.tobytes() for row in made}) == len(made)
    mean = table[inputs.population].mean(axis=0)
    assert np.abs(made - mean).max() < 3e-4
    states = random((50, 8), 1).astype(np.float64) * 4
    old = np.exp(states @ table[inputs.population].T.astype(np.float64)).sum(axis=1)
    new = np.exp(states @ made.T.astype(np.float64)).sum(axis=1)
    assert (np.log(1 + new / old) <= np.log(1 + len(made) / len(inputs.population)) + 1e-2).all()


# sparsemax and nearest


def oracle_sparsemax(values: np.ndarray) -> np.ndarray:
    """Martins and Astudillo 2016, one row, in float64."""
    falling = np.sort(values.astype(np.float64))[::-1]
    support = max(k for k in range(1, len(falling) + 1) if 1 + k * falling[k - 1] > falling[:k].sum())
    tau = (falling[:support].sum() - 1) / support
    return np.maximum(values.astype(np.float64) - tau, 0)


@pytest.mark.parametrize(("gap", "expected"), [(0.0, [0.5, 0.5]), (0.4, [0.7, 0.3]), (1.0, [1, 0]), (3.0, [1, 0])])
def test_sparsemax_of_two(gap: float, expected: list[float]) -> None:
    weights, _ = sparsemax(np.array([[0.2 + gap, 0.2]], dtype=np.float32))
    np.testing.assert_allclose(weights, [expected], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 8), st.integers(0, 10**6))
def test_sparse_weights_equal_the_oracle_however_few_values_are_looked_at_first(
    queries: int, keys: int, first: int, seed: int
) -> None:
    mine, theirs = unit(random((queries, 3), seed)), unit(random((keys, 3), seed + 1))
    theirs[keys // 2] = theirs[0]  # a tie
    before = nearest_file._FIRST
    nearest_file._FIRST = first
    try:
        indptr, columns, weights = sparse_weights(mine, theirs)
    finally:
        nearest_file._FIRST = before
    for row in range(queries):
        found = np.zeros(keys)
        found[columns[indptr[row] : indptr[row + 1]]] = weights[indptr[row] : indptr[row + 1]]
        np.testing.assert_allclose(found, oracle_sparsemax(mine[row].astype(np.float64) @ theirs.T), atol=1e-5)
        assert found.sum() == pytest.approx(1, abs=1e-5)


def test_the_largest_values_come_first_and_of_equal_ones_the_lower_column() -> None:
    similar = torch.tensor([[1.0, 3.0, 2.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0, 5.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    values, columns = top(similar, 2)
    assert columns.tolist() == [[1, 3], [4, 0], [0, 1]] and values.tolist() == [[3, 3], [5, 0], [5, 4]]
    values, columns = top(similar, 4)
    assert columns.tolist() == [[1, 3, 4, 2], [4, 0, 1, 2], [0, 1, 2, 3]]


# focus


def test_focus_rows_equal_the_oracle(place: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With vectors that are given: tokens without one and anchors without one included."""
    table = some_table(place.base.size)
    inputs = place.inputs(table)
    old, new = inputs.anchors()
    count = len(inputs.new_tokens) + len(new)
    vectors, known = random((count, 6), 4), np.ones(count, dtype=np.bool_)
    known[1] = known[len(inputs.new_tokens) + 3] = False
    vectors[len(inputs.new_tokens) + 5] = 0
    monkeypatch.setattr(focus_file, "token_vectors", lambda *rest: (vectors, known))
    rows = focus(inputs, focus_file.Options())
    made = rows.apply(table)
    tokens = sorted(inputs.new_tokens, key=lambda token: token.id)
    usable = [n for n in range(len(new)) if n not in (3, 5)]
    for place_, token in enumerate(tokens):
        if place_ == 1:
            pieces = inputs.base.spell(token.content)
            np.testing.assert_allclose(made[1], table[pieces].mean(axis=0), rtol=1e-5)
            continue
        mine = vectors[place_].astype(np.float64)
        theirs = vectors[len(tokens) :][usable].astype(np.float64)
        cosine = theirs @ mine / np.linalg.norm(theirs, axis=1) / np.linalg.norm(mine)
        expected = oracle_sparsemax(cosine) @ table[old[usable]].astype(np.float64)
        np.testing.assert_allclose(made[place_], expected, rtol=1e-5, atol=1e-5)
    assert rows.reasons() == {"like tokens": len(tokens) - 1, "no vector: mean of its pieces": 1}


def test_focus_learns_its_vectors_and_says_which_tokens_have_none(place: World) -> None:
    table = some_table(place.base.size)
    inputs = place.inputs(table)
    often = focus(inputs, focus_file.Options(dim=8, min_count=1))
    assert often.reasons().get("like tokens", 0) > 0
    with pytest.raises(DataError, match="Empty vocabulary"):
        focus(inputs, focus_file.Options(dim=8, min_count=10**6))
    with pytest.raises(DataError, match="wordz"):
        focus(inputs, focus_file.Options(dim=8, min_count=1, fasttext={"wordz": 1}))


# wechsel


def test_procrustes_finds_a_planted_rotation() -> None:
    turn, _ = np.linalg.qr(random((5, 5), 3).astype(np.float64))
    source = random((40, 5), 4)
    np.testing.assert_allclose(procrustes(source, (source @ turn).astype(np.float32)), turn, atol=1e-5)


@pytest.mark.parametrize(("ours", "theirs"), [(4, 6), (6, 4), (5, 5)])
def test_spaces_of_two_widths_are_aligned(ours: int, theirs: int) -> None:
    words = [f"w{n}" for n in range(30)]
    base = WordVectors(words, random((30, ours), 5))
    new = WordVectors([word.upper() for word in words], random((30, theirs), 6))
    found = aligned(base, new, [(word, word.upper()) for word in words] + [("absent", "W1")])
    assert found.rotation.shape == (ours, max(ours, theirs)) and (found.pairs, found.accuracy) == (30, None)
    np.testing.assert_allclose(found.rotation @ found.rotation.T, np.eye(ours), atol=1e-5)


@pytest.mark.parametrize("noise", [0.0, 100.0])
def test_accuracy_is_that_of_words_that_the_fit_did_not_see(noise: float) -> None:
    words = [f"w{n}" for n in range(1000)]
    turn, _ = np.linalg.qr(random((6, 6), 3).astype(np.float64))
    base = random((1000, 6), 5)
    new = WordVectors(words, (base @ turn + noise * random((1000, 6), 6)).astype(np.float32))
    found = aligned(WordVectors(words, base), new, [(word, word) for word in words])
    assert found.tried == 100
    # by chance one in a thousand
    assert found.accuracy == 1.0 if noise == 0 else found.accuracy is not None and found.accuracy < 0.05


def test_every_spelling_of_a_pair_counts_and_none_is_an_error() -> None:
    base = WordVectors(["house", "House"], random((2, 3), 1))
    new = WordVectors(["Ház", "ház"], random((2, 3), 2))
    first, second, counts = dictionary_places([("House", "ház")], base, new)
    assert aligned(base, new, [("House", "ház")]).pairs == 4
    # `House` stands for itself and its Title case, `ház` for itself and its lower case
    expected = {("House", "ház"): 4, ("House", "Ház"): 2, ("house", "ház"): 2, ("house", "Ház"): 1}
    names = [(base.words[one], new.words[two]) for one, two in zip(first, second, strict=True)]
    assert dict(zip(names, counts.tolist(), strict=True)) == expected
    with pytest.raises(DataError, match="no pair of the dictionary"):
        aligned(base, new, [("ház", "house")])


def oracle_wechsel(inputs: Any, table: np.ndarray, k: int, temperature: float) -> list[np.ndarray | None]:
    """One token at a time, with word lists and loops."""

    def of_tokens(words: WordVectors, tokenizer: Any) -> dict[int, np.ndarray]:
        sums: dict[int, list[Any]] = {}
        for rank, word in enumerate(words.words, 1):
            for text in (word, " " + word):
                for id in set(tokenizer.encode(text, add_special_tokens=False).ids):
                    entry = sums.setdefault(id, [0, 0])
                    entry[0] = entry[0] + words.table[rank - 1].astype(np.float64) / rank
                    entry[1] += 1 / rank
        return {id: total / weight for id, (total, weight) in sums.items()}

    base, new = inputs.base_vectors(), inputs.vectors()
    pairs = []
    for first, second in inputs.dictionary():
        for one in (first, first.lower(), first.title()):
            for two in (second, second.lower(), second.title()):
                if one in base.words and two in new.words:
                    pairs.append((list(base.words).index(one), list(new.words).index(two)))
    x = base.table[[one for one, _ in pairs]].astype(np.float64)
    y = new.table[[two for _, two in pairs]].astype(np.float64)
    left, _, right = np.linalg.svd(x.T @ y)
    theirs = {id: vector @ left @ right for id, vector in of_tokens(base, inputs.base_tokenizer()).items()}
    mine = of_tokens(new, inputs.target_tokenizer())
    ids = [id for id in inputs.population.tolist() if id in theirs]
    rows: list[np.ndarray | None] = []
    for token in sorted(inputs.new_tokens, key=lambda token: token.id):
        if token.id not in mine:
            rows.append(None)
            continue
        u = mine[token.id]
        cosine = np.array([u @ theirs[id] / np.linalg.norm(u) / np.linalg.norm(theirs[id]) for id in ids])
        order = sorted(range(len(ids)), key=lambda n: (-cosine[n], ids[n]))[:k]
        weights = np.exp(cosine[order] / temperature)
        rows.append(weights / weights.sum() @ table[[ids[n] for n in order]].astype(np.float64))
    return rows


@pytest.mark.parametrize(("k", "temperature"), [(10, 0.1), (1, 0.1), (3, 2.0), (1000, 0.1)])
def test_wechsel_rows_equal_the_oracle(k: int, temperature: float, place: World) -> None:
    table = some_table(place.base.size)
    inputs = place.inputs(table)
    rows = wechsel(inputs, WechselOptions(neighbors=k, temperature=temperature))
    expected = oracle_wechsel(inputs, table, k, temperature)
    made = rows.apply(table)
    assert sum(row is not None for row in expected) >= 3
    for row, other, note in zip(made, expected, rows.provenance, strict=True):
        if other is None:
            assert note["why"] == "no vector: mean of its pieces"
        else:
            np.testing.assert_allclose(row, other, rtol=1e-5, atol=1e-5)


def test_wechsel_gives_the_same_rows_if_one_space_is_turned(place: World) -> None:
    table = some_table(place.base.size)
    inputs = place.inputs(table)
    turn, _ = np.linalg.qr(random((8, 8), 7).astype(np.float64))
    ours = inputs.vectors()
    turned = WordVectors(ours.words, (ours.table @ turn).astype(np.float32))
    other = place.inputs(table, given=type(inputs.given)(**{**vars(inputs.given), "vectors": lambda: turned}))
    before, after = (wechsel(item, WechselOptions()).apply(table) for item in (inputs, other))
    np.testing.assert_allclose(before, after, atol=1e-4)


def test_a_small_temperature_and_one_neighbour_copy_it() -> None:
    vectors = unit(random((20, 4), 8))
    values, places = neighbors(vectors, vectors, 1)
    assert places[:, 0].tolist() == list(range(20)) and np.allclose(values, 1, atol=1e-6)


def test_neighbours_never_take_the_memory_of_all_cosines() -> None:
    """8,000 x 20,000 cosines are 640 MB; a block of them is 20 MB, and each one in a place of its own adds up."""
    queries, keys = unit(random((8_000, 8), 1)), unit(random((20_000, 8), 2))
    neighbors(queries[:1], keys, 10)
    with spending() as spent:
        neighbors(queries, keys, 10)
    if spent.memory_bytes is None:
        pytest.skip("this system does not tell the peak of a part of a process")
    assert spent.memory_bytes < 60_000_000


def test_letters_make_vectors_only_where_the_file_can(place: World) -> None:
    inputs = place.inputs(some_table(place.base.size))
    with pytest.raises(ConfigError, match=r"needs vectors from \.bin files"):
        wechsel(inputs, WechselOptions(tokens="ngrams"))
    asked: list[str] = []

    def compose(strings: Any) -> np.ndarray:
        asked.extend(strings)
        return random((len(strings), 8), 9)

    def opened(name: str) -> Any:
        found = getattr(inputs, name)()
        return lambda: WordVectors(found.words, found.table, None, compose)

    given = type(inputs.given)(
        **{**vars(inputs.given), "vectors": opened("vectors"), "base_vectors": opened("base_vectors")}
    )
    rows = wechsel(place.inputs(some_table(place.base.size), given=given), WechselOptions(tokens="ngrams"))
    assert "sze" in asked and not any(text != text.strip() for text in asked)
    assert rows.reasons()["nearest tokens"] == len(inputs.new_tokens)
    assert neighbors(random((0, 3), 1), random((4, 3), 1), 2)[0].shape == (0, 2)
