"""Shield the longest columns of each matrix, whatever they read: what ssu chooses without looking at any text."""

from typing import Annotated

import numpy as np
from pydantic import Field

from langadapt.core.config import Options as OptionsBase
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


class Options(OptionsBase):
    """How much is shielded, and what happens to the tables."""

    ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the columns of each matrix that is shielded."""

    tables: TablesMove = "train"
    """Rows of input table and head that move: all but those of special tokens, those of new tokens, or none."""


@method(
    needs=("weights",),
    cite="the control SSU-Mag of Yamaguchi et al. 2025 (arXiv 2512.04844)",
    defaults={"weight_decay": 0.01},
    portion=lambda options: Portion(1 - options.ratio, tables_share(options.tables)),
)
def magnitude(inputs: SelectInputs, options: Options) -> Movable:
    """All but the floor(inputs x ratio) columns with the largest |W_:j|_2; of norms and biases, values by |w|."""
    slices, matrices = {}, inputs.anatomy.matrices
    for matrix in inputs.progress.track(matrices, "measuring columns", total=len(matrices), unit="matrices"):
        slices[matrix.weight] = Slice(
            matrix.input_axis, all_but_highest(column_norms(inputs, matrix, 2), options.ratio)
        )
    for name in vectors_of(inputs):
        sizes = np.abs(inputs.read(name).numpy().astype(np.float64))
        slices[name] = Slice(0, all_but_highest(sizes, options.ratio))
    return moving(inputs, slices | tables_of(inputs, options.tables))
