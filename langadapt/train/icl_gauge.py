"""The early warning of in-context learning: the same questions at every probe, compared one by one with the start."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from langadapt.core.errors import TrainingFailed

# (was the likeliest answer right, surprise of the right one in bits) of each question.
Ask = Callable[[], Sequence[tuple[bool, float]]]
_DIGITS = 4
# Two-sided, 5 %.
_NORMAL = 1.96


class IclGauge:
    """Asks a model puzzles while it is trained; `guessing` is what a question costs a model that knows nothing.

    A rise of the mean is told when its 95 % interval, of the differences question by question, is above zero. The run
    stops when the rise is more than `most` bits.
    """

    name = "icl"

    def __init__(self, ask: Ask, *, guessing: float, most: float | None) -> None:
        self._ask, self._guessing, self._most = ask, guessing, most

    def measure(self, step: int) -> dict[str, Any]:
        """Means over all questions, and the bits of each, which later ones are compared with."""
        found = self._ask()
        return {
            "bits": round(fmean(bits for _, bits in found), _DIGITS),
            "right": round(fmean(float(right) for right, _ in found), _DIGITS),
            "each": [round(bits, _DIGITS) for _, bits in found],
        }

    def judge(self, step: int, now: Mapping[str, Any], start: Mapping[str, Any]) -> str | None:
        """Words where a rise is sure; TrainingFailed where it is too large."""
        if not start:
            return None
        apart = [one - other for one, other in zip(now["each"], start["each"], strict=True)]
        rise, error = fmean(apart), stdev(apart) / math.sqrt(len(apart))
        said = (
            f"questions that are answered from examples went from {start['bits']:.2f} to {now['bits']:.2f} bits "
            f"({start['right']:.0%} right, now {now['right']:.0%}; guessing is {self._guessing:.0f} bits) "
            f"at step {step}"
        )
        if self._most is not None and not rise <= self._most:
            raise TrainingFailed(
                f"{said}: in-context learning is being lost; the last checkpoint is kept",
                hint="lower `--learning-rate`, mix in replay, or try `--ema`, with another `--out`; "
                f"or go on with `-o max_icl_loss={math.ceil(rise * 10 + 1) / 10:.1f}`",
            )
        low, high = rise - _NORMAL * error, rise + _NORMAL * error
        return None if low <= 0.0 else f"{said}, 95 % interval of the rise {low:+.2f} to {high:+.2f}"
