"""Train the neurons of the language and the rows of new tokens, and nothing else (Sparse Subnetwork Enhancement)."""

from langadapt.core.registry import method
from langadapt.core.types import Movable
from langadapt.select import lape as lape_
from langadapt.select.choice import TablesMove
from langadapt.select.inputs import SelectInputs
from langadapt.select.neurons import portion


class Options(lape_.Options):
    """As lape's; the rows of new tokens move, since nothing else could learn them."""

    tables: TablesMove = "new-rows"
    """Rows of input table and head that move: all but those of special tokens, those of new tokens, or none."""


@method(
    needs=("statistics", "active neurons"),
    cite="Gurgurov et al. 2025, Sparse Subnetwork Enhancement for Underrepresented Languages (arXiv 2510.13580)",
    defaults={"learning_rate": 1e-4, "weight_decay": 0.01},
    portion=portion,
)
def subnetwork(inputs: SelectInputs, options: Options) -> Movable:
    """Gate and up rows and down columns of the language's neurons, as lape chooses them."""
    return lape_.lape(inputs, options)
