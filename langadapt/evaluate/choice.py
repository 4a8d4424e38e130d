"""Several models of one tokenizer on the same segments: figures of each, and the one to take with its reason.

Lowest bits per byte wins; where the text cannot tell models apart, the one that needs least.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langadapt.evaluate.bootstrap import Comparison, Interval, Resampled, uniform_bits_per_byte
from langadapt.evaluate.partial import SegmentRow
from langadapt.evaluate.verdict import signed

_DIGITS = 6


@dataclass(frozen=True)
class Scored:
    """Rows of each model on one set, in the order of the segments; `table_rows` are rows of a model's table."""

    name: str
    rows: Mapping[str, Sequence[SegmentRow]]
    table_rows: Mapping[str, int]

    @property
    def lengths(self) -> list[int]:
        """Bytes of each segment."""
        return [row.bytes for row in next(iter(self.rows.values()))]

    def numbered(self) -> dict[str, list[float]]:
        """Nats of the models that gave a number on every segment."""
        found = {model: [row.nll for row in rows] for model, rows in self.rows.items()}
        return {
            model: [value for value in nats if value is not None] for model, nats in found.items() if None not in nats
        }

    def resampled(self, samples: int, seed: int) -> Resampled | None:
        """Replicates of all of them; None if no model gave numbers."""
        nats = self.numbered()
        return Resampled(nats, self.lengths, samples=samples, seed=seed, name=self.name) if nats else None


@dataclass(frozen=True)
class Choice:
    """The model to take (None: none gave a number), why in one sentence, and which others the text cannot tell from
    the best."""

    name: str | None
    reason: str
    tied: tuple[str, ...] = ()


def choose(scored: Scored, needs: Mapping[str, Sequence[str]], *, samples: int, seed: int) -> Choice:
    """Pick one of the models named in `needs`, which says what each of them looks at beside the two tokenizers."""
    found, numbers = scored.resampled(samples, seed), scored.numbered()
    size = sum(scored.lengths)
    bits = {name: math.fsum(numbers[name]) / math.log(2) / size for name in needs if name in numbers}
    if found is None or not bits:
        return Choice(None, "no method gave a number on every segment")
    order = sorted(bits, key=lambda name: (bits[name], name))
    best = order[0]
    value = f"{bits[best]:.3f} bits per byte of target text"
    if len(order) == 1:
        return Choice(best, f"`{best}` is the only method: {value}")
    beside = {name: found.compare(name, best) for name in order[1:]}
    if any(comparison.delta.low is None for comparison in beside.values()):
        few = f"{len(scored.lengths)} segments are too few for an interval, so no difference is shown"
        return Choice(best, f"`{best}` has the lowest value, {value}; {few}", tuple(order))
    tied = [name for name in order if name == best or beside[name].verdict == "no detectable change"]
    pick = min(tied, key=lambda name: (len(needs[name]), order.index(name)))
    if pick != best:
        return Choice(pick, _simpler(pick, best, beside[pick], needs), tuple(tied))
    if len(tied) == 1:
        near = order[1]
        worse = f"every other is worse, the nearest, {_difference(near, beside[near])}"
        return Choice(best, f"`{best}` has {value}; {worse}", (best,))
    rest = ", ".join(f"`{name}`" for name in tied[1:])
    reason = f"`{best}` has {value}; no detectable difference from {rest}, which need no less"
    return Choice(best, reason, tuple(tied))


def _simpler(pick: str, best: str, found: Comparison, needs: Mapping[str, Sequence[str]]) -> str:
    less = ", ".join(f"`{need}`" for need in needs[best])
    own = ", ".join(f"`{need}`" for need in needs[pick]) or "nothing"
    difference = _difference(pick, found)
    return (
        f"no detectable difference between `{pick}` and `{best}`, which has the lowest value ({difference}); "
        f"`{pick}` looks at {own}, `{best}` at {less}"
    )


def _difference(name: str, found: Comparison) -> str:
    delta = found.delta
    shown = "" if delta.low is None or delta.high is None else f", 95 % {signed(delta.low)} to {signed(delta.high)}"
    return f"`{name}` by {signed(delta.value)}{shown}"


def figures(scored: Scored, against: str | None, *, samples: int, seed: int) -> dict[str, dict[str, Any]]:
    """For each model bits per byte with its interval, tokens per byte, guessing, and the difference from `against`."""
    found, numbers, size = scored.resampled(samples, seed), scored.numbered(), sum(scored.lengths)
    entries: dict[str, dict[str, Any]] = {}
    for model, rows in scored.rows.items():
        tokens = sum(row.tokens for row in rows)
        own = found.bits_per_byte(model) if found is not None and model in numbers else None
        both = found is not None and model in numbers and against in numbers and model != against
        beside = found.compare(model, str(against)) if found is not None and both else None
        entries[model] = {
            **_interval("", own),
            "tokens_per_byte": round(tokens / size, _DIGITS),
            "uniform": round(uniform_bits_per_byte(scored.table_rows[model], tokens, size), _DIGITS),
            "unknown_bytes": sum(row.unknown_bytes for row in rows),
            **_interval("delta_", beside.delta if beside else None),
            "verdict": beside.verdict if beside else None,
        }
    return entries


def _interval(prefix: str, found: Interval | None) -> dict[str, float | None]:
    values = (None, None, None) if found is None else (found.value, found.low, found.high)
    names = ("bits_per_byte" if not prefix else "delta", f"{prefix}low", f"{prefix}high")
    return {name: None if value is None else round(value, _DIGITS) for name, value in zip(names, values, strict=True)}
