"""Paired comparison of models scored on the same segments: difference, interval, and what could have been seen.

Bits per byte is a ratio of sums, so resampling segments needs only their nats and bytes: each replicate draws
multinomial weights over the segments and the same weights are used for every model (evaluation note, 1.12).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from langadapt.core.errors import DataError
from langadapt.core.rng import stream
from langadapt.core.types import Verdict
from langadapt.evaluate.segments import MIN_SEGMENTS

# Bounds the matrix of weights to 1,000 x segments x 8 bytes.
_CHUNK = 1000
# A difference of 2.8 standard errors is found with 80 % power by a two-sided test at 5 % (1.96 + 0.84).
_MDE_FACTOR = 2.8

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % percentile interval; `low` and `high` are None when there are too few segments."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """New minus old, in bits per byte; `detectable` is the smallest difference such a set would usually show."""

    delta: Interval
    ratio: Interval
    standard_error: float | None
    detectable: float | None
    verdict: Verdict


class Resampled:
    """Bits per byte of several models on one set of segments, and `samples` replicates of them."""

    def __init__(
        self, nats: Mapping[str, Sequence[float]], lengths: Sequence[int], *, samples: int, seed: int, name: str
    ) -> None:
        self.models = list(nats)
        self.segments = len(lengths)
        if self.segments == 0 or sum(lengths) == 0:
            raise DataError(f"set `{name}` has no bytes to score")
        columns = [np.asarray(nats[model], dtype=np.float64) for model in self.models]
        table = np.stack([*columns, np.asarray(lengths, dtype=np.float64)], axis=1)
        self._point = _ratios(table.sum(axis=0, keepdims=True))[0]
        self._draws = _ratios(_resampled_sums(table, samples, stream(seed, "bootstrap", name)))

    def bits_per_byte(self, model: str) -> Interval:
        """One model by itself."""
        at = self.models.index(model)
        return self._interval(float(self._point[at]), self._draws[:, at])

    def compare(self, new: str, old: str) -> Comparison:
        """`new` against `old` on the same replicates."""
        one, two = self.models.index(new), self.models.index(old)
        draws = self._draws[:, one] - self._draws[:, two]
        delta = self._interval(float(self._point[one] - self._point[two]), draws)
        ratio = self._interval(float(self._point[one] / self._point[two]), self._draws[:, one] / self._draws[:, two])
        if delta.low is None or delta.high is None:
            return Comparison(delta, ratio, None, None, "no detectable change")
        error = float(draws.std(ddof=1))
        return Comparison(delta, ratio, error, _MDE_FACTOR * error, verdict(delta.low, delta.high))

    def _interval(self, value: float, draws: Floats) -> Interval:
        if self.segments < MIN_SEGMENTS or not np.isfinite(draws).all():
            return Interval(value, None, None)
        low, high = np.percentile(draws, [2.5, 97.5])
        return Interval(value, float(low), float(high))


def verdict(low: float, high: float) -> Verdict:
    """Words for the interval of a difference in bits per byte, where less is better."""
    if high < 0:
        return "better"
    return "worse" if low > 0 else "no detectable change"


def uniform_bits_per_byte(rows: int, tokens: int, length: int) -> float:
    """The null line: what guessing every one of `rows` tokens alike would score on text of `length` bytes."""
    return math.log2(rows) * tokens / length


def _resampled_sums(table: Floats, samples: int, random: np.random.Generator) -> Floats:
    """Column sums of `samples` resamples of the rows of `table`, with replacement."""
    rows = len(table)
    parts = []
    for begin in range(0, samples, _CHUNK):
        size = min(_CHUNK, samples - begin)
        weights = random.multinomial(rows, np.full(rows, 1.0 / rows), size=size)
        parts.append(weights @ table)
    return np.concatenate(parts)


def _ratios(sums: Floats) -> Floats:
    return np.asarray(sums[:, :-1] / math.log(2) / sums[:, -1:], dtype=np.float64)
