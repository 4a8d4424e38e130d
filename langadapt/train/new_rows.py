"""An input table in which some rows move and all others stand still, without a gradient for the whole table."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from langadapt.core.errors import DataError

# fp32 rounding of a scaled row; a table that does more than scale its rows is off by its whole size.
_TOLERANCE = 1e-6
_SHOWN = 16


class NewRows(nn.Module):
    """Stands in for a model's nn.Embedding: rows of `ids` come from the parameter `rows`, in fp32.

    All other rows are read from the frozen table, in the dtype that it is kept in, and widened. What a row moved by has
    no part along the columns of `still` [D, k], if there are any.
    """

    def __init__(self, inner: nn.Module, ids: torch.Tensor) -> None:
        """`inner` is the model's own module, `ids` [n] the rows that move, which begin as they stand in its table."""
        super().__init__()
        table: Any = inner.weight
        self.inner = inner
        scale = scale_of(inner)
        if scale is None:
            raise DataError(
                f"the input table of this model ({type(inner).__name__}) does more than look up and scale its rows, "
                "so they cannot be refined"
            )
        self.scale = scale
        self.rows = nn.Parameter(table.detach()[ids.to(table.device)].float())
        self.register_buffer("first", self.rows.detach().clone(), persistent=False)
        self.still: torch.Tensor | None = None
        place = torch.full((table.shape[0],), -1, dtype=torch.long)
        place[ids] = torch.arange(len(ids))
        self.register_buffer("place", place, persistent=False)
        self._other: torch.Tensor | None = None

    def moved(self) -> torch.Tensor:
        """The rows as they are used and written: rows [n, D]."""
        if self.still is None:
            return self.rows
        first: Any = self.first
        # a product in bf16 would leave a part of the change in the directions that it should be free of
        with torch.autocast(self.rows.device.type, enabled=False):
            change = self.rows - first
            kept: torch.Tensor = first + change - (change @ self.still) @ self.still.T
        return kept

    @contextmanager
    def reading(self, table: torch.Tensor | None) -> Iterator[None]:
        """Inside the block ids are rows of another, frozen table; None: of this one, as it was before rows moved."""
        own: Any = self.inner.weight
        self._other = own if table is None else table
        try:
            yield
        finally:
            self._other = None

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """States [B, L, D] in fp32 for ids [B, L]."""
        own: Any = self.inner.weight
        found = functional.embedding(ids, own if self._other is None else self._other).float()
        if self._other is None:
            place: Any = self.place
            at = place[ids]
            moving = functional.embedding(at.clamp(min=0), self.moved())
            found = torch.where((at >= 0).unsqueeze(-1), moving, found)
        return found * self.scale if self.scale != 1.0 else found


@torch.no_grad()
def scale_of(inner: nn.Module) -> float | None:
    """What a model multiplies looked-up rows by, read off and shown on some rows. None if it does anything else.

    Gemma's embedding multiplies by the root of the width, others do so elsewhere or not at all.
    """
    table: Any = inner.weight
    if table.is_meta:
        return 1.0
    few = table[:_SHOWN].float()
    ids = torch.arange(len(few), device=table.device)
    # in fp32: what a narrow dtype rounds would hide a small difference
    plain, given = functional.embedding(ids, few), torch.func.functional_call(inner, {"weight": few}, (ids,)).float()
    named = getattr(inner, "embed_scale", None)
    scale = 1.0 if named is None else float(named)
    if given.shape != plain.shape:
        return None
    largest = max(1e-30, float(given.abs().max()))
    return scale if float((given - plain * scale).abs().max()) <= _TOLERANCE * largest else None
