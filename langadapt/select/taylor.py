"""Train the neurons without which the loss on a language would change most, by gradients (LANDeRMT's awareness)."""

from typing import Literal

import numpy as np

from langadapt.core.errors import DataError
from langadapt.core.registry import method
from langadapt.core.types import Movable
from langadapt.select.choice import lowest
from langadapt.select.inputs import SelectInputs
from langadapt.select.neurons import NeuronOptions, fitting, moving_neurons, need_text, portion


class Options(NeuronOptions):
    """How many neurons are chosen, by which score, and what happens to the tables."""

    score: Literal["own", "specific"] = "own"
    """`own`: what the language itself loses; `specific`: its share of what all languages lose together."""

    @property
    def compares(self) -> bool:
        """Its own loss alone needs no other language."""
        return self.score == "specific"


@method(
    needs=("statistics", "gradients", "neurons"),
    cite="Zhu et al. 2024, LANDeRMT: Detecting and Routing Language-Aware Neurons (arXiv 2409.19523)",
    defaults={"weight_decay": 0.01},
    portion=portion,
)
def taylor(inputs: SelectInputs, options: Options) -> Movable:
    """The round(top_rate x neurons) with the largest mean |dL/dh x h| on the language, h being what `down` reads."""
    targets, statistics = inputs.need_targets(), inputs.statistics()
    langs = options.looked_at(statistics.langs, targets)
    need_text(statistics, langs)
    scores = {lang: statistics.of(lang).taylor_scores() for lang in langs}
    fitting(inputs, scores[langs[0]])
    total = np.sum([scores[lang] for lang in langs], axis=0)
    if not np.all(np.isfinite(total)) or not total.any():
        raise DataError("the gradients of these statistics are all 0, or not numbers", hint="calibrate again")
    sets = {}
    for lang in langs:
        wanted = (scores[lang] / np.where(total > 0, total, 1.0) if options.compares else scores[lang]).ravel()
        sets[lang] = lowest(-wanted, round(options.top_rate * wanted.size))
    return moving_neurons(inputs, sets, targets, options.tables)
