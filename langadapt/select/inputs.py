"""What a selector may look at: the model's parameters and parts, its rows by kind, statistics, random streams."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.progress import Progress
from langadapt.core.rng import stream
from langadapt.model.anatomy import Anatomy
from langadapt.model.tables import TableNames

if TYPE_CHECKING:
    import torch

    from langadapt.select.statistics import Statistics

    Ints = np.ndarray[Any, np.dtype[np.int64]]

_NO_ROWS: "Ints" = np.zeros(0, dtype=np.int64)


def without_statistics(who: str) -> ConfigError:
    """The error where there are none: a choice by weights alone would be another method under the same name."""
    return ConfigError(
        f"{who} needs statistics of the model's activations, and none were given",
        hint="langadapt calibrate MODEL en=CORPUS ... --out stats, then `--statistics stats`",
    )


def no_source() -> ConfigError:
    """The error of a method that shields a language, where none was named."""
    return ConfigError("which language should stay is not known", hint="name it: `--source en`")


def no_target() -> ConfigError:
    """The error of a method that chooses for a language, where none was named."""
    return ConfigError("which language is learned is not known", hint="name it: `--lang hu`")


@dataclass(frozen=True)
class SelectInputs:
    """`parameters` maps each name to its shape. Names are those of the loaded model, as `Movable` wants them.

    `folder` holds the files (None: a model without values). `new_rows` are those of tokens that the base did not have,
    `special_rows` those of special tokens. `source` and `targets` are languages: what should stay, what is learned.
    What a method has to tell beside its choice it puts into `found`, as plain values of JSON. `memory` keeps what is
    read of the weights, for a second choice among the same ones.
    """

    parameters: Mapping[str, tuple[int, ...]]
    tables: TableNames
    anatomy: Anatomy
    folder: Path | None = None
    new_rows: "Ints" = field(default_factory=lambda: _NO_ROWS)
    special_rows: "Ints" = field(default_factory=lambda: _NO_ROWS)
    seed: int = 0
    source: str | None = None
    targets: frozenset[str] = frozenset()
    measured: "Callable[[], Statistics] | None" = None
    progress: Progress = field(default_factory=Progress)
    found: dict[str, Any] = field(default_factory=dict)
    memory: dict[Any, Any] = field(default_factory=dict, repr=False)

    def read(self, name: str) -> "torch.Tensor":
        """Values of a parameter, in float32, read when asked for.

        ConfigError for a model without files. DataError for values that are no numbers: every order of them is wrong.
        """
        import torch

        from langadapt.model.save import stored_as
        from langadapt.model.weights import open_weights

        if self.folder is None:
            raise ConfigError("this choice looks at the weights, and there is no model yet")
        weights = open_weights(self.folder)
        values = weights.read(stored_as(weights, name)).float()
        if not bool(torch.isfinite(values).all()):
            raise DataError(f"`{self.folder}`: `{name}` holds NaN or infinity", hint="copy the model again")
        return values

    def statistics(self) -> "Statistics":
        """Statistics of activations. ConfigError if none were given: there is nothing to fall back to."""
        if self.measured is None:
            raise without_statistics("this choice")
        return self.measured()

    def stream(self, *purpose: str) -> np.random.Generator:
        """Random numbers of a purpose, a function of the seed."""
        return stream(self.seed, "select", *purpose)

    def need_source(self) -> str:
        """The language that should stay. ConfigError if none was named."""
        if self.source is None:
            raise no_source()
        return self.source

    def need_targets(self) -> tuple[str, ...]:
        """The languages that are learned, sorted. ConfigError if there is none."""
        if not self.targets:
            raise no_target()
        return tuple(sorted(self.targets))

    @property
    def rows(self) -> int:
        """Rows of the tables."""
        return self.parameters[self.tables.input][0]
