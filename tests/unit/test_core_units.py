"""Quantities as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langadapt.core.units import parse_bytes, parse_count, parse_seconds, show_bytes, show_seconds

COUNTS = {
    "4k": 4000, "4K": 4000, "4Ki": 4096, "1.5B": 1_500_000_000, "2M": 2_000_000, "2Mi": 2**21, "1G": 10**9, "0": 0,
    "4_000": 4000, "4,000": 4000, " 7 ": 7, "0.5k": 500, ".5k": 500, "1T": 10**12, "12.345M": 12_345_000,
}  # fmt: skip
BYTES = {
    "24GiB": 24 * 2**30,
    "1GB": 10**9,
    "500kB": 500_000,
    "500KB": 500_000,
    "7B": 7,
    "7": 7,
    "2MiB": 2**21,
    "3M": 3 * 10**6,
}
SECONDS = {"8h": 28800, "90s": 90, "15min": 900, "15m": 900, "2d": 172800, "1.5h": 5400, "30": 30}


@pytest.mark.parametrize(("text", "value"), COUNTS.items())
def test_counts(text: str, value: int) -> None:
    assert parse_count(text) == value


@pytest.mark.parametrize(("text", "value"), BYTES.items())
def test_bytes(text: str, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize(("text", "value"), SECONDS.items())
def test_seconds(text: str, value: int) -> None:
    assert parse_seconds(text) == value


@pytest.mark.parametrize("text", ["", "k", "4x", "-4", "4 k k", "1e3", "nan", "inf", "0.0001k", "1.5", "4kib", "１"])
def test_what_is_no_count(text: str) -> None:
    if text == "１":  # full-width digits are digits
        assert parse_count(text) == 1
        return
    with pytest.raises(ValueError, match="is not a"):
        parse_count(text)


def test_other_types_pass() -> None:
    assert [parse_count(value) for value in (5, None, 1.5, True)] == [5, None, 1.5, True]


@given(st.integers(0, 10**9))
def test_every_number_reads_as_itself(number: int) -> None:
    assert parse_count(str(number)) == parse_bytes(f"{number:,}") == parse_seconds(f"{number}s") == number


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 B"), (999, "999 B"), (1234, "1.2 kB"), (1_234_567, "1.2 MB"), (5e9, "5.0 GB"), (2.5e12, "2.5 TB")],
)
def test_bytes_for_people(amount: float, text: str) -> None:
    assert show_bytes(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59, "59 s"), (95, "1 min 35 s"), (3600, "1 h 0 min"), (7384, "2 h 3 min")],
)
def test_seconds_for_people(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text
