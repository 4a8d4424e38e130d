"""Train every weight."""

from collections.abc import Mapping

from langadapt.core.registry import method
from langadapt.model.tables import TableNames


@method()
def full(parameters: Mapping[str, int], tables: TableNames) -> set[str]:
    """Names of the parameters that may move; `parameters` maps each name to its size."""
    return set(parameters)
