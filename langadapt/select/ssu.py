"""Shield the columns that a source language needs most (Source-Shielded Updates); the other half of each matrix moves.

A column is all weights that read one input. How much a language needs it: its length, times how strong that input is
on text of the language. Norms and biases are shielded value by value.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from langadapt.core.config import Options as OptionsBase
from langadapt.core.errors import DataError
from langadapt.core.registry import method
from langadapt.core.types import Movable, Portion, Slice
from langadapt.select.choice import (
    TablesMove,
    all_but_highest,
    column_norms,
    moving,
    tables_of,
    tables_share,
    vectors_of,
)
from langadapt.select.inputs import SelectInputs
from langadapt.select.neurons import need_text

if TYPE_CHECKING:
    from langadapt.model.anatomy import Matrix
    from langadapt.select.statistics import LanguageStatistics

    Floats = np.ndarray[Any, np.dtype[np.float64]]

Score = Literal["ssu", "wanda"]


class Options(OptionsBase):
    """How much is shielded, by which score, and what happens to the tables."""

    ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the columns of each matrix that is shielded."""

    score: Score = "ssu"
    """`ssu`: |column|_2 x mean square of its input, as in the released code; `wanda`: |column|_1 x its root."""

    tables: TablesMove = "train"
    """Rows of input table and head that move: all but those of special tokens, those of new tokens, or none."""


@method(
    needs=("source statistics", "weights"),
    cite="Yamaguchi et al. 2025, Mitigating Catastrophic Forgetting in Target Language Adaptation of LLMs via "
    "Source-Shielded Updates (arXiv 2512.04844)",
    defaults={"weight_decay": 0.01},
    portion=lambda options: Portion(1 - options.ratio, tables_share(options.tables)),
)
def ssu(inputs: SelectInputs, options: Options) -> Movable:
    """Of each matrix, all but the floor(inputs x ratio) columns with the highest score; of norms and biases likewise.

    Columns: |W_:j|_2 mean(x_j^2). Values of norms: |w| (1 + mean(x^2)), x being what the norm reads. Biases of
    matrices: |w|, for what a bias is multiplied by is always 1.
    """
    measured = inputs.statistics().of(inputs.need_source())
    slices = columns(inputs, measured, options.score, options.ratio)
    reads = {name: norm.weight for norm in inputs.anatomy.norms for name in (norm.weight, norm.bias)}
    for name in vectors_of(inputs):
        scores = vector_scores(inputs, measured, name, reads.get(name))
        slices[name] = Slice(0, all_but_highest(scores, options.ratio))
    return moving(inputs, slices | tables_of(inputs, options.tables))


def columns(inputs: SelectInputs, measured: "LanguageStatistics", score: Score, ratio: float) -> dict[str, Slice]:
    """The columns of each matrix that may move."""
    need_text(inputs.statistics(), [measured.lang])
    found = {}
    matrices = inputs.anatomy.matrices
    for matrix in inputs.progress.track(matrices, "scoring columns", total=len(matrices), unit="matrices"):
        scores = column_scores(inputs, measured, matrix, score)
        found[matrix.weight] = Slice(matrix.input_axis, all_but_highest(scores, ratio))
    return found


def column_scores(inputs: SelectInputs, measured: "LanguageStatistics", matrix: "Matrix", score: Score) -> "Floats":
    """How much a language needs each column [inputs]."""
    squares = measured.input_squares(matrix.weight)
    if len(squares) != matrix.inputs:
        raise DataError(
            f"the statistics are of {len(squares):,} columns of `{matrix.weight}`, which has {matrix.inputs:,}: "
            "they are of another model"
        )
    found: Floats = (
        column_norms(inputs, matrix, 2) * squares
        if score == "ssu"
        else column_norms(inputs, matrix, 1) * np.sqrt(squares)
    )
    return found


def vector_scores(inputs: SelectInputs, measured: "LanguageStatistics", name: str, norm: str | None) -> "Floats":
    """How much a language needs each value; in a norm, named by its weight, the mean square of what it reads counts."""
    weights: Floats = np.abs(inputs.read(name).numpy().astype(np.float64))
    if norm is None:
        return weights
    squares = measured.norm_squares(norm)
    if len(squares) != len(weights):
        raise DataError(
            f"the statistics are of {len(squares):,} values of `{norm}`, which has {len(weights):,}: they are of "
            "another model"
        )
    return weights * (1 + squares)
