"""Train the input table and the head only; the body stays as it is, bit for bit."""

from collections.abc import Mapping

from langadapt.core.config import Options
from langadapt.core.registry import method
from langadapt.core.types import Movable
from langadapt.model.tables import TableNames


@method(cite="Artetxe et al. 2020, On the Cross-lingual Transferability of Monolingual Representations")
def embeddings(parameters: Mapping[str, int], tables: TableNames, options: Options) -> Movable:
    """Input table, head and the head's bias; `parameters` maps each name to its size."""
    return Movable(tables.among(parameters))
