"""Bytes behind unknown tokens: each counts once, also where a family gives the letter to the mark of a space."""

from pathlib import Path

import pytest

from langadapt.model.load import load_tokenizer
from langadapt.model.score import _owners
from langadapt.model.spans import spans
from tests.fixtures.families import family_tokenizer
from tests.fixtures.pieces import unigram_tokenizer, wordpiece_tokenizer
from tests.fixtures.tiny import _TEXT


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("spans")
    lines = _TEXT.splitlines()
    return {
        "unigram": family_tokenizer(folder / "u", "unigram"),
        "xlmr": unigram_tokenizer(folder / "x", lines),
        "t5": unigram_tokenizer(folder / "t", lines, style="t5"),
        "whole": unigram_tokenizer(folder / "w", lines, style="whole"),
        "bert": wordpiece_tokenizer(folder / "b", lines),
    }


@pytest.mark.parametrize("family", ["unigram", "xlmr", "t5", "whole"])
@pytest.mark.parametrize(
    ("text", "hidden"),
    [("☃", 3), ("a ☃", 3), ("a ☃☃ a", 6), ("☃ a ☃", 6), ("a☃a", 3), ("the river", 0), ("a\u3000☃", 3)],
)
def test_hidden_bytes_are_those_of_unknown_letters(
    tokenizers: dict[str, Path], family: str, text: str, hidden: int
) -> None:
    placed = spans(load_tokenizer(tokenizers[family]), text)
    assert sum(placed.hidden) == hidden
    assert all(first <= second for first, second in zip(placed.ends, placed.ends[1:], strict=False))
    assert placed.ends[-1] == len(text.encode())


def test_a_token_before_the_text_is_paid_for_by_its_first_segment() -> None:
    assert _owners([(0, 3), (3, 8)], [0, 1, 3, 8]) == [0, 0, 0, 1]
    assert _owners([(3, 8)], [0, 1, 3, 8]) == [-1, -1, -1, 0]


def test_a_mark_of_a_space_before_the_text_is_no_part_of_it(tokenizers: dict[str, Path]) -> None:
    placed = spans(load_tokenizer(tokenizers["whole"]), "☃ a")
    assert 0 in placed.ends or placed.ends[0] > 0


def test_a_word_with_an_unknown_letter_is_hidden_whole(tokenizers: dict[str, Path]) -> None:
    assert sum(spans(load_tokenizer(tokenizers["bert"]), "the r☃d").hidden) == 5
