"""How much of a source the first tokens of a stream hold, where its share may change on the way.

A source of the data artifact's facts has `share_tokens`, and with a curriculum `course`: from which token on which
share holds. Tokens read are then a line with a bend, and so is its inverse.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

Source = Mapping[str, Any]


def _pieces(source: Source) -> list[tuple[float, float, float]]:
    """(first token, token after the last, share) of each piece; the last one has no end."""
    course = source.get("course") or [{"first": 0, "share_tokens": source["share_tokens"]}]
    firsts = [*(float(part["first"]) for part in course), math.inf]
    return [(*ends, float(part["share_tokens"])) for ends, part in zip(pairwise(firsts), course, strict=True)]


def tokens_read(source: Source, total: float) -> float:
    """Tokens of the source among the first `total` of the stream."""
    return sum((min(total, end) - first) * share for first, end, share in _pieces(source) if first < total)


def stream_until(source: Source, wanted: float) -> float:
    """Tokens of the stream that hold `wanted` of the source; infinite if they never do."""
    left = wanted
    for first, end, share in _pieces(source):
        if share > 0 and left <= share * (end - first):
            return first + left / share
        left -= share * (end - first) if share > 0 else 0.0
    return math.inf


def stream_of_epochs(targets: Sequence[Source], epochs: float) -> float:
    """Tokens of the stream until the first of some sources has been read so often."""
    if not any("course" in source for source in targets):
        return min(int(source["tokens"]) / float(source["share_tokens"]) for source in targets) * epochs
    return min(stream_until(source, int(source["tokens"]) * epochs) for source in targets)


def early_words(sources: Mapping[str, Source], planned: int | None, total: int) -> str | None:
    """Which sources are read in the beginning only or mostly, for people; None where shares do not change.

    Says so where a run of `total` tokens is not the one that the stream was planned for.
    """
    falling = {
        name: source["course"]
        for name, source in sorted(sources.items())
        if "course" in source and source["course"][-1]["share_tokens"] < source["course"][0]["share_tokens"]
    }
    if not falling or planned is None:
        return None
    first = next(iter(falling.values()))[-1]["first"]
    part = f"{first / total:.0%} of this run" if first < total else "all of this run"
    text = f"{', '.join(falling)} mostly or only in the first {first:,} tokens, {part}"
    # a tenth more or less is what rounding to steps and batches does
    if abs(total - planned) > 0.1 * planned:
        text += f", not the {first / planned:.0%} that was planned for {planned:,} tokens"
        text += f" (`mix -o planned_tokens={total}` makes it so)"
    return text
