"""Word vectors: files read and refused, learned the same twice, and vectors of tokens against slow sums."""

import gzip
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pytest

from langadapt.core.errors import DataError
from langadapt.core.progress import Event, Note, Progress
from langadapt.embed import fasttext_process, vectors
from langadapt.embed.token_vectors import name_of, token_vectors
from langadapt.embed.vectors import WordVectors, of_tokens, open_vectors, read_vec
from langadapt.embed.words import words_of
from tests.fixtures.given import World, some_table, world
from tests.fixtures.tiny import tiny_text

TEXTS = tiny_text("hu", 60)
SETTINGS = {"model": "cbow", "dim": 12, "epoch": 2, "minCount": 2, "minn": 3, "maxn": 4, "neg": 3, "bucket": 2000}


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tiny, tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that fastText itself trained and saved."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "text").write_text("\n".join(TEXTS), encoding="utf-8")
    model = fasttext.train_unsupervised(str(folder / "text"), thread=1, verbose=0, **SETTINGS)
    model.save_model(str(folder / "m.bin"))
    return folder / "m.bin"


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def of_rows(model: Any, word: str) -> np.ndarray:
    """As fastText's paper has it: the mean of a word's own row and those of its n-grams, of whatever length."""
    return np.mean([model.get_input_vector(id) for id in model.get_subwords(word)[1]], axis=0, dtype=np.float64)


def test_a_vec_file_is_read_with_and_without_its_sizes(tmp_path: Path) -> None:
    body = "a 1 2 3\nbé -1 0.5 1e-3 \na 9 9 9\nnew york 4 5 6\n"
    found = read_vec(write(tmp_path / "a.vec", "4 3\n" + body))
    assert list(found.words) == ["a", "bé", "new york"] and found.width == 3
    np.testing.assert_allclose(found.table, [[1, 2, 3], [-1, 0.5, 1e-3], [4, 5, 6]])
    assert list(read_vec(write(tmp_path / "b.vec", body.replace("new york", "x"))).words) == ["a", "bé", "x"]
    (tmp_path / "c.vec.gz").write_bytes(gzip.compress(("4 3\n" + body).encode()))
    assert list(read_vec(tmp_path / "c.vec.gz", 2).words) == ["a", "bé"]
    np.testing.assert_allclose(found.frequencies(), [1, 1 / 2, 1 / 3])


@pytest.mark.parametrize(
    ("content", "where"),
    [("2 3\na 1 2 3\nb 1 2\n", ":3"), ("a 1 2\nb 1 x\n", ":2"), ("1 2\na 1 nan\n", ":2"), ("1 1\n 1\n", ":2")],
)
def test_a_line_that_is_no_vector_is_named(content: str, where: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_vec(write(tmp_path / "a.vec", content))
    assert str(caught.value.where).endswith(where)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("2 3\na 1 2 3\nb 0.1 1 2 3\n", r"than the 3 that the first line says .*a\.vec:3"),
        ("2 3\na 0 1 2 3\nb 0 1 2 3\n", r"than the 3 that the first line says .*a\.vec:2"),
        ("a 1 2 3\nb c -1e-3 1 2 3\n", r"than the 3 that the first word has .*a\.vec:2"),
    ],
)
def test_a_number_too_many_is_no_part_of_the_word(content: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        read_vec(write(tmp_path / "a.vec", content))


def test_words_with_blanks_are_told(tmp_path: Path) -> None:
    heard: list[Event] = []
    progress = Progress(heard.append)
    body = "a 1 2 3\narea 51 1 2 3\n. . . 4 5 6\n"
    assert list(read_vec(write(tmp_path / "a.vec", body), progress=progress).words) == ["a", "area 51", ". . ."]
    assert list(read_vec(write(tmp_path / "b.vec", "1 2\n. . . 4 5\n"), progress=progress).words) == [". . ."]
    assert list(read_vec(write(tmp_path / "c.vec", "1 2\na 4 5\n"), progress=progress).words) == ["a"]
    assert [event.text for event in heard if isinstance(event, Note)] == [
        "a.vec: 2 words have blanks inside, such as `area 51`: the first word has 3",
        "b.vec: 1 words have blanks inside, such as `. . .`: the first line says 2",
    ]


def test_a_file_without_vectors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no vectors"):
        read_vec(write(tmp_path / "a.vec", "0 3\n"))


FULL = b"200 2\n" + b"".join(b"w%d 0.5 0.25\n" % number for number in range(200))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (FULL[: FULL.find(b"w100 ")], "promises 200 words and it has 100"),
        (FULL[: FULL.find(b"w150 ") + 10], "promises 200 words and it has 151"),
        (FULL.removeprefix(b"200 2\n")[:-1], "last line has no end"),
        (b"1 0\nw 1 2\n", "no numbers"),
        ("2 2\ná 1 2\né 3 4\n".encode("cp1250"), "2 of 2 words"),
    ],
    ids=["fewer", "inside a line", "no end", "no width", "another encoding"],
)
def test_a_damaged_file_is_refused(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.vec").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_vec(tmp_path / "a.vec")
    assert re.search(told, str(caught.value))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda g: g[: len(g) // 2], "in the middle of its gzip data"),
        (lambda g: b"hello", "no word"),
        (lambda g: g[:-8] + bytes(8), "damaged gzip"),
        (lambda g: g[:40] + bytes(20) + g[60:], "damaged gzip"),
        (gzip.compress, "packed twice"),
    ],
)
def test_a_damaged_gzip_file_is_refused(damage: Callable[[bytes], bytes], told: str, tmp_path: Path) -> None:
    (tmp_path / "a.vec.gz").write_bytes(damage(gzip.compress(FULL)))
    with pytest.raises(DataError, match=told):
        read_vec(tmp_path / "a.vec.gz")


