"""Random rows with the mean and spread of the old ones: a baseline, not a good start"""

from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap


class Options(BaseOptions):
    """How wide the rows are drawn."""

    scale: float = Field(default=1.0, gt=0)
    """Standard deviations of the old rows in each dimension; 1 draws rows as different as old ones are."""


@method(laws=("linear", "local"), cite="the usual baseline; moments as in Hewitt 2021, without covariance")
def random(inputs: InitInputs, options: Options) -> RowMap:
    """Each dimension is normal with the mean and standard deviation of the old text rows in that dimension.

    Every token has a stream of its own, keyed by its bytes: its row does not depend on the other new tokens.
    """
    rows = RowMapBuilder(inputs, "random")
    for token in inputs.new_tokens:
        rows.drawn(token, options.scale, why="the method")
    return rows.build()
