"""Shield columns, rows or neurons drawn at random: the control that a choice has to beat."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from langadapt.core.config import Options as OptionsBase
from langadapt.core.errors import ConfigError
from langadapt.core.registry import method
from langadapt.core.types import Movable, Portion, Slice
from langadapt.select.choice import TablesMove, by_layer, moving, tables_of, tables_share, vectors_of, whole_part
from langadapt.select.inputs import SelectInputs
from langadapt.select.neurons import slices_of


class Options(OptionsBase):
    """What is drawn, how much of it, and what happens to the tables."""

    unit: Literal["columns", "rows", "neurons"] = "columns"
    """Columns as ssu shields them, rows (all weights that write one output), or neurons as lape chooses them."""

    ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share that is shielded: of each matrix, or of all neurons."""

    neurons: Annotated[int, Field(ge=0)] | None = None
    """With unit neurons: how many move, in place of `ratio`; as many as a language has, for a control."""

    tables: TablesMove = "train"
    """Rows of input table and head that move: all but those of special tokens, those of new tokens, or none."""


@method(
    cite="the controls SSU-Rand of Yamaguchi et al. 2025 (arXiv 2512.04844) and random neurons of Gurgurov et al. 2025 "
    "(arXiv 2510.13580)",
    defaults={"weight_decay": 0.01},
    portion=lambda options: Portion(1 - options.ratio, tables_share(options.tables)),
)
def random(inputs: SelectInputs, options: Options) -> Movable:
    """Each matrix has its own stream of random numbers, so that what is drawn of one does not depend on the others."""
    tables = tables_of(inputs, options.tables)
    if options.unit == "neurons":
        return moving(inputs, _neurons(inputs, options) | tables)
    if options.neurons is not None:
        raise ConfigError("`neurons` is for `unit=neurons`", hint="leave it out, or add `unit=neurons`")
    slices = {}
    for matrix in inputs.anatomy.matrices:
        size, axis = (
            (matrix.inputs, matrix.input_axis) if options.unit == "columns" else (matrix.outputs, matrix.output_axis)
        )
        slices[matrix.weight] = Slice(axis, _drawn(inputs, size, options.ratio, matrix.weight))
    for name in vectors_of(inputs):
        slices[name] = Slice(0, _drawn(inputs, inputs.parameters[name][0], options.ratio, name))
    return moving(inputs, slices | tables)


def _neurons(inputs: SelectInputs, options: Options) -> dict[str, Slice]:
    widths = [layer.width for layer in inputs.anatomy.need_neurons()]
    count = sum(widths) - whole_part(sum(widths), options.ratio) if options.neurons is None else options.neurons
    if count > sum(widths):
        raise ConfigError(f"{count:,} neurons of {sum(widths):,} cannot be drawn", hint="give fewer `neurons`")
    drawn = inputs.stream("random", "neurons").choice(sum(widths), size=count, replace=False)
    return slices_of(inputs, by_layer(np.sort(drawn).astype(np.int32), widths))


def _drawn(
    inputs: SelectInputs, size: int, ratio: float, name: str
) -> "np.ndarray[tuple[int, ...], np.dtype[np.int32]]":
    order = inputs.stream("random", name).permutation(size)
    return np.sort(order[whole_part(size, ratio) :]).astype(np.int32)
