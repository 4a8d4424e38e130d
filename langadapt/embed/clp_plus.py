"""Averages of few shared tokens, those most alike in a helper model with the new tokenizer"""

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.helper_space import helper_space
from langadapt.embed.inputs import InitInputs
from langadapt.embed.nearest import sparse_weights, unit
from langadapt.embed.rowmap import RowMap


class Options(BaseOptions):
    """This method has no options."""


@method(
    needs=("helper", "base_tokenizer"),
    laws=("linear", "convex", "local"),
    cite="Yamaguchi et al. 2024, An Empirical Study on Cross-lingual Vocabulary Adaptation (CLP+)",
)
def clp_plus(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = sum of w_o E_o over shared text tokens o, w = sparsemax(cos(g_new, g_o)).

    g are rows of the helper. The sparsemax is exact, see `sparse_weights`.
    """
    rows = RowMapBuilder(inputs, "clp-plus")
    space = helper_space(inputs, rows)
    if space.tokens:
        indptr, columns, weights = sparse_weights(unit(space.new), unit(space.shared))
        rows.many(space.tokens, indptr, space.old[columns], weights, "like tokens of the helper")
        rows.measured(tokens_a_row=round(len(columns) / len(space.tokens), 1))
    return rows.build()
