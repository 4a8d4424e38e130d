"""Weighted average of the old tokens that spell the new one: the last counts most on input, the first in the head"""

from math import exp
from typing import Literal

from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap
from langadapt.embed.spelling import pieces_of


class Options(BaseOptions):
    """How steep the weights are, and what a tied table gets."""

    # the published 2 is behind the plain mean before training in Hungarian and Finnish, 1.25 is not: the method's page
    slope: float = Field(default=1.25, ge=0, le=100)
    """Piece i of k weighs exp(slope * i) on input, exp(-slope * i) in the head; 0 is the mean, 2 as published."""

    tied: Literal["both", "input", "head"] = "both"
    """A tied table has one row for both uses: the average of the two weightings, or one of them (measured: worse)."""

    skip_bare_space: bool = True
    """Leave a lone space piece out; many tokens share it, which inflates the head's soft-max."""


@method(
    needs=("base_tokenizer",),
    laws=("linear", "convex", "local"),
    cite="AdaptiVocab (Nakash et al. 2025), exponential weights",
)
def position_weighted(inputs: InitInputs, options: Options) -> RowMap:
    """A causal model meets the end of a word last when it reads, and must begin the word when it writes.

    So the input row leans to the last piece and the head row to the first: 71 % each of many pieces at the default
    slope. A tied table takes the average of both weightings, unless the options say otherwise.
    """
    rows = RowMapBuilder(inputs, "position-weighted")
    use = options.tied if inputs.role == "tied" else inputs.role
    for token in inputs.new_tokens:
        pieces = pieces_of(inputs, token, skip_bare_space=options.skip_bare_space)
        if pieces:
            rows.weighted(token, pieces, _weights(len(pieces), options.slope, use), why=f"pieces, {use}")
        else:
            rows.fallback(token, why="the base tokenizer cannot spell it")
    return rows.build()


def _weights(count: int, slope: float, use: str) -> list[float]:
    """Weights that sum to 1. The largest exponent is 0, so that a token of many pieces does not overflow."""
    falling = [exp(-slope * place) for place in range(count)]
    falling = [weight / sum(falling) for weight in falling]
    rising = falling[::-1]
    if use == "both":
        return [(down + up) / 2 for down, up in zip(falling, rising, strict=True)]
    return falling if use == "head" else rising
