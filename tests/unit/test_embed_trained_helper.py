"""`--helper train`: co-occurrence vectors against slow oracles, the cache, and the step."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import langadapt
from langadapt.core import verb as verbs
from langadapt.core.config import input_fields
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import resolve_input, resolve_inputs
from langadapt.core.progress import Note, Progress
from langadapt.core.validate import validate
from langadapt.embed import cooccurrence, trained_helper
from langadapt.embed.cooccurrence import directions, mutual_information, pair_counts
from langadapt.embed.trained_helper import train_helper
from langadapt.recipe.sources import FromPath, find
from langadapt.steps.init_embeddings import Config
from tests.fixtures.given import World, world

SIZE = 12


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tiny, tmp_path_factory.mktemp("world"))


def some_texts(seed: int, count: int = 20) -> list[list[int]]:
    random = np.random.Generator(np.random.Philox(key=seed))
    return [random.integers(0, SIZE - 2, size=random.integers(0, 15)).tolist() for _ in range(count)]


def oracle_counts(texts: list[list[int]], window: int) -> dict[tuple[int, int], float]:
    found: Counter[tuple[int, int]] = Counter()
    for ids in texts:
        for i in range(len(ids)):
            for j in range(i + 1, min(len(ids), i + window + 1)):
                found[ids[i], ids[j]] += 1 / (j - i)  # type: ignore[assignment]
    return dict(found)


@pytest.mark.parametrize(("window", "at_a_time"), [(1, 10**6), (3, 10**6), (4, 30)])
def test_pairs_are_counted_within_texts_however_they_are_cut_into_blocks(
    window: int, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cooccurrence, "_TOKENS_AT_A_TIME", at_a_time)
    texts = some_texts(window)
    keys, counts = pair_counts(texts, SIZE, window)
    found = {(key // SIZE, key % SIZE): count for key, count in zip(keys.tolist(), counts.tolist(), strict=True)}
    assert found == pytest.approx(oracle_counts(texts, window))


def oracle_ppmi(texts: list[list[int]], window: int) -> np.ndarray:
    table = np.zeros((SIZE, 2 * SIZE))
    for (left, right), count in oracle_counts(texts, window).items():
        table[left, right] += count
        table[right, SIZE + left] += count
    contexts = table.sum(axis=0) ** 0.75
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.log(table * contexts.sum() / np.outer(table.sum(axis=1), contexts))
    return np.where(table > 0, np.maximum(score, 0), 0)


def test_information_and_its_directions_equal_the_oracle() -> None:
    texts = some_texts(3, 60)
    matrix = mutual_information(*pair_counts(texts, SIZE, 2), SIZE)
    expected = oracle_ppmi(texts, 2)
    np.testing.assert_allclose(matrix.to_dense().numpy(), expected, atol=1e-5)
    vectors = directions(matrix, 4, np.random.Generator(np.random.Philox(key=0)))
    left, strengths, _ = np.linalg.svd(expected)
    for number in range(4):
        column = left[:, number] * np.sqrt(strengths[number])
        column *= np.sign(column[np.abs(column).argmax()])
        np.testing.assert_allclose(vectors[:, number], column, atol=1e-4)
    assert not vectors[SIZE - 2 :].any()


def test_a_helper_is_learned_once_and_knows_what_it_has_not_seen(
    place: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path))
    tokenizer = place.given(np.zeros((1, 1))).target_tokenizer
    assert tokenizer is not None
    heard: list[Any] = []

    def learn(texts: Any, digest: str = "a") -> Any:
        return train_helper(iter(texts), tokenizer(), place.target.size, [digest], Progress(heard.append))

    first = learn(place.texts)
    again = learn([])
    assert again.table.tobytes() == first.table.tobytes() and len(heard) == 1
    seen = {id for text in place.texts for id in tokenizer().encode(text).ids}
    assert {id for id in range(place.target.size) if first.row_of[id] >= 0} == seen
    unseen = int(np.flatnonzero(first.row_of < 0)[0])
    with pytest.raises(DataError, match="lacks 1 of 2"):
        first.rows(np.array([min(seen), unseen]), "input")
    with pytest.raises(DataError, match="too short"):
        learn(["a"], "b")
    kept = next((tmp_path / "helpers").iterdir())
    kept.write_bytes(kept.read_bytes()[:100])
    assert learn(place.texts).table.tobytes() == first.table.tobytes() and len(heard) == 3


def test_text_beyond_the_limit_is_not_read(place: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path))
    monkeypatch.setattr(trained_helper, "MOST_BYTES", 100)
    monkeypatch.setattr(trained_helper, "_TEXTS_AT_A_TIME", 2)
    tokenizer = place.given(np.zeros((1, 1))).target_tokenizer
    assert tokenizer is not None
    read = iter(place.texts)
    train_helper(read, tokenizer(), place.target.size, ["x"], Progress())
    assert len(list(read)) > len(place.texts) - 8


def test_the_step_learns_a_helper_and_says_how_good_it_is(
    tiny: Path, place: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path / "cache"))
    heard: list[Any] = []
    wanted = {"model": tiny, "tokenizer": place.target.folder, "method": "knn", "helper": "train"}
    made = langadapt.init_embeddings(out=tmp_path / "o", corpus=place.files["corpus"], listener=heard.append, **wanted)
    assert -1 <= made.facts["measured"]["input"]["helper_cosine"] <= 1
    verb = verbs.load("init-embeddings")
    prices = []
    for more in ({"helper": "train", "corpus": str(place.files["corpus"])}, {"helper": str(place.files["helper"])}):
        config = validate(verb.config, {**{k: str(v) for k, v in wanted.items()}, **more}, what="test")
        prices.append(verb.estimate(config, resolve_inputs(config)).seconds or 0)
    assert 10 < prices[0] - prices[1] < 11
    notes = [event.text for event in heard if isinstance(event, Note)]
    assert any("predicts rows of hidden shared tokens" in text for text in notes)
    assert not any("does not look at it" in text for text in notes)
    with pytest.raises(ConfigError, match="needs text") as caught:
        langadapt.init_embeddings(out=tmp_path / "p", **wanted)
    assert "--corpus" in (caught.value.hint or "")


def test_the_word_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if there is a folder of this name: `./train` means that one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").mkdir()
    field = next(field for field in input_fields(Config) if field.name == "helper")
    found = resolve_input("train", field)
    assert found.word and not found.exists and found.artifact is None and len(found.digest) == 64
    assert find("train", field, folder=tmp_path, steps=[], typed=False, where=None) == FromPath("train")
    with pytest.raises(DataError):
        resolve_input("./train", field)
