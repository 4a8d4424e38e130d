"""Several target languages, one budget of new tokens: how much each language counts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from langadapt.vocab.family import Growth

# Weights are whole thousandths, so that counts stay whole numbers and sums do not depend on their order.
_STEPS = 1000


def shares(sizes: Sequence[int], temperature: float) -> list[float]:
    """Share of each language, proportional to (its bytes) to the power 1/temperature (Conneau et al. 2020, XLM-R).

    1 takes the text as it is; the higher, the more alike they count.
    """
    powers = [size ** (1 / temperature) for size in sizes]
    return [power / sum(powers) for power in powers]


def weights(sizes: Sequence[int], temperature: float) -> list[int]:
    """What a word of each language counts, in thousandths of what one of the smallest language counts.

    A language's words together then weigh its share. No weight is above one whole: a token needs `min_count` real
    occurrences in the smallest language, and more than these in a larger one, never fewer.
    """
    if len(sizes) == 1:
        return [1]
    each = [share / size if size else 0.0 for share, size in zip(shares(sizes, temperature), sizes, strict=True)]
    return [max(1, round(_STEPS * one / max(each))) for one in each]


def blend(languages: Sequence[Mapping[str, int]], factors: Sequence[int]) -> Mapping[str, int]:
    """Words of all languages with weighted counts."""
    total: Counter[str] = Counter()
    for words, factor in zip(languages, factors, strict=True):
        for word, count in words.items():
            total[word] += factor * count
    return total


def in_units(growth: Growth, unit: int) -> Growth:
    """Counts of a growth divided by what one occurrence in the smallest language counts."""
    if unit == 1:
        return growth
    return replace(
        growth,
        tokens=tuple(replace(token, count=round(token.count / unit)) for token in growth.tokens),
        learned=tuple(round(count / unit) for count in growth.learned),
    )
