"""Train the rows of new tokens only, in input table and head: nothing that the base model had can change."""

from langadapt.core.config import Options
from langadapt.core.registry import method
from langadapt.core.types import Movable, Portion
from langadapt.select.choice import moving, tables_of, tables_share
from langadapt.select.inputs import SelectInputs


@method(
    cite="the first stage of Kim et al. 2024, Efficient and Effective Vocabulary Expansion (EEVE)",
    portion=lambda options: Portion(tables=tables_share("new-rows")),
)
def new_tokens(inputs: SelectInputs, options: Options) -> Movable:
    """Rows that the base did not have: those behind its last one, or those that took over an old token's place."""
    return moving(inputs, tables_of(inputs, "new-rows"))
