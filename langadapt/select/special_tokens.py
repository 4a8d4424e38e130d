"""Train the rows of special tokens only; to take away from another choice, or for new chat markers."""

import numpy as np

from langadapt.core.config import Options
from langadapt.core.registry import method
from langadapt.core.types import Movable, Portion, Slice
from langadapt.select.choice import moving
from langadapt.select.inputs import SelectInputs


@method(portion=lambda options: Portion(tables=0.01))
def special_tokens(inputs: SelectInputs, options: Options) -> Movable:
    """Rows of input table and head of tokens that the tokenizer marks as special."""
    rows = inputs.special_rows[inputs.special_rows < inputs.rows]
    part = Slice(0, np.unique(rows).astype(np.int32))
    return moving(inputs, dict.fromkeys(sorted(inputs.tables.among(inputs.parameters)), part))
