"""Mean of all old rows, the same for every new token"""

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap


class Options(BaseOptions):
    """This method has no options."""


@method(
    laws=("linear", "convex", "local"),
    cite="Hewitt 2021, Initializing New Word Embeddings for Pretrained Language Models",
)
def mean(inputs: InitInputs, options: Options) -> RowMap:
    """Row of every new token = mean of the rows of all old text tokens.

    The head can then lose at most log(1 + new / old) nats on old text. All new rows are equal until training tells
    them apart.
    """
    rows = RowMapBuilder(inputs, "mean")
    for token in inputs.new_tokens:
        rows.fallback(token, why="the method")
    return rows.build()
