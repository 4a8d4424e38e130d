"""Train every weight."""

from langadapt.core.config import Options
from langadapt.core.registry import method
from langadapt.core.types import Movable, Portion
from langadapt.select.inputs import SelectInputs


@method(portion=lambda options: Portion(1.0, 1.0))
def full(inputs: SelectInputs, options: Options) -> Movable:
    """All of them."""
    return Movable(frozenset(inputs.parameters))
