"""Averages of tokens that both tokenizers have, weighted by likeness in vectors learned from text"""

from typing import Any

import numpy as np
from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.core.units import Bytes
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.nearest import sparse_weights, unit
from langadapt.embed.rowmap import RowMap
from langadapt.embed.spelling import spelled
from langadapt.embed.token_vectors import token_vectors
from langadapt.embed.types import Floats


class Options(BaseOptions):
    """How the vectors are learned."""

    dim: int = Field(default=100, ge=1, le=1000)
    """Dimensions of the vectors."""

    epochs: int = Field(default=3, ge=1, le=100)
    """Passes over the text."""

    min_count: int = Field(default=10, ge=1)
    """A token has a vector if the text has it as often; the others get the mean of their pieces."""

    max_corpus_bytes: Bytes = Field(default=64_000_000, ge=1)
    """Text to learn from, at most."""

    fasttext: dict[str, int | float | str] = Field(default_factory=dict)
    """Further settings of fastText's `train_unsupervised`, e.g. `minn`, `maxn`, `neg`, `ws`, `bucket`, `model`."""


@method(
    needs=("corpus", "target_tokenizer", "base_tokenizer"),
    laws=("linear", "convex", "local"),
    cite="Dobler and de Melo 2023, FOCUS: Effective Embedding Initialization for Monolingual Specialization",
)
def focus(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = sum of w_o E_o over tokens o that keep their rows, w = sparsemax(cos(f_new, f_o)).

    f are fastText vectors of the new tokenizer's tokens, learned on text that it cut. Tokens without one get the mean
    of their pieces.
    """
    rows = RowMapBuilder(inputs, "focus")
    tokens = sorted(inputs.new_tokens, key=lambda token: token.id)
    old, new = inputs.anchors()
    settings: dict[str, Any] = {
        "model": "cbow", "dim": options.dim, "epoch": options.epochs, "minCount": options.min_count, "neg": 10,
        "minn": 3, "maxn": 6, "ws": 5, "bucket": 200_000, "lr": 0.05, **options.fasttext,
    }  # fmt: skip
    ids = [token.id for token in tokens] + new.tolist()
    vectors, known = token_vectors(inputs, ids, settings, options.max_corpus_bytes) if tokens else _nothing(len(ids))
    mine, theirs = unit(vectors[: len(tokens)]), unit(vectors[len(tokens) :])
    usable = known & (np.abs(np.concatenate([mine, theirs])).sum(axis=1) > 0)
    anchors = np.flatnonzero(usable[len(tokens) :])
    made = np.flatnonzero(usable[: len(tokens)]) if len(anchors) else np.zeros(0, dtype=np.int64)
    indptr, columns, weights = sparse_weights(mine[made], theirs[anchors])
    rows.many([tokens[place] for place in made.tolist()], indptr, old[anchors][columns], weights, "like tokens")
    left = np.setdiff1d(np.arange(len(tokens)), made)
    spelled(rows, inputs, [tokens[place] for place in left.tolist()], "no vector")
    return rows.build()


def _nothing(count: int) -> tuple[Floats, Any]:
    return np.zeros((count, 1), dtype=np.float32), np.zeros(count, dtype=np.bool_)
