"""Draws around the mean of all old rows, with their covariance scaled down"""

from math import sqrt
from typing import Literal

from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap


class Options(BaseOptions):
    """How wide the rows are drawn, and in which directions."""

    scale: float = Field(default=1e-9, gt=0, le=100)
    """Factor of the covariance; 1 draws rows as different as old ones are, 1e-9 nearly equal ones."""

    covariance: Literal["full", "diagonal"] = "full"
    """The covariance of all dimensions, or each dimension by itself."""


@method(
    needs=("base_rows",),
    laws=("linear", "local"),
    cite="Hewitt 2021, Initializing New Word Embeddings for Pretrained Language Models",
)
def normal(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token ~ N(mean, scale * covariance) of the rows of all old text tokens.

    Every token has a stream of its own, keyed by its bytes. The covariance is divided by the number of rows, and may
    lack full rank.
    """
    rows = RowMapBuilder(inputs, "normal")
    for token in inputs.new_tokens:
        rows.drawn(token, sqrt(options.scale), "the method", correlated=options.covariance == "full")
    return rows.build()
