"""Train the input table and the head only; the body stays as it is, bit for bit."""

from collections.abc import Mapping

from langadapt.core.registry import method
from langadapt.model.tables import TableNames


@method(cite="Artetxe et al. 2020, On the Cross-lingual Transferability of Monolingual Representations")
def embeddings(parameters: Mapping[str, int], tables: TableNames) -> set[str]:
    """Names of the parameters that may move; `parameters` maps each name to its size."""
    return {name for name in (tables.input, tables.head, tables.bias) if name is not None and name in parameters}
