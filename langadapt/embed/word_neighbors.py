"""Old tokens nearest to each new one in word vectors of two languages: what wechsel and ofa begin with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from langadapt.core.errors import ConfigError
from langadapt.core.types import NewToken
from langadapt.embed.alignment import Alignment, aligned
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.nearest import neighbors, softened, unit
from langadapt.embed.rotation import widened
from langadapt.embed.types import Floats, Ints

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from langadapt.embed.types import Vocabulary
    from langadapt.embed.vectors import WordVectors

How = Literal["words", "ngrams"]


@dataclass(frozen=True)
class Neighbors:
    """CSR lines over old ids for `tokens`, with weights softmax(cosine / temperature); `left` have no vector."""

    tokens: Sequence[NewToken]
    left: Sequence[NewToken]
    indptr: Ints = field(repr=False)
    old: Ints = field(repr=False)
    weights: "np.ndarray[Any, np.dtype[np.float64]]" = field(repr=False)


def word_neighbors(
    inputs: InitInputs,
    rows: RowMapBuilder,
    tokens: Sequence[NewToken],
    count: int,
    temperature: float,
    how: How,
    *,
    one_space: bool = False,
) -> Neighbors:
    """The `count` nearest old text tokens of each token, by cosine; of equal ones the lower id.

    A dictionary rotates the vectors of the base's language into the space of the new one. With `one_space` they may be
    in one space as they are, if no dictionary is given: then both must be files, of one width.
    """
    theirs, ours = inputs.base_vectors(), inputs.vectors()
    if inputs.has("dictionary") or not one_space:
        space = aligned(theirs, ours, inputs.dictionary())
        rotation = space.rotation
        _say(space, rows, inputs)
    else:
        if theirs.width != ours.width or theirs.learned or ours.learned:
            what = "learned from two texts" if theirs.learned or ours.learned else "of different widths"
            raise ConfigError(
                f"word vectors {what} are not in one space",
                where="dictionary",
                hint="give a file of multilingual vectors twice, or word pairs to align them: --dictionary FILE.tsv",
            )
        rotation = np.eye(theirs.width, dtype=np.float32)
    base = _vectors(theirs, inputs.base, inputs.population, inputs.base_tokenizer(), how) @ rotation
    ids = np.array([token.id for token in tokens], dtype=np.int64)
    mine = _vectors(ours, inputs.target or inputs.base, ids, inputs.target_tokenizer(), how)
    keys, queries = unit(base), unit(widened(mine, base.shape[1]))
    there = np.flatnonzero(np.abs(keys).sum(axis=1) > 0)
    made = np.flatnonzero(np.abs(queries).sum(axis=1) > 0) if len(there) else np.zeros(0, dtype=np.int64)
    values, places = neighbors(queries[made], keys[there], count)
    indptr, weights = softened(values, temperature)
    left = np.setdiff1d(np.arange(len(tokens)), made)
    return Neighbors(
        [tokens[place] for place in made.tolist()],
        [tokens[place] for place in left.tolist()],
        indptr,
        inputs.population[there][places.ravel()],
        weights,
    )


def _say(space: Alignment, rows: RowMapBuilder, inputs: InitInputs) -> None:
    told = f"word vectors are aligned by {space.pairs:,} pairs of the dictionary"
    if space.accuracy is None:
        inputs.progress.note(f"{told}; too few to say how well")
        rows.measured(pairs=space.pairs)
        return
    found = f"{space.accuracy:.0%} of {space.tried:,} words that were kept out find their translation as the nearest"
    inputs.progress.note(f"{told}; {found}")
    rows.measured(pairs=space.pairs, accuracy=round(space.accuracy, 4), tried=space.tried)


def _vectors(words: "WordVectors", tokens: "Vocabulary", ids: Ints, tokenizer: "Tokenizer", how: How) -> Floats:
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
