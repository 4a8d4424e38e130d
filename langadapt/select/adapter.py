"""What the strategies with an adapter have in common: the tables are trained whole, beside it."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from langadapt.core.config import Options
from langadapt.core.types import Movable
from langadapt.select.inputs import SelectInputs


class AdapterOptions(Options):
    """What happens to the tables, and to the adapter at the end."""

    train_tables: bool = True
    """Train input table and head whole. Without it new rows stay as they were made."""

    tables_factor: Annotated[float, Field(gt=0)] = 0.2
    """Learning rate of the tables, as a multiple of the adapter's; new rows get `new_rows_factor` times that."""

    keep_adapter: bool = False
    """Save the adapter too, in the folder `adapter` of the model, as peft reads it."""


def beside(config: Mapping[str, Any], inputs: SelectInputs, options: AdapterOptions) -> Movable:
    """The tables and the adapter `config`."""
    return Movable(
        names=inputs.tables.among(inputs.parameters) if options.train_tables else frozenset(),
        adapter=dict(config),
        keep_adapter=options.keep_adapter,
        tables_factor=options.tables_factor,
    )
