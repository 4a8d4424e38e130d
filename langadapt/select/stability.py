"""How far the two halves of the text agree, and in which layers a language differs from the others."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from langadapt.select.statistics import LanguageStatistics

Floats = np.ndarray[Any, np.dtype[np.float64]]

# The share of neurons that LAPE calls active: those above the 95th percentile of all rates.
_TOP = 0.05


def stability(found: LanguageStatistics) -> dict[str, float | None]:
    """Agreement of the two halves, 1 for the same; None where a half has no text or there are no neurons.

    `neurons`: Jaccard index (shared / all) of the 5 % of all neurons of the model that are active most often, as each
    half says. `columns`: Spearman's rank correlation of the mean squared inputs of a matrix's columns between the
    halves, the mean over all matrices.
    """
    if not found.tokens.all():
        return {"neurons": None, "columns": None}
    neurons = None
    if found.positive:
        neurons = _jaccard(*(_top(_rates(found, half)) for half in (0, 1)))
    ranks = [_rank_correlation(value[0], value[1]) for value in found.inputs.values()]
    return {"neurons": neurons, "columns": round(float(np.mean(ranks)), 4) if ranks else None}


def _rates(found: LanguageStatistics, half: int) -> Floats:
    """Rates of all neurons in a row, also where layers have different widths."""
    counts = np.concatenate([found.positive[layer][half] for layer in sorted(found.positive)])
    rates: Floats = counts / found.tokens[half]
    return rates


def _top(rates: Floats) -> set[int]:
    """The neurons with the highest rates; equal ones by their number."""
    return set(np.argsort(-rates, kind="stable")[: max(1, round(_TOP * len(rates)))].tolist())


def _jaccard(one: set[int], other: set[int]) -> float:
    return round(len(one & other) / len(one | other), 4)


def _rank_correlation(one: Floats, other: Floats) -> float:
    """Pearson's correlation of the ranks; equal values are ranked by their place. 1 for a single column."""
    if len(one) < 2:
        return 1.0
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def specific_layers(found: Mapping[str, LanguageStatistics], most: int = 3) -> dict[str, list[tuple[int, float]]]:
    """The layers in which a language is least like the others, and how much: (layer, difference), largest first.

    The difference is the mean over a layer's neurons of |rate - mean rate of the other languages|. Nothing for one
    language, and for models whose neurons are not counted.
    """
    if len(found) < 2 or not all(one.positive for one in found.values()):
        return {}
    rates = {
        lang: {layer: value.sum(0) / max(1, int(one.tokens.sum())) for layer, value in one.positive.items()}
        for lang, one in found.items()
    }
    layers: dict[str, list[tuple[int, float]]] = {}
    for lang, own in sorted(rates.items()):
        others = [rates[other] for other in sorted(rates) if other != lang]
        apart = {
            layer: float(np.abs(value - np.mean([other[layer] for other in others], axis=0)).mean())
            for layer, value in own.items()
        }
        order = sorted(apart, key=lambda layer: (-apart[layer], layer))[:most]
        layers[lang] = [(layer, round(apart[layer], 4)) for layer in order]
    return layers
