"""Train the input table and the head only; the body stays as it is, bit for bit."""

from langadapt.core.config import Options
from langadapt.core.registry import method
from langadapt.core.types import Movable, Portion
from langadapt.select.inputs import SelectInputs


@method(
    cite="Artetxe et al. 2020, On the Cross-lingual Transferability of Monolingual Representations",
    portion=lambda options: Portion(tables=1.0),
)
def embeddings(inputs: SelectInputs, options: Options) -> Movable:
    """Input table, head and the head's bias."""
    return Movable(inputs.tables.among(inputs.parameters))
