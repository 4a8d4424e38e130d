"""Which method is picked: the lowest, if the text shows it; among equals the one that needs less."""

import math

import numpy as np

from langadapt.evaluate.choice import Scored, choose, figures
from langadapt.evaluate.partial import SegmentRow


def scored(nats: dict[str, list[float | None]], size: int = 300) -> Scored:
    rows = {
        name: [SegmentRow("d", at, size, value, 100, 0) for at, value in enumerate(values)]
        for name, values in nats.items()
    }
    return Scored("target", rows, dict.fromkeys(nats, 1000))


def noisy(seed: int, shift: float = 0.0, spread: float = 5.0) -> list[float | None]:
    random = np.random.Generator(np.random.Philox(key=seed))
    return [400 + 30 * math.sin(at) + shift + spread * float(random.standard_normal()) for at in range(20)]


NEEDS = {"plain": (), "learned": ("corpus",), "aligned": ("corpus", "dictionary")}
SETTINGS = {"samples": 500, "seed": 0}


def test_the_lowest_is_picked_if_the_text_shows_it() -> None:
    got = choose(scored({"plain": noisy(1, 30), "learned": noisy(2), "aligned": noisy(3, 60)}), NEEDS, **SETTINGS)
    assert got.name == "learned" and got.tied == ("learned",)
    assert "every other is worse, the nearest, `plain` by +" in got.reason


def test_what_cannot_be_told_apart_goes_to_the_one_that_needs_less() -> None:
    got = choose(scored({"plain": noisy(1, 0.5), "learned": noisy(2, 30), "aligned": noisy(3)}), NEEDS, **SETTINGS)
    assert got.name == "plain" and got.tied == ("aligned", "plain")
    assert got.reason.startswith("no detectable difference between `plain` and `aligned`")
    assert "`plain` looks at nothing, `aligned` at `corpus`, `dictionary`" in got.reason


def test_among_equals_in_needs_the_lowest_is_taken() -> None:
    one = [value + (1.2 if at % 2 else -1.0) for at, value in enumerate(noisy(2)) if value is not None]
    got = choose(scored({"one": one, "two": noisy(2)}), {"one": (), "two": ()}, **SETTINGS)
    assert got.name == "two" and "no detectable difference from `one`, which need no less" in got.reason


def test_few_segments_show_nothing_and_a_method_without_numbers_is_not_taken() -> None:
    few = {name: values[:5] for name, values in (("plain", noisy(1, 9)), ("learned", noisy(2)))}
    got = choose(scored(few), NEEDS, **SETTINGS)
    assert got.name == "learned" and "5 segments are too few for an interval" in got.reason
    broken = scored({"plain": noisy(1), "learned": [None, *noisy(2)[1:]]})
    got = choose(broken, NEEDS, **SETTINGS)
    assert got.name == "plain" and "only method" in got.reason
    assert figures(broken, "plain", **SETTINGS)["learned"]["bits_per_byte"] is None
    assert choose(scored({"plain": [None] * 9}), NEEDS, **SETTINGS).name is None


# What is refused, and what is left out
