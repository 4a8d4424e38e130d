"""How far weights have gone: |w - w_0| / |w_0| over what moves, for tables, rows of new tokens and the rest.

Where models lose what they could do in the first steps of continued pretraining, this is what jumps first (Emergent
Abilities under CPT, arXiv 2506.00288). The weights as they were are in the files of the model that the run began with:
they are read tensor by tensor when it is measured and not kept.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from langadapt.model.facts import stored_name
from langadapt.model.save import stored_as
from langadapt.model.weights import Weights, open_weights
from langadapt.train.adapters import NAME, Adapter
from langadapt.train.optimiser import Ints, Optimiser
from langadapt.train.sliced_layers import table_ids

# Numbers that are compared at once, so that widening to fp32 and the difference stay at 64 MB.
_AT_ONCE = 1 << 23
_DIGITS = 6
GROUPS = ("tables", "new_rows", "body")


class Drift:
    """A gauge; of an adapter it takes the change of each matrix that merging would make."""

    name = "drift"

    def __init__(
        self,
        model: nn.Module,
        optimiser: Optimiser,
        folder: Path,
        *,
        adapter: Adapter | None,
        new_rows: Ints | None,
        old_rows: int | None,
    ) -> None:
        """`folder` holds the files of the model before training; a part is compared with its places of them."""
        self._optimiser, self._folder, self._adapter = optimiser, folder, adapter
        self._parts = {part.master: part for part in optimiser.parts.sliced}
        self._tables = table_ids(model)
        self._new_rows, self._old_rows = new_rows, old_rows

    def measure(self, step: int) -> dict[str, float]:
        """Shares by group, and `all`; nothing at step 0, where nothing has moved."""
        if step == 0:
            return {}
        sums = {group: [0.0, 0.0] for group in GROUPS}
        with torch.no_grad():
            for group, moved, was in self._squares(open_weights(self._folder)):
                sums[group][0] += moved
                sums[group][1] += was
        sums["all"] = [sum(pair[0] for pair in sums.values()), sum(pair[1] for pair in sums.values())]
        return {
            group: float(f"{(moved / was) ** 0.5:.{_DIGITS}g}") for group, (moved, was) in sums.items() if was > 0.0
        }

    def judge(self, step: int, now: Mapping[str, Any], start: Mapping[str, Any]) -> str | None:
        """It only tells."""
        return None

    def _squares(self, weights: Weights) -> Iterator[tuple[str, float, float]]:
        """(group, sum of squares of the change, of the weights before) of each tensor."""
        inside: set[int] = set()
        for name, layer in ({} if self._adapter is None else self._adapter.layers).items():
            inside |= {id(value) for value in layer.parameters()}
            change = getattr(layer, "get_delta_weight", None)
            stored = stored_name(f"{name}.weight", weights.tensors)
            if change is not None and stored is not None:
                yield "body", _square(change(NAME)), _square(weights.read(stored))
        for name, value in sorted(self._optimiser.parameters.items()):
            if id(value) in inside:
                continue
            part, rows = self._parts.get(name), None
            start = weights.read(stored_as(weights, name if part is None else part.name))
            if part is not None:
                ids = torch.from_numpy(part.slice.ids).long()
                start, rows = start.index_select(part.slice.axis, ids), ids if part.slice.axis == 0 else None
            if id(value) not in self._tables:
                yield "body", *_change(value, start)
                continue
            new, moves = self._is_new(value.shape[0], rows), torch.ones(value.shape[0], dtype=torch.bool)
            if (held := self._optimiser.parts.held.get(name)) is not None:
                moves[torch.from_numpy(held.ids).long()] = False
            for group, own in (("new_rows", new & moves), ("tables", ~new & moves)):
                yield group, *_change(value, start, own)

    def _is_new(self, count: int, rows: torch.Tensor | None) -> torch.Tensor:
        """For each row of a table whether it is that of a new token; `rows` are ids where only some of them move."""
        ids = torch.arange(count) if rows is None else rows
        if self._new_rows is not None:
            return torch.isin(ids, torch.from_numpy(self._new_rows).long())
        return ids >= self._old_rows if self._old_rows is not None else torch.zeros(len(ids), dtype=torch.bool)


def _square(value: torch.Tensor) -> float:
    pieces = torch.split(value.flatten(), _AT_ONCE)
    return float(sum(float(piece.float().square().sum(dtype=torch.float64)) for piece in pieces))


def _change(value: torch.Tensor, start: torch.Tensor, rows: torch.Tensor | None = None) -> tuple[float, float]:
    """Sums of squares of the difference and of `start`, over some rows of both."""
    moved = was = 0.0
    step = max(1, _AT_ONCE // max(1, start[0].numel() if start.ndim else 1))
    for first in range(0, len(start), step):
        now, before = value[first : first + step].detach(), start[first : first + step].to(value.device).float()
        if rows is not None:
            chosen = rows[first : first + step].to(value.device)
            now, before = now[chosen], before[chosen]
        moved += float((now.float() - before).square().sum(dtype=torch.float64))
        was += float(before.square().sum(dtype=torch.float64))
    return moved, was
