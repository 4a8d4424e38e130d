"""Train the neurons that one language uses and others do not: low entropy of activation over languages (LAPE).

A neuron is active on a token if the value before its activation function is above 0. How its activity is spread over
languages has an entropy; the neurons with the lowest belong to the languages that use them often.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from langadapt.core.errors import DataError
from langadapt.core.registry import method
from langadapt.core.types import Movable
from langadapt.select.choice import lowest
from langadapt.select.inputs import SelectInputs
from langadapt.select.neurons import NeuronOptions, fitting, moving_neurons, need_text, no_neurons, portion

if TYPE_CHECKING:
    Ids = np.ndarray[Any, np.dtype[np.int32]]
    Floats = np.ndarray[Any, np.dtype[np.float64]]


class Options(NeuronOptions):
    """How many neurons are chosen, when one counts as active in a language, and what happens to the tables."""

    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """A language uses a neuron if its rate is above this quantile of the rates of all neurons in all languages."""


@dataclass(frozen=True)
class NeuronSets:
    """`chosen` are places among all neurons, layer by layer; `by_lang` those that a language uses above `threshold`."""

    chosen: "Ids"
    by_lang: "Mapping[str, Ids]"
    threshold: float


@method(
    needs=("statistics", "active neurons"),
    cite="Tang et al. 2024, Language-Specific Neurons: The Key to Multilingual Capabilities (LAPE, arXiv 2402.16438)",
    defaults={"weight_decay": 0.01},
    portion=portion,
)
def lape(inputs: SelectInputs, options: Options) -> Movable:
    """p = share of tokens on which a neuron is active, q = p / sum over languages, H = -sum q ln q.

    Of the neurons that some language uses, the round(top_rate x neurons) with the lowest H are chosen; those of the
    languages that are learned move: gate and up rows, down columns.
    """
    targets, statistics = inputs.need_targets(), inputs.statistics()
    langs = options.looked_at(statistics.langs, targets)
    need_text(statistics, langs)
    rates = np.stack([statistics.of(lang).rates() for lang in langs])
    fitting(inputs, rates[0])
    sets = neuron_sets(rates, langs, options.top_rate, options.quantile)
    inputs.found["threshold"] = round(sets.threshold, 9)
    for lang in targets:
        if not len(sets.by_lang[lang]):
            raise no_neurons(lang, f"none of the {len(sets.chosen):,} most specific is active on more than "
                                   f"{sets.threshold:.1%} of its tokens")  # fmt: skip
    return moving_neurons(inputs, sets.by_lang, targets, options.tables, chosen=len(sets.chosen))


def neuron_sets(rates: "Floats", langs: Sequence[str], top_rate: float, quantile: float) -> NeuronSets:
    """LAPE's sets from rates [languages, layers, width]. Ties go to the earlier layer, then to the lower number.

    The threshold is the value of rank round(quantile x numbers) of all rates. DataError if nothing is above it.
    """
    flat = rates.reshape(len(langs), -1)
    rank = min(max(1, round(quantile * flat.size)), flat.size)
    threshold = float(np.partition(flat, rank - 1, axis=None)[rank - 1])
    used = (flat > threshold).any(axis=0)
    if not used.any():
        raise DataError(
            f"no neuron is active on more than {threshold:.1%} of the tokens of any language, so none is specific",
            hint="give a lower `quantile`, or calibrate on more text",
        )
    scores = np.where(used, entropy(flat), np.inf)
    chosen = lowest(scores, min(round(top_rate * flat.shape[1]), int(used.sum())))
    by_lang = {lang: chosen[flat[place, chosen] > threshold] for place, lang in enumerate(langs)}
    return NeuronSets(chosen, by_lang, threshold)


def entropy(rates: "Floats") -> "Floats":
    """Entropy in nats of each neuron's rates over languages [languages, neurons]: 0 for one language, ln K for all."""
    # sorted, so that equal rates of other languages add up to the same last bit: such neurons are ties
    ordered = np.sort(rates, axis=0)
    total = ordered.sum(axis=0)
    shares = ordered / np.where(total > 0, total, 1.0)
    found: Floats = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=0)
    return found
