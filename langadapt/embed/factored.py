"""Rows from few coordinates and directions that all tokens share; coordinates of a token are those of its pieces"""

from typing import Literal

import numpy as np
from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.factors import coordinates_of_sums, factorised
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap
from langadapt.embed.spelling import pieces_of, spelled


class Options(BaseOptions):
    """How many coordinates, and where they come from."""

    rank: int = Field(default=100, ge=1)
    """Coordinates of a row; the width of the model, or more, leaves the table as it is."""

    coordinates: Literal["pieces", "drawn"] = "pieces"
    """Those of a token's pieces, or normal numbers with the mean and spread of the old ones."""


@method(
    needs=("base_rows", "base_tokenizer"),
    laws=("linear", "local"),
    cite="Pfeiffer et al. 2021, UNKs Everywhere: Adapting Multilingual Language Models to New Scripts",
)
def factored(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = f P, f = the mean of the coordinates F_i of its pieces i, or drawn with their moments.

    F = U_k and P = S_k V_k' are the factors of the SVD U S V' of the base's text rows, of rank k.
    """
    rows = RowMapBuilder(inputs, "factored")
    tokens = sorted(inputs.new_tokens, key=lambda token: token.id)
    if not tokens:
        return rows.build()
    factors = factorised(inputs, options.rank)
    rows.measured(rank=len(factors.directions), energy=round(factors.energy, 4))
    if options.coordinates == "drawn":
        text = len(inputs.population)
        # F has columns of length 1: their mean square is 1 / rows, and their mean is that of the rows' coordinates
        every = np.array([0, text])
        mean = coordinates_of_sums(inputs, factors, every, inputs.population, np.ones(text))[0]
        spread = np.sqrt(np.maximum(1 / text - mean.astype(np.float64) ** 2, 0)).astype(np.float32)
        draws = [inputs.stream("factored", token.content.hex()) for token in tokens]
        vectors = np.stack([mean + spread * draw.standard_normal(len(mean), dtype=np.float32) for draw in draws])
        rows.dense(tokens, vectors, "drawn coordinates", matrix=factors.directions)
        return rows.build()
    pieces = [pieces_of(inputs, token, skip_bare_space=True) for token in tokens]
    made = [(token, ids) for token, ids in zip(tokens, pieces, strict=True) if ids]
    indptr = np.cumsum([0, *(len(ids) for _, ids in made)], dtype=np.int64)
    old = np.array([id for _, ids in made for id in ids], dtype=np.int64)
    vectors = coordinates_of_sums(inputs, factors, indptr, old, np.ones(len(old)))
    rows.dense([token for token, _ in made], vectors, "coordinates of its pieces", matrix=factors.directions)
    spelled(rows, inputs, [token for token, ids in zip(tokens, pieces, strict=True) if not ids], "the method")
    return rows.build()
