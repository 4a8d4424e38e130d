"""Train any adapter of the peft library that can be merged, and the tables whole."""

from collections.abc import Mapping
from typing import Any

from langadapt.core.errors import ConfigError
from langadapt.core.registry import method
from langadapt.core.types import Movable
from langadapt.model.tables import TableNames
from langadapt.select.adapter import AdapterOptions, beside


class Options(AdapterOptions):
    """The adapter as peft describes it, and what happens to the tables."""

    config: dict[str, Any]
    """Keys of a configuration of peft: `peft_type` (LOHA, LOKR, IA3, OFT, BOFT, VERA, ...), `r`, `target_modules`."""


@method(
    cite="Mangrulkar et al. 2022, PEFT: State-of-the-art Parameter-Efficient Fine-Tuning methods",
    defaults={"learning_rate": 2e-4, "weight_decay": 0.0},
)
def peft(parameters: Mapping[str, int], tables: TableNames, options: Options) -> Movable:
    """The tables, and what `config` adds; `parameters` maps each name to its size."""
    if not isinstance(options.config.get("peft_type"), str):
        raise ConfigError(
            "`strategy_options.config` has no `peft_type`",
            hint="for example `-o strategy_options.config='{peft_type: LOHA, r: 8, alpha: 16}'`",
        )
    return beside({"target_modules": "all-linear"} | options.config, parameters, tables, options)
