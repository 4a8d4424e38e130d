"""Train low-rank changes of every linear layer, and the tables whole; merged into a plain model at the end."""

from typing import Annotated, Literal

from pydantic import Field

from langadapt.core.registry import method
from langadapt.core.types import Movable, Portion
from langadapt.select.adapter import AdapterOptions, beside
from langadapt.select.inputs import SelectInputs


class Options(AdapterOptions):
    """Size and shape of the low-rank changes, and what happens to the tables."""

    rank: Annotated[int, Field(ge=1)] = 64
    """Width of the two factors of each change."""

    alpha: Annotated[int, Field(ge=1)] = 128
    """The change counts alpha / rank times; alpha / sqrt(rank) with `rslora`."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a layer's inputs that its change does not see in training."""

    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Ends of the names of the layers to change, such as `q_proj`; by default every linear layer but the head."""

    rslora: bool = False
    """Scale by the square root of the rank (Kalajdzievski 2023): large ranks then learn as fast as small ones."""

    dora: bool = False
    """Train the length of each row of a matrix by itself (Liu et al. 2024): slower, often better at small ranks."""


@method(
    cite="Hu et al. 2021, LoRA; tables trained whole as in ChocoLlama (Meeus et al. 2024)",
    defaults={"learning_rate": 2e-4, "weight_decay": 0.0},
    portion=lambda options: Portion(tables=float(options.train_tables), rank=options.rank),
)
def lora(inputs: SelectInputs, options: Options) -> Movable:
    """The tables, and two factors beside every layer that `targets` names."""
    targets = options.targets if isinstance(options.targets, str) else list(options.targets)
    config = {
        "peft_type": "LORA",
        "r": options.rank,
        "lora_alpha": options.alpha,
        "lora_dropout": options.dropout,
        "target_modules": targets,
        "use_rslora": options.rslora,
        "use_dora": options.dora,
    }
    return beside(config, inputs, options)
