"""Average of the old tokens that spell the new token (fast vocabulary transfer)"""

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap
from langadapt.embed.spelling import pieces_of


class Options(BaseOptions):
    """Which pieces count."""

    skip_bare_space: bool = True
    """Leave a lone space piece out of the average; many tokens share it, which inflates the head's soft-max."""


@method(
    needs=("base_tokenizer",),
    laws=("linear", "convex", "local"),
    cite="Gee et al. 2022, Fast Vocabulary Transfer for Language Model Compression",
)
def subtoken_mean(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = mean of the rows of its pieces under the base tokenizer.

    Pieces are found on bytes, below normaliser and pre-tokenizer, so that no piece is invented by a leading-space
    rule. A token that the base cannot spell gets the mean of all text rows, and its provenance says so.
    """
    rows = RowMapBuilder(inputs, "subtoken-mean")
    for token in inputs.new_tokens:
        pieces = pieces_of(inputs, token, skip_bare_space=options.skip_bare_space)
        if pieces:
            rows.mean(token, pieces, why="pieces")
        else:
            rows.fallback(token, why="the base tokenizer cannot spell it")
    return rows.build()