def test_a_bomb_in_one_line_is_stopped_before_it_is_in_memory(tmp_path: Path) -> None:
    (tmp_path / "a.vec.gz").write_bytes(gzip.compress(FULL) + gzip.compress(b"1 " * 500_000) * 60)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"a line of more than .*a\.vec\.gz:202"):
        read_vec(tmp_path / "a.vec.gz")
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()


def test_a_mark_of_byte_order_and_a_broken_word_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.vec").write_bytes(b"\xef\xbb\xbf" + FULL.replace(b"w7 ", b"\xe1 "))
    found = read_vec(tmp_path / "a.vec")
    assert (len(found.words), found.width, found.words[0]) == (199, 2, "w0")


def test_a_model_file_gives_what_fasttext_gives(binary: Path) -> None:
    model = fasttext.load_model(str(binary))
    found = open_vectors(binary, "d", lambda: iter(()), Progress())
    assert list(found.words) == [word for word in model.words if word != "</s>"]
    np.testing.assert_allclose(found.table[3], of_rows(model, found.words[3]), rtol=1e-5, atol=1e-7)
    assert found.counts is not None and (np.diff(found.counts) <= 0).all()
    assert found.compose is not None
    np.testing.assert_allclose(found.compose(["nemvolt"])[0], of_rows(model, "nemvolt"), rtol=1e-5, atol=1e-7)
    assert not found.compose([""]).any()


def test_a_damaged_model_file_is_an_error_and_not_a_crash(binary: Path, tmp_path: Path) -> None:
    content = binary.read_bytes()
    (tmp_path / "cut.bin").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged fastText model"):
        open_vectors(tmp_path / "cut.bin", "d", lambda: iter(()), Progress())
    # sizes are right, and the number of n-gram buckets is not: fastText reads beyond its table
    wrong = bytearray(content)
    wrong[8:12] = (2**30).to_bytes(4, "little")
    (tmp_path / "wrong.bin").write_bytes(wrong)
    with pytest.raises(DataError, match="fastText"):
        open_vectors(tmp_path / "wrong.bin", "d", lambda: iter(()), Progress())


def test_a_child_that_hangs_is_ended(binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fasttext_process, "_CODE", "while True: pass")
    monkeypatch.setattr(fasttext_process, "_LOAD_SECONDS", 0.0)
    with pytest.raises(DataError, match="did not end in 0 s"):
        fasttext_process.read_words(binary, 10)


