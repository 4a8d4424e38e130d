"""Averages of the nearest old tokens in multilingual word vectors, in few coordinates that all tokens share"""

from typing import Literal

from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.factors import coordinates_of_sums, factorised
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap
from langadapt.embed.spelling import spelled
from langadapt.embed.word_neighbors import word_neighbors


class Options(BaseOptions):
    """How many coordinates and neighbours, and how sharp."""

    rank: int = Field(default=400, ge=1)
    """Coordinates of a row; the width of the model, or more, leaves the table as it is."""

    neighbors: int = Field(default=10, ge=1, le=1000)
    """Old tokens that a new token's coordinates are an average of."""

    temperature: float = Field(default=0.1, gt=0)
    """Weights are softmax(cosine / temperature); small: the nearest alone."""

    tokens: Literal["words", "ngrams"] = "words"
    """Vector of a token: mean of the words it occurs in, or made of its own letters (.bin files only)."""


@method(
    needs=("vectors|corpus", "base_vectors", "dictionary?", "base_tokenizer", "target_tokenizer", "base_rows"),
    laws=("linear", "local"),
    cite="Liu et al. 2024, OFA: A Framework of Initializing Unseen Subword Embeddings",
)
def ofa(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = f P, f = sum of w_j F_j over its 10 nearest old text tokens j, w = softmax(cos / 0.1).

    F = U_k and P = S_k V_k' are the factors of the SVD U S V' of the base's text rows, of rank k. The cosines are those
    of multilingual word vectors; vectors of two languages are aligned by a dictionary if one is given.
    """
    rows = RowMapBuilder(inputs, "ofa")
    tokens = sorted(inputs.new_tokens, key=lambda token: token.id)
    if not tokens:
        return rows.build()
    near = word_neighbors(inputs, rows, tokens, options.neighbors, options.temperature, options.tokens, one_space=True)
    factors = factorised(inputs, options.rank)
    vectors = coordinates_of_sums(inputs, factors, near.indptr, near.old, near.weights)
    rows.dense(near.tokens, vectors, "coordinates of nearest tokens", matrix=factors.directions)
    rows.measured(rank=len(factors.directions), energy=round(factors.energy, 4))
    spelled(rows, inputs, near.left, "no vector")
    return rows.build()
