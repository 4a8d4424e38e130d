"""Few shared tokens that together give a token's row in a helper model, by orthogonal matching pursuit"""

import numpy as np
from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.helper_space import helper_space
from langadapt.embed.inputs import InitInputs
from langadapt.embed.pursuit import pursue
from langadapt.embed.rowmap import RowMap
from langadapt.embed.spelling import spelled
from langadapt.embed.types import Floats, Ints

# Share of a helper row's length left over when shared tokens explain none of it, within rounding.
_NOTHING = 0.9999


class Options(BaseOptions):
    """How many tokens a row is made of, and how long it may be."""

    k: int = Field(default=64, ge=1, le=512)
    """Shared tokens that a row is made of, at most; fewer where they already give the helper's row."""

    norm_cap: float | None = Field(default=1.0, gt=0)
    """Rows longer than this times the 99th percentile of the shared rows are scaled down to it; null: no cap."""

    unit_atoms: bool = True
    """Choose by cosine with what is left; false: by inner product, so that long rows are preferred (the reference)."""


@method(
    needs=("helper", "base_rows", "base_tokenizer"),
    laws=("linear", "local"),
    cite="Goddard and Fernandes Neto 2025, Training-Free Tokenizer Transplantation via Orthogonal Matching Pursuit",
)
def omp(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = sum of c_i E_i over at most k shared text tokens i, c such that g_new ~ sum of c_i G_i.

    G are rows of the helper. The tokens are found one by one: the one that explains most of what is left, then all
    coefficients anew by least squares. Coefficients may be negative and large, hence the cap.
    """
    rows = RowMapBuilder(inputs, "omp")
    space = helper_space(inputs, rows)
    if not space.tokens:
        return rows.build()
    found = pursue(space.new, space.shared, options.k, unit_atoms=options.unit_atoms)
    weights, capped = found.weights, 0
    if options.norm_cap is not None:
        factors = _factors(found.indptr, found.columns, weights, inputs.base_rows(space.old), options.norm_cap)
        weights = (weights * np.repeat(factors, np.diff(found.indptr))).astype(np.float32)
        capped = int((factors < 1).sum())
    # a zero row would win the soft-max where all logits lie far below zero
    made = found.unexplained < _NOTHING
    sizes = np.diff(found.indptr)
    indptr, entries = np.concatenate([[0], np.cumsum(sizes[made])]), np.repeat(made, sizes)
    like = [token for token, good in zip(space.tokens, made, strict=True) if good]
    rows.many(like, indptr, space.old[found.columns[entries]], weights[entries], "sum of shared tokens", scaled=False)
    unlike = [token for token, good in zip(space.tokens, made, strict=True) if not good]
    spelled(rows, inputs, unlike, "unlike all shared tokens")
    rows.measured(
        tokens_a_row=round(len(weights) / len(space.tokens), 1),
        unexplained=round(float(np.median(found.unexplained)), 4),
        capped=capped,
    )
    return rows.build()


def _factors(indptr: Ints, columns: Ints, weights: Floats, old: Floats, cap: float) -> Floats:
    """What each line must be multiplied with, 1 at most, so that no row is longer than the cap."""
    longest = cap * float(np.quantile(np.linalg.norm(old, axis=1), 0.99))
    lengths = np.zeros(len(indptr) - 1)
    for line in range(len(lengths)):
        part = slice(indptr[line], indptr[line + 1])
        lengths[line] = np.linalg.norm(weights[part] @ old[columns[part]])
    factors: Floats = np.minimum(1, longest / np.maximum(lengths, 1e-30)).astype(np.float32)
    return factors
