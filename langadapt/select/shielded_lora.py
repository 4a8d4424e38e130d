"""Train low-rank changes of the columns that a source language needs least: ssu's shield at the cost of lora."""

from typing import Annotated, Literal

from pydantic import Field

from langadapt.core.registry import method
from langadapt.core.types import Movable, Portion
from langadapt.select.adapter import AdapterOptions
from langadapt.select.choice import moving, tables_of
from langadapt.select.inputs import SelectInputs
from langadapt.select.ssu import Score, columns


class Options(AdapterOptions):
    """How much is shielded and by which score; size and shape of the changes; what happens to the tables."""

    ratio: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the columns of each matrix that is shielded."""

    score: Score = "ssu"
    """`ssu`: |column|_2 x mean square of its input, as in the released code; `wanda`: |column|_1 x its root."""

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


@method(
    needs=("source statistics", "weights"),
    cite="Hu et al. 2021, LoRA, on the columns that Yamaguchi et al. 2025 (SSU) leave free; the combination is ours",
    defaults={"learning_rate": 2e-4, "weight_decay": 0.0},
    portion=lambda options: Portion(tables=float(options.train_tables), rank=options.rank),
)
def shielded_lora(inputs: SelectInputs, options: Options) -> Movable:
    """Two factors beside every matrix that `targets` names, of which the first reads the free columns only."""
    measured = inputs.statistics().of(inputs.need_source())
    free = columns(inputs, measured, options.score, options.ratio)
    if options.targets != "all-linear":
        ends = options.targets
        named = {matrix.weight for matrix in inputs.anatomy.matrices
                 if any(matrix.module == end or matrix.module.endswith(f".{end}") for end in ends)}  # fmt: skip
        free = {name: part for name, part in free.items() if name in named}
    tables = moving(inputs, tables_of(inputs, "train" if options.train_tables else "freeze"))
    return Movable(
        names=tables.names,
        slices={**free, **tables.slices},
        adapter={
            "peft_type": "LORA",
            "r": options.rank,
            "lora_alpha": options.alpha,
            "lora_dropout": options.dropout,
            "target_modules": options.targets if isinstance(options.targets, str) else list(options.targets),
            "use_rslora": options.rslora,
        },
        keep_adapter=options.keep_adapter,
        tables_factor=options.tables_factor,
    )
