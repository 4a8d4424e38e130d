"""Scores of Unigram pieces after the library wrote and read them."""

import math


def same_score(one: float, other: float) -> bool:
    """The library reads some numbers that it wrote itself one unit of the last place off."""
    return math.isclose(one, other, rel_tol=1e-15)
