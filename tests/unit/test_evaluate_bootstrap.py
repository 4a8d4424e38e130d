"""The bootstrap against explicit resampling loops, and the words drawn from it."""

import math

import numpy as np
import pytest

from langadapt.core.errors import DataError
from langadapt.core.rng import stream
from langadapt.evaluate.bootstrap import Resampled, uniform_bits_per_byte, verdict

RANDOM = np.random.Generator(np.random.Philox(key=5))
LENGTHS = [int(value) for value in RANDOM.integers(300, 650, size=40)]
BASE = [length * 2.0 * math.log(2) * (1 + 0.2 * float(RANDOM.standard_normal())) for length in LENGTHS]
ADAPTED = [nats * (0.9 + 0.05 * float(RANDOM.standard_normal())) for nats in BASE]


def oracle_bits(nats: list[float], lengths: list[int], picks: list[int]) -> float:
    """Bits per byte of segments picked one by one, with repetition."""
    total_nats = total_bytes = 0.0
    for pick in picks:
        total_nats += nats[pick]
        total_bytes += lengths[pick]
    return total_nats / math.log(2) / total_bytes


def oracle_percentile(values: list[float], share: float) -> float:
    """Linear interpolation between order statistics."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def oracle_draws(seed: int, name: str, samples: int) -> list[list[int]]:
    """The same random weights, spelled out as lists of picked segments."""
    random = stream(seed, "bootstrap", name)
    weights = random.multinomial(len(LENGTHS), np.full(len(LENGTHS), 1 / len(LENGTHS)), size=samples)
    return [[at for at, count in enumerate(row) for _ in range(count)] for row in weights]


def test_interval_equals_explicit_resampling() -> None:
    resampled = Resampled({"base": BASE, "adapted": ADAPTED}, LENGTHS, samples=500, seed=3, name="hu")
    found = resampled.compare("adapted", "base")
    draws = oracle_draws(3, "hu", 500)
    deltas = [oracle_bits(ADAPTED, LENGTHS, picks) - oracle_bits(BASE, LENGTHS, picks) for picks in draws]
    ratios = [oracle_bits(ADAPTED, LENGTHS, picks) / oracle_bits(BASE, LENGTHS, picks) for picks in draws]
    every = list(range(len(LENGTHS)))
    assert found.delta.value == pytest.approx(
        oracle_bits(ADAPTED, LENGTHS, every) - oracle_bits(BASE, LENGTHS, every), rel=1e-12
    )
    assert found.delta.low == pytest.approx(oracle_percentile(deltas, 0.025), rel=1e-9)
    assert found.delta.high == pytest.approx(oracle_percentile(deltas, 0.975), rel=1e-9)
    assert found.ratio.low == pytest.approx(oracle_percentile(ratios, 0.025), rel=1e-9)
    mean = sum(deltas) / len(deltas)
    error = math.sqrt(sum((delta - mean) ** 2 for delta in deltas) / (len(deltas) - 1))
    assert found.standard_error == pytest.approx(error, rel=1e-9)
    assert found.detectable == pytest.approx(2.8 * error, rel=1e-9)
    assert found.verdict == "better"


def test_pairing_matters() -> None:
    """Segments differ much more than models do; shuffling one model's segments must widen the interval."""
    paired = Resampled({"a": ADAPTED, "b": BASE}, LENGTHS, samples=1000, seed=0, name="s").compare("a", "b")
    order = list(range(len(LENGTHS)))[::-1]
    loose = Resampled({"a": [ADAPTED[at] for at in order], "b": BASE}, LENGTHS, samples=1000, seed=0, name="s")
    assert (loose.compare("a", "b").standard_error or 0) > 2 * (paired.standard_error or 1)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    random = np.random.Generator(np.random.Philox(key=9))
    covered = 0
    for trial in range(200):
        lengths = [500] * 50
        nats = [500 * math.log(2) * (2 + 0.4 * float(random.standard_normal())) for _ in lengths]
        resampled = Resampled({"m": nats}, lengths, samples=400, seed=trial, name="coverage")
        interval = resampled.bits_per_byte("m")
        assert interval.low is not None and interval.high is not None
        covered += interval.low <= 2.0 <= interval.high
    assert 180 <= covered <= 199


def test_a_model_against_itself_shows_no_change() -> None:
    found = Resampled({"a": BASE, "b": BASE}, LENGTHS, samples=200, seed=0, name="s").compare("a", "b")
    assert (found.delta.value, found.delta.low, found.delta.high) == (0.0, 0.0, 0.0)
    assert found.verdict == "no detectable change"


def test_too_few_segments_give_no_interval_and_no_verdict_word() -> None:
    found = Resampled({"a": ADAPTED[:7], "b": BASE[:7]}, LENGTHS[:7], samples=200, seed=0, name="s").compare("a", "b")
    assert (found.delta.low, found.delta.high, found.detectable) == (None, None, None)
    assert found.verdict == "no detectable change"


def test_streams_are_named_and_repeat() -> None:
    def low(seed: int, name: str) -> float | None:
        return Resampled({"m": BASE}, LENGTHS, samples=300, seed=seed, name=name).bits_per_byte("m").low

    assert low(0, "hu") == low(0, "hu")
    assert len({low(0, "hu"), low(0, "en"), low(1, "hu")}) == 3


def test_chunks_do_not_change_the_stream() -> None:
    whole = Resampled({"m": BASE}, LENGTHS, samples=2500, seed=0, name="s").bits_per_byte("m")
    draws = [oracle_bits(BASE, LENGTHS, picks) for picks in oracle_draws(0, "s", 2500)]
    assert whole.low == pytest.approx(oracle_percentile(draws, 0.025), rel=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-0.2, -0.1, "better"),
        (0.1, 0.2, "worse"),
        (-0.1, 0.1, "no detectable change"),
        (0.0, 0.1, "no detectable change"),
    ],
)
def test_verdict_words(low: float, high: float, word: str) -> None:
    assert verdict(low, high) == word


def test_null_line_is_the_cost_of_equal_guessing() -> None:
    assert uniform_bits_per_byte(256, 10, 10) == 8.0
    assert uniform_bits_per_byte(4, 6, 24) == 0.5


def test_no_segments_is_an_error() -> None:
    with pytest.raises(DataError):
        Resampled({"m": []}, [], samples=100, seed=0, name="s")
