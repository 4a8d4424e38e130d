"""Averages of the nearest shared tokens in a helper model with the new tokenizer"""

import numpy as np
from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.helper_space import helper_space
from langadapt.embed.inputs import InitInputs
from langadapt.embed.nearest import neighbors, softened, unit
from langadapt.embed.rowmap import RowMap


class Options(BaseOptions):
    """How many neighbours, and how sharp."""

    neighbors: int = Field(default=10, ge=1, le=1000)
    """Shared tokens that a new row is an average of."""

    temperature: float = Field(default=0.1, gt=0)
    """Weights are softmax(cosine / temperature); small: the nearest alone."""


@method(
    needs=("helper", "base_tokenizer"),
    laws=("linear", "convex", "local"),
    cite="the combination of WECHSEL (Minixhofer et al. 2022) in the space of a helper model",
)
def knn(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = sum of w_j E_j over its k nearest shared text tokens j, w = softmax(cos(g_new, g_j) / T).

    g are rows of the helper. Of equally near tokens the one with the lower id counts.
    """
    rows = RowMapBuilder(inputs, "knn")
    space = helper_space(inputs, rows)
    if space.tokens:
        values, places = neighbors(unit(space.new), unit(space.shared), options.neighbors)
        indptr, weights = softened(values, options.temperature)
        rows.many(space.tokens, indptr, space.old[places.ravel()], weights, "nearest in the helper")
        rows.measured(nearest_cosine=round(float(np.median(values[:, 0])), 4))
    return rows.build()
