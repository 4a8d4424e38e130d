"""Train every weight."""

from collections.abc import Mapping

from langadapt.core.config import Options
from langadapt.core.registry import method
from langadapt.core.types import Movable
from langadapt.model.tables import TableNames


@method()
def full(parameters: Mapping[str, int], tables: TableNames, options: Options) -> Movable:
    """All of them; `parameters` maps each name to its size."""
    return Movable(frozenset(parameters))
