"""Train the neurons that are active much more often in one language than in any other."""

import numpy as np

from langadapt.core.registry import method
from langadapt.core.types import Movable
from langadapt.select.choice import lowest
from langadapt.select.inputs import SelectInputs
from langadapt.select.neurons import NeuronOptions as Options
from langadapt.select.neurons import fitting, moving_neurons, need_text, no_neurons, portion


@method(
    needs=("statistics", "active neurons"),
    cite="the plain alternative to LAPE's entropy (Tang et al. 2024); no publication of its own",
    defaults={"weight_decay": 0.01},
    portion=portion,
)
def activation_gap(inputs: SelectInputs, options: Options) -> Movable:
    """The round(top_rate x neurons) with the largest p_own - max of the others' p, where that is above 0."""
    targets, statistics = inputs.need_targets(), inputs.statistics()
    langs = options.looked_at(statistics.langs, targets)
    need_text(statistics, langs)
    rates = {lang: statistics.of(lang).rates() for lang in langs}
    fitting(inputs, rates[langs[0]])
    sets = {}
    for lang in langs:
        others = np.max([rates[other] for other in langs if other != lang], axis=0)
        gap = (rates[lang] - others).ravel()
        sets[lang] = lowest(-gap, min(round(options.top_rate * gap.size), int((gap > 0).sum())))
        if lang in targets and not len(sets[lang]):
            raise no_neurons(lang, "none is active more often in it than in every other language")
    return moving_neurons(inputs, sets, targets, options.tables)
