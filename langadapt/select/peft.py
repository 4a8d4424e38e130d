"""Train any adapter of the peft library that can be merged, and the tables whole."""

from typing import Any

from langadapt.core.errors import ConfigError
from langadapt.core.registry import method
from langadapt.core.types import Movable, Portion
from langadapt.select.adapter import AdapterOptions, beside
from langadapt.select.inputs import SelectInputs


class Options(AdapterOptions):
    """The adapter as peft describes it, and what happens to the tables."""

    config: dict[str, Any]
    """Keys of a configuration of peft: `peft_type` (LOHA, LOKR, IA3, OFT, BOFT, VERA, ...), `r`, `target_modules`."""


# Of an adapter whose configuration names no rank.
_USUAL_RANK = 8


def _rank(config: dict[str, Any]) -> int:
    rank = config.get("r")
    return rank if isinstance(rank, int) and rank > 0 else _USUAL_RANK


@method(
    cite="Mangrulkar et al. 2022, PEFT: State-of-the-art Parameter-Efficient Fine-Tuning methods",
    defaults={"learning_rate": 2e-4, "weight_decay": 0.0},
    portion=lambda options: Portion(tables=float(options.train_tables), rank=_rank(options.config)),
)
def peft(inputs: SelectInputs, options: Options) -> Movable:
    """The tables, and what `config` adds."""
    if not isinstance(options.config.get("peft_type"), str):
        raise ConfigError(
            "`strategy_options.config` has no `peft_type`",
            hint="for example `-o strategy_options.config='{peft_type: LOHA, r: 8, alpha: 16}'`",
        )
    return beside({"target_modules": "all-linear"} | options.config, inputs, options)
