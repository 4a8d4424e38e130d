"""Averages of the nearest old tokens in word vectors of two languages that a dictionary has aligned"""

from typing import Literal

from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap
from langadapt.embed.spelling import spelled
from langadapt.embed.word_neighbors import word_neighbors


class Options(BaseOptions):
    """How many neighbours, how sharp, and how tokens get vectors."""

    neighbors: int = Field(default=10, ge=1, le=1000)
    """Old tokens that a new row is an average of."""

    temperature: float = Field(default=0.1, gt=0)
    """Weights are softmax(cosine / temperature); small: the nearest alone."""

    tokens: Literal["words", "ngrams"] = "words"
    """Vector of a token: mean of the words it occurs in, or made of its own letters (.bin files only)."""


@method(
    needs=("vectors|corpus", "base_vectors", "dictionary", "base_tokenizer", "target_tokenizer"),
    laws=("linear", "convex", "local"),
    cite="Minixhofer et al. 2022, WECHSEL: Effective initialization of subword embeddings for cross-lingual transfer",
)
def wechsel(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = sum of w_j E_j over its 10 nearest old text tokens j, w = softmax(cos(u_new, u_j) / 0.1).

    u are vectors of tokens, made of word vectors; those of the base's language are rotated into the space of the new
    one. Tokens without one get the mean of their pieces.
    """
    rows = RowMapBuilder(inputs, "wechsel")
    tokens = sorted(inputs.new_tokens, key=lambda token: token.id)
    if not tokens:
        return rows.build()
    near = word_neighbors(inputs, rows, tokens, options.neighbors, options.temperature, options.tokens)
    rows.many(near.tokens, near.indptr, near.old, near.weights, "nearest tokens")
    spelled(rows, inputs, near.left, "no vector")
    return rows.build()
