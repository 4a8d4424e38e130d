"""Figures of a tokenizer on a text, each against a slow way to count the same."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt.model.load import load_tokenizer
from langadapt.model.spans import spans
from langadapt.vocab import inspect
from langadapt.vocab.inspect import alphabet, letters_without_token, measure
from tests.fixtures.fallback import fallback_tokenizer
from tests.fixtures.tiny import tiny_text, tiny_tokenizer

TEXTS = [*tiny_text("hu", 3), "Η πόλη ő ű  két\n\nsor, ไทย 老房子 a", " ", "x"]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tokenizers")
    return {
        "bytes": load_tokenizer(tiny_tokenizer(folder / "bytes")),
        "fallback": load_tokenizer(fallback_tokenizer(folder / "fallback", style="llama")),
    }


def slow(tokenizer: Any, text: str) -> Counter[str]:
    """Which token holds each byte, byte by byte."""
    placed = spans(tokenizer, text)
    content = text.encode()
    found = Counter[str]()
    owners = []
    for number, end in enumerate(placed.ends):
        owners += [number] * (end - len(owners))
    edges = {0, *placed.ends}
    inside = {at for at in range(1, len(content)) if content[at] >> 6 == 2}
    starts = [0, *placed.ends[:-1]]
    found["pieces"] = sum(bool({start, end} & inside) for start, end in zip(starts, placed.ends, strict=False))
    at = 0
    for word in text.split():
        first = content.index(word.encode(), at)
        last = at = first + len(word.encode())
        found["words"] += 1
        found["continued"] += sum(first < edge <= last for edge in edges) > 1
    found["tokens"] = len(placed.ids)
    return found


@pytest.mark.parametrize("name", ["bytes", "fallback"])
def test_measure_equals_counting_byte_by_byte(tokenizers: dict[str, Any], name: str) -> None:
    tokenizer = tokenizers[name]
    expected = sum((slow(tokenizer, text) for text in TEXTS), Counter[str]())
    found = measure(tokenizer, TEXTS)
    assert expected["pieces"] > 0 and expected["continued"] > 0
    assert {key: getattr(found, key) for key in expected} == dict(expected)
    assert found.bytes == sum(len(text.encode()) for text in TEXTS)
    assert (found.unknown, found.hidden_bytes, found.changed_bytes) == (0, 0, 0)
    assert sum(found.counts.values()) == found.tokens


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet="aőű ไย\n老 .", max_size=40))
def test_measure_of_any_text(tokenizers: dict[str, Any], text: str) -> None:
    found, expected = measure(tokenizers["bytes"], [text]), slow(tokenizers["bytes"], text)
    assert (found.words, found.continued, found.pieces) == (
        expected["words"], expected["continued"], expected["pieces"],
    )  # fmt: skip


def test_the_alphabet_of_a_text() -> None:
    letters = Counter({"а": 500, "б": 300, "Б": 20, "w": 200, "ы": 1, "あ": 150})
    assert alphabet(letters) == ["а", "б", "あ"], "no foreign Latin, no typo; capitals count as their small letter"
    assert alphabet(Counter({"a": 90, "É": 5, "é": 5})) == ["a", "é"]
    assert alphabet(Counter("กาที่ที่นี่กา" * 3))[0] in "กาีท่น"


def test_letters_by_form() -> None:
    tokens = [b"a", b" a", b"A", b" A", "é".encode(), "É".encode(), " é".encode()]
    found = letters_without_token(["a", "é", "ő", "ű"], tokens, lambda text: text != "ű")
    assert (found.total, found.unspellable, found.in_pieces, found.incomplete) == (4, ("ű",), ("ő",), ("é",))
    assert found.missing == {
        "letter": ("ő", "ű"), "with space": ("ő", "ű"), "capital": ("ő", "ű"), "capital with space": ("é", "ő", "ű"),
    }  # fmt: skip
    assert inspect.letter_forms("ß") == {"letter": "ß", "with space": " ß"}, "its capital is two letters"
    assert inspect.letter_forms("\u0e31") == {"letter": "\u0e31"}, "a vowel sign stands on a letter"


def test_what_a_tokenizer_can_write(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    assert inspect.can_spell(tokenizers["bytes"])("ő")
    content = (tiny_tokenizer(tmp_path) / "tokenizer.json").read_text(encoding="utf-8")
    # the byte 0xC5 that begins ő, written as Å in the byte alphabet, is taken out of the vocabulary
    (tmp_path / "tokenizer.json").write_text(content.replace('"Å":', '"gone":'), encoding="utf-8")
    keeps = inspect.can_spell(load_tokenizer(tmp_path))
    assert not keeps("ő")
    assert keeps("a")


def test_tokens_of_a_script(tokenizers: dict[str, Any]) -> None:
    tokens = inspect.token_bytes(tokenizers["bytes"])
    expected = 0
    for content in tokens:
        letters = [letter for letter in content.decode("utf-8", "replace") if letter.isalpha()]
        whole = "\ufffd" not in content.decode("utf-8", "replace")
        expected += whole and bool(letters) and all("Ͱ" <= letter <= "Ͽ" for letter in letters)
    assert expected > 0
    assert inspect.tokens_in_script(tokens, "GREEK") == expected
    assert b"<s>" not in tokens, "special tokens are no text"
