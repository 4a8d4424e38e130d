"""Averages of the nearest old tokens in word vectors of two languages that a dictionary has aligned"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.errors import ConfigError
from langadapt.core.registry import method
from langadapt.embed.alignment import Alignment, aligned
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import Floats, InitInputs, Ints
from langadapt.embed.nearest import neighbors, softened, unit
from langadapt.embed.rotation import widened
from langadapt.embed.rowmap import RowMap
from langadapt.embed.spelling import spelled

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from langadapt.embed.inputs import Vocabulary
    from langadapt.embed.vectors import WordVectors


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
    theirs, ours = inputs.base_vectors(), inputs.vectors()
    space = aligned(theirs, ours, inputs.dictionary())
    _say(space, rows, inputs)
    base = _vectors(theirs, inputs.base, inputs.population, inputs.base_tokenizer(), options.tokens) @ space.rotation
    ids = np.array([token.id for token in tokens], dtype=np.int64)
    target = inputs.target or inputs.base
    mine = _vectors(ours, target, ids, inputs.target_tokenizer(), options.tokens)
    keys, queries = unit(base), unit(widened(mine, base.shape[1]))
    there = np.flatnonzero(np.abs(keys).sum(axis=1) > 0)
    made = np.flatnonzero(np.abs(queries).sum(axis=1) > 0) if len(there) else np.zeros(0, dtype=np.int64)
    values, places = neighbors(queries[made], keys[there], options.neighbors)
    indptr, weights = softened(values, options.temperature)
    old = inputs.population[there][places.ravel()]
    rows.many([tokens[place] for place in made.tolist()], indptr, old, weights, "nearest tokens")
    left = np.setdiff1d(np.arange(len(tokens)), made)
    spelled(rows, inputs, [tokens[place] for place in left.tolist()], "no vector")
    return rows.build()


def _say(space: Alignment, rows: RowMapBuilder, inputs: InitInputs) -> None:
    told = f"word vectors are aligned by {space.pairs:,} pairs of the dictionary"
    if space.accuracy is None:
        inputs.progress.note(f"{told}; too few to say how well")
        rows.measured(pairs=space.pairs)
        return
    found = f"{space.accuracy:.0%} of {space.tried:,} words that were kept out find their translation as the nearest"
    inputs.progress.note(f"{told}; {found}")
    rows.measured(pairs=space.pairs, accuracy=round(space.accuracy, 4), tried=space.tried)


def _vectors(words: "WordVectors", tokens: "Vocabulary", ids: Ints, tokenizer: "Tokenizer", how: str) -> Floats:
    """Vectors [ids, width] of a tokenizer's tokens; zero where there is none."""
    if how == "words":
        from langadapt.embed.vectors import of_tokens

        return of_tokens(words, tokenizer, max(tokenizer.get_vocab().values()) + 1)[ids]
    if words.compose is None:
        raise ConfigError(
            "`tokens=ngrams` needs vectors from .bin files of fastText: others know whole words only",
            where="method_options.tokens",
        )
    # bytes that are no text have no letters, and so no vector: all of them decoded to one character would be equal
    texts = [_text(tokens.bytes_of(id)) for id in ids.tolist()]
    vectors = words.compose([text.strip() for text in texts])
    vectors[[not text.strip() for text in texts]] = 0
    return vectors


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return ""