def test_what_is_learned_is_the_same_twice_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [" ".join(words_of(text)) for text in TEXTS]
    first = fasttext_process.train(lines, SETTINGS, 1000)
    second = fasttext_process.train(lines, SETTINGS, 1000)
    assert first[0] == second[0] and first[2].tobytes() == second[2].tobytes()
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path))
    kept = vectors.learned(iter(lines), SETTINGS, {"text": "x"}, Progress(), "x")
    assert kept.table.tobytes() == first[2].tobytes() and list(kept.words) == first[0]

    def never() -> None:
        raise AssertionError("the cache has it")

    again = vectors.learned((never() for _ in range(1)), SETTINGS, {"text": "x"}, Progress(), "x")
    assert again.table.tobytes() == first[2].tobytes() and list(again.words) == first[0]
    (kept_file,) = (tmp_path / "vectors").iterdir()
    kept_file.write_bytes(kept_file.read_bytes()[:-3])
    assert vectors.learned(iter(lines), SETTINGS, {"text": "x"}, Progress(), "x").words == first[0]
    other = vectors.learned(iter(lines[:30]), SETTINGS, {"text": "y"}, Progress(), "x")
    assert other.table.shape != kept.table.shape or other.table.tobytes() != kept.table.tobytes()


def test_text_without_a_frequent_word_is_an_error() -> None:
    with pytest.raises(DataError, match="fastText says") as caught:
        fasttext_process.train(["egy kettő"], SETTINGS, 10)
    assert "give more text" in str(caught.value.hint)


def test_words_keep_their_marks_and_lose_their_punctuation() -> None:
    assert words_of("«Ég, a föld!» नमस्ते - o'neil 3,5%") == ["Ég", "a", "föld", "नमस्ते", "o'neil", "3,5"]


def test_vectors_of_tokens_are_means_of_words(place: World) -> None:
    """Against a loop that looks at one word at a time."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(place.target.folder / "tokenizer.json"))
    words = sorted({word for text in TEXTS for word in re.findall(r"\w+", text)})[:40]
    table = some_table(len(words), 5)
    found = of_tokens(WordVectors(words, table), tokenizer, place.target.size)
    total, weight = np.zeros((place.target.size, 5)), np.zeros(place.target.size)
    for rank, word in enumerate(words, 1):
        for text in (word, " " + word):
            for id in set(tokenizer.encode(text, add_special_tokens=False).ids):
                total[id] += table[rank - 1].astype(np.float64) / rank
                weight[id] += 1 / rank
    expected = np.where(weight[:, None] > 0, total / np.maximum(weight, 1e-30)[:, None], 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert (weight == 0).any() and (weight > 0).sum() > 20


def test_tokens_get_vectors_if_the_text_has_them_often_enough(place: World) -> None:
    inputs = place.inputs(some_table(place.base.size))
    ids = [token.id for token in inputs.new_tokens]
    found, known = token_vectors(inputs, ids, SETTINGS, 10**6)
    tokenizer = inputs.target_tokenizer()
    counts = np.bincount(
        [id for text in place.texts for id in tokenizer.encode(text, add_special_tokens=False).ids],
        minlength=place.target.size,
    )
    assert known.tolist() == [bool(counts[id] >= SETTINGS["minCount"]) for id in ids] and known.any()
    assert (np.abs(found).sum(axis=1) > 0).tolist() == known.tolist()
    _, none = token_vectors(inputs, ids, {**SETTINGS, "minCount": 1}, len(place.texts[0].encode()) + 5)
    assert none.sum() <= known.sum()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b" a", "▁a"),
        ("szé".encode(), "szé"),
        (b"\xc3", "0xc3"),
        (b"\n", "0x0a"),
        (b"</s>", "0x3c2f733e"),
        (b"0xc3", "0x30786333"),
    ],
)  # fmt: skip
def test_names_of_tokens_have_no_white_space_and_are_no_others(content: bytes, name: str) -> None:
    assert name_of(content) == name and not any(letter.isspace() for letter in name)
