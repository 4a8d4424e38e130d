"""Rows of a helper: a model that has the new tokenizer, or one whose tokens stand for the same bytes."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from langadapt.core.errors import DataError
from langadapt.embed.types import Floats, Ints, Role
from langadapt.model.pairing import pair
from langadapt.model.tables import Tables, open_tables
from langadapt.model.token_table import TokenTable


@dataclass(frozen=True)
class Helper:
    """`row_of` [ids of the new tokenizer] is the helper's row of each token, -1 where it has no such token."""

    tables: Tables
    row_of: Ints = field(repr=False)
    learned = False

    @property
    def width(self) -> int:
        """Dimensions of its rows; another number than the base's as a rule."""
        return self.tables.width

    def rows(self, ids: Ints, role: Role) -> Floats:
        """Its rows of tokens of the new tokenizer in float32 [n, width]: of its head for `head`, else of its input.

        DataError if it lacks one of them: look at `row_of` first.
        """
        import torch

        where = self.row_of[np.asarray(ids, dtype=np.int64)]
        if len(where) and where.min() < 0:
            raise DataError(
                f"the helper `{self.tables.folder}` lacks {int((where < 0).sum()):,} of {len(where):,} tokens"
            )
        stored = self.tables.stored
        name = stored.head if role == "head" and stored.head is not None else stored.input
        return self.tables.weights.read(name)[torch.from_numpy(where)].float().numpy()


def open_helper(folder: Path, target: TokenTable) -> Helper:
    """Open a helper's tables and find its row of each of the target's tokens.

    DataError if it has fewer than half of them: it was made for another tokenizer.
    """
    tables = open_tables(folder)
    kept = pair(tables.tokens, target).kept
    row_of = np.full(target.size, -1, dtype=np.int64)
    row_of[list(kept.values())] = list(kept.keys())
    text = row_of[target.text_ids()]
    if (text >= 0).sum() * 2 < len(text):
        raise DataError(
            f"the helper `{folder}` has {int((text >= 0).sum()):,} of the {len(text):,} new tokenizer's tokens",
            hint="a helper is a model that was trained with the new tokenizer",
        )
    return Helper(tables, row_of)
