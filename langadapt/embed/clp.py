"""Averages of all shared tokens, weighted by cosine in a helper model with the new tokenizer"""

import numpy as np
from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.helper_space import helper_space
from langadapt.embed.inputs import InitInputs
from langadapt.embed.nearest import unit
from langadapt.embed.rotation import Doubles
from langadapt.embed.rowmap import RowMap
from langadapt.embed.spelling import spelled
from langadapt.embed.types import Ints

# 4,096 rows x 4,096 dimensions x 8 bytes = 134 MB.
_ROWS_AT_A_TIME = 4096


class Options(BaseOptions):
    """When the weights are averages at all."""

    min_cosine: float = Field(default=0.001, ge=1e-6, lt=1)
    """Mean cosine with the shared tokens below which a token gets the mean of its pieces: its weights would cancel."""


@method(
    needs=("helper", "base_rows", "base_tokenizer"),
    laws=("linear", "local"),
    cite="Ostendorff and Rehm 2023, Efficient Language Model Training through Cross-Lingual and Progressive Transfer",
)
def clp(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = sum of s_o E_o over the sum of s_o, s_o = cos(g_new, g_o), o all shared text tokens.

    g are rows of the helper. The sum is linear in the unit vector of the new token, so that it is two thin products,
    whatever the number of shared tokens: u (U'E) / u (U'1), U the unit vectors of the shared ones. Weights sum to 1,
    hence E is centred first, which changes nothing but the rounding.
    """
    rows = RowMapBuilder(inputs, "clp")
    space = helper_space(inputs, rows)
    if not space.tokens:
        return rows.build()
    mine, theirs = unit(space.new).astype(np.float64), unit(space.shared).astype(np.float64)
    mean, matrix, usual = _product(inputs, space.old, theirs)
    cosine = mine @ theirs.mean(axis=0)
    steady = cosine >= options.min_cosine
    weak = [token for token, good in zip(space.tokens, steady, strict=True) if not good]
    spelled(rows, inputs, weak, "cosines with shared tokens cancel")
    made = [token for token, good in zip(space.tokens, steady, strict=True) if good]
    vectors = mine[steady] / (cosine[steady, None] * len(theirs))
    rows.dense(made, vectors, "cosines with all shared tokens", matrix=matrix, offset=mean)
    if made and usual > 0:
        # |v M|^2 = v (M M') v': the rows themselves may be larger than all else here
        squares = ((vectors @ (matrix @ matrix.T)) * vectors).sum(axis=1)
        distance = float(np.sqrt(max(0.0, float(np.median(squares))))) / usual
        # near 0 the new rows are all but the mean of the shared ones
        rows.measured(distance_from_mean=round(distance, 4), mean_cosine=round(float(cosine.mean()), 4))
    return rows.build()


def _product(inputs: InitInputs, old: Ints, vectors: Doubles) -> tuple[Doubles, Doubles, float]:
    """(m, V'(E - m), mean length of the rows of E - m): E are the base rows `old` in float64, m their mean."""
    parts = [slice(start, start + _ROWS_AT_A_TIME) for start in range(0, len(old), _ROWS_AT_A_TIME)]
    mean = sum(inputs.base_rows(old[part]).sum(axis=0, dtype=np.float64) for part in parts) / len(old)
    matrix, lengths = np.zeros((vectors.shape[1], len(mean))), 0.0
    for part in parts:
        centred = inputs.base_rows(old[part]) - mean
        matrix += vectors[part].T @ centred
        lengths += float(np.linalg.norm(centred, axis=1).sum())
    return mean, matrix, lengths / len(old)
