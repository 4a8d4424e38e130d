"""The n-gram line against a slow count over slices of the text."""

import math

import pytest

from langadapt.evaluate.ngram import MAX_BYTES, ngram_bits


def oracle(train: list[bytes], text: bytes, order: int) -> float:
    """Witten-Bell by its recursion, counting in the training texts anew for every byte."""

    def count(context: bytes) -> dict[int, int]:
        found: dict[int, int] = {}
        for content in train:
            for at in range(len(context), len(content)):
                if content[at - len(context) : at] == context:
                    found[content[at]] = found.get(content[at], 0) + 1
        return found

    def share(byte: int, context: bytes) -> float:
        lower = share(byte, context[1:]) if context else 1 / 256
        found = count(context)
        return (found.get(byte, 0) + len(found) * lower) / (sum(found.values()) + len(found)) if found else lower

    bits = [-math.log2(share(byte, text[max(0, at - order) : at])) for at, byte in enumerate(text)]
    return sum(bits)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_bits_equal_the_definition(order: int) -> None:
    train, test = ["abracadabra, ő!", "abba", ""], ["abracaő", "xab", ""]
    expected = sum(oracle([text.encode() for text in train], text.encode(), order) for text in test)
    size = sum(len(text.encode()) for text in test)
    assert ngram_bits(train, test, order, least_bytes=1) == pytest.approx(expected / size)


def test_unseen_bytes_are_a_uniform_guess_and_seen_text_is_cheap() -> None:
    assert ngram_bits(["a"], ["b"], 0, least_bytes=1) == pytest.approx(9.0), "one of two for a new kind, then 1/256"
    line = "the same line again and again. "
    cheap = ngram_bits([line * 50], [line * 2], least_bytes=1)
    assert cheap is not None and cheap < 0.5


def test_too_little_text_gives_no_line() -> None:
    assert ngram_bits(["a" * 1000], ["a"]) is None
    assert ngram_bits([], ["a"], least_bytes=1) is None
    assert ngram_bits(["abc"], ["", ""], least_bytes=1) is None


def test_no_more_is_read_than_the_limit() -> None:
    def endless() -> object:
        while True:
            yield "abcd" * 1000

    assert ngram_bits(endless(), ["abcd"], 1) is not None  # type: ignore[arg-type]
    assert MAX_BYTES < 10**6
