"""Train the matrices that are best conditioned, whole (KappaTune): no text is needed."""

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from langadapt.core.config import Options as OptionsBase
from langadapt.core.registry import method
from langadapt.core.types import Movable, Portion
from langadapt.select.choice import TablesMove, lowest, moving, tables_of, tables_share
from langadapt.select.inputs import SelectInputs

if TYPE_CHECKING:
    import torch

# The singular value that is taken for the smallest by `robust`: 95 % of all are at least as large.
_QUANTILE = 0.95


class Options(OptionsBase):
    """How many matrices are trained, by which measure, and what happens to the tables."""

    tensors: Annotated[int, Field(ge=0)] = 100
    """Matrices that are trained; all if the model has fewer."""

    score: Literal["kappa", "robust", "stable-rank"] = "kappa"
    """`kappa`: largest / smallest singular value; `robust`: largest / 95th percentile; `stable-rank`: largest / all."""

    tables: TablesMove = "new-rows"
    """Rows of input table and head that move: all but those of special tokens, those of new tokens, or none."""


@method(
    needs=("weights", "singular values"),
    cite="Ludwig 2025, KappaTune (arXiv 2506.16289)",
    defaults={"weight_decay": 0.01},
    portion=lambda options: Portion(1.0, tables_share(options.tables), whole=True),
)
def kappa(inputs: SelectInputs, options: Options) -> Movable:
    """The `tensors` matrices with the lowest score; of equal ones the first. Tables are no matrices here."""
    matrices = inputs.anatomy.matrices
    tracked = inputs.progress.track(matrices, "singular values", total=len(matrices), unit="matrices")
    scores = [condition(singular_values(inputs.read(matrix.weight)), options.score) for matrix in tracked]
    chosen = lowest(np.array(scores), options.tensors)
    inputs.found["scores"] = {matrix.weight: None if np.isinf(score) else float(f"{score:.6g}")
                              for matrix, score in zip(matrices, scores, strict=True)}  # fmt: skip
    return moving(inputs, tables_of(inputs, options.tables), {matrices[place].weight for place in chosen})


def singular_values(matrix: "torch.Tensor") -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """Singular values in descending order.

    In fp64: in fp32 the smallest is off by a 1e-7th of the largest, differently for each number of threads, and with it
    the order of what is chosen. Of the tall one of a matrix and its transpose, which has the same: LAPACK takes 4.5
    times as long for 2,048 x 8,192 as for 8,192 x 2,048.
    """
    import torch

    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    found: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = torch.linalg.svdvals(tall.double()).numpy()
    return found


def condition(values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", score: str) -> float:
    """How unevenly a matrix stretches, at least 1 (`stable-rank`: 1 / rank to 1), infinite for a singular one."""
    largest = float(values[0])
    if largest == 0:
        return float("inf")
    if score == "stable-rank":
        return largest**2 / float((values**2).sum())
    smallest = float(values[-1] if score == "kappa" else values[round(_QUANTILE * (len(values) - 1))])
    return largest / smallest if smallest > 0 else float("inf")
