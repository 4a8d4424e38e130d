"""What a run lets move: the strategy, handed the model and everything else that it may look at."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from langadapt.core.config import validate
from langadapt.core.errors import ConfigError
from langadapt.core.inputs import Input, Inputs
from langadapt.core.registry import load_method
from langadapt.core.types import Movable

if TYPE_CHECKING:
    from langadapt.select.inputs import SelectInputs
    from langadapt.select.statistics import Statistics
    from langadapt.train.subject import Choose


def look_at(
    model: Any,
    folder: Path | None,
    *,
    seed: int,
    old_rows: int | None = None,
    source: str | None = None,
    targets: frozenset[str] = frozenset(),
    statistics: "Callable[[], Statistics] | None" = None,
) -> "SelectInputs":
    """What selectors may look at of a model that may be without values; `folder` holds its files."""
    import numpy as np

    from langadapt.model.anatomy import anatomy
    from langadapt.model.row_origin import new_rows_of
    from langadapt.model.tables import table_names
    from langadapt.model.token_table import TokenTable
    from langadapt.select.inputs import SelectInputs

    tables, none = table_names(model), np.zeros(0, dtype=np.int64)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    new = None if folder is None else new_rows_of(folder)
    if new is None:
        rows = shapes[tables.input][0]
        new = np.arange(rows if old_rows is None else old_rows, rows, dtype=np.int64)
    special = none
    if folder is not None:
        special = np.array(sorted(TokenTable.from_folder(folder).special_ids), dtype=np.int64)
    return SelectInputs(shapes, tables, anatomy(model), folder, new, special, seed, source, targets, statistics)


class Chosen(Protocol):
    """The options of a run that say what moves, and what it is chosen by."""

    @property
    def seed(self) -> int: ...
    @property
    def lang(self) -> str | None: ...
    @property
    def source(self) -> str | None: ...


def chooser_of(config: Chosen, inputs: Inputs) -> "Choose":
    """Strategies by name, on the loaded model of a run's inputs `model` and `data`."""
    given, data = inputs["model"], inputs["data"]
    if not isinstance(given, Input) or not isinstance(data, Input):
        raise ConfigError("a strategy needs a model and data")
    sources = data.facts["sources"].values()
    targets = {str(source["lang"]) for source in sources if source["role"] == "target"}
    replayed = sorted({str(source["lang"]) for source in sources if source["role"] != "target"} - targets)

    def choose(model: Any, strategy: str, options: Mapping[str, Any]) -> Movable:
        method = load_method("select", strategy)
        look = look_at(
            model,
            given.path,
            seed=config.seed,
            old_rows=given.facts.get("old_rows"),
            source=config.source or (replayed[0] if len(replayed) == 1 else None),
            targets=frozenset(targets | ({config.lang} if config.lang else set())),
        )
        movable: Movable = method(look, validate(method.options, options, what=f"options of `{strategy}`"))
        return movable

    return choose
