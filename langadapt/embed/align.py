"""Average of the old tokens that lie under the new one in text that both tokenizers have cut"""

from typing import Literal

import numpy as np
from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.core.units import Bytes
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.overlaps import Overlaps
from langadapt.embed.rowmap import RowMap
from langadapt.embed.spelling import spelled


class Options(BaseOptions):
    """What an old token under a new one is worth, and how much text is looked at."""

    share: Literal["bytes", "tokens", "inside"] = "bytes"
    """Old tokens under a new one count by the `bytes` that they share with it, or alike: all of them (`tokens`), or
    those that lie inside of it or around it (`inside`, as published)."""

    skip_bare_space: bool = True
    """Leave a lone space piece out; many tokens share it, which inflates the head's soft-max."""

    max_corpus_bytes: Bytes = Field(default=64_000_000, ge=1)
    """Text to look at, at most."""


@method(
    needs=("corpus", "base_tokenizer", "target_tokenizer"),
    laws=("linear", "convex", "local"),
    cite="Yamaguchi et al. 2024, How Can We Effectively Expand the Vocabulary of LLMs with 0.01GB of Target Language "
    "Text? (Align)",
)
def align(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = mean over its occurrences in the text of the weighted mean of the old tokens under it.

    What the base tokenizer makes of a word may depend on what stands around the new token's part of it, which the
    pieces of the token alone do not show. Tokens that the text lacks get the mean of their pieces.
    """
    rows = RowMapBuilder(inputs, "align")
    tokens = sorted(inputs.new_tokens, key=lambda token: token.id)
    if not tokens:
        return rows.build()
    found = Overlaps(
        (inputs.base_tokenizer(), inputs.base),
        (inputs.target_tokenizer(), inputs.target or inputs.base),
        np.array([token.id for token in tokens], dtype=np.int64),
        inputs.population,
        inputs.old_rows,
        share=options.share,
        skip_bare_space=options.skip_bare_space,
    )
    found.add(inputs.corpus(), options.max_corpus_bytes)
    places, ids, sums = found.sums()
    made, sizes = np.unique(places, return_counts=True)
    rows.many([tokens[place] for place in made.tolist()], np.cumsum([0, *sizes]), ids, sums, "old tokens under it")
    left = np.setdiff1d(np.arange(len(tokens)), made)
    spelled(rows, inputs, [tokens[place] for place in left.tolist()], "not in the text")
    rows.measured(occurrences=int(found.occurrences.sum()))
    return rows.build()
