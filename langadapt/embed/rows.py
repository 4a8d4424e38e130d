"""Rows that something else predicted, a hypernetwork say, from a file"""

from typing import Literal

import numpy as np

from langadapt.core.config import Options as BaseOptions
from langadapt.core.errors import DataError
from langadapt.core.registry import method
from langadapt.core.types import NewToken
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.predicted import PredictedRows
from langadapt.embed.rowmap import RowMap
from langadapt.embed.spelling import spelled
from langadapt.embed.types import Ints


class Options(BaseOptions):
    """What becomes of tokens that the file lacks."""

    missing: Literal["pieces", "error"] = "pieces"
    """New tokens without a row: the mean of their pieces, or an error."""


@method(
    needs=("rows", "base_tokenizer"),
    laws=("local",),
    cite="Minixhofer et al. 2024, Zero-Shot Tokenizer Transfer (for rows that a hypernetwork predicts)",
)
def rows(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = its row in the file, of `head` for a head of its own.

    Tokens that the file lacks, or has as zeros, get the mean of their pieces. Rows that are no numbers are an error.
    """
    lines = RowMapBuilder(inputs, "rows")
    tokens = sorted(inputs.new_tokens, key=lambda token: token.id)
    if not tokens:
        return lines.build()
    predicted = inputs.rows()
    width = inputs.base_rows(slice(0, 1)).shape[1]
    if predicted.width != width:
        raise DataError(f"the rows in `{predicted.path}` are {predicted.width:,} wide, those of the model {width:,}")
    there = predicted.row_of[[token.id for token in tokens]] >= 0
    found = [token for token, known in zip(tokens, there.tolist(), strict=True) if known]
    values = predicted.rows(np.array([token.id for token in found], dtype=np.int64), inputs.role)
    _check_numbers(predicted, found, np.flatnonzero(~np.isfinite(values).all(axis=1)))
    alive = (values != 0).any(axis=1)
    lines.dense([token for token, any in zip(found, alive, strict=True) if any], values[alive], "row of the file")
    missing = {"not in the file": [token for token, known in zip(tokens, there.tolist(), strict=True) if not known]}
    missing["zeros in the file"] = [token for token, any in zip(found, alive, strict=True) if not any]
    lacking = [token for group in missing.values() for token in group]
    if lacking and options.missing == "error":
        raise DataError(
            f"`{predicted.path}` has no row for {len(lacking):,} of {len(tokens):,} new tokens, "
            f"such as {lacking[0].id} `{lacking[0].piece}`",
            where="method_options.missing",
            hint="`missing=pieces` gives such tokens the mean of their pieces",
        )
    if lacking:
        inputs.progress.warn(
            f"`{predicted.path.name}` has no row for {len(lacking):,} of {len(tokens):,} new tokens: "
            "they get the mean of their pieces"
        )
    for why, group in missing.items():
        spelled(lines, inputs, group, why)
    lines.measured(from_file=int(alive.sum()), strangers=predicted.strangers)
    return lines.build()


def _check_numbers(predicted: PredictedRows, tokens: list[NewToken], broken: Ints) -> None:
    if len(broken):
        shown = ", ".join(f"{tokens[place].id} `{tokens[place].piece}`" for place in broken[:5].tolist())
        raise DataError(
            f"`{predicted.path}`: {len(broken):,} rows hold NaN or infinity: {shown}",
            hint="leave these rows out of the file, and their tokens get the mean of their pieces",
        )
