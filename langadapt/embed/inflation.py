"""How much probability new head rows take from old tokens, measured, and at most by Jensen's inequality."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from langadapt.embed.assemble import Layout
from langadapt.embed.rowmap import RowMap

_DIGITS = 4


@dataclass(frozen=True)
class Inflation:
    """Nats that an old token loses at a position, over all positions; the bounds are None where they do not hold."""

    mean: float
    highest: float
    bound_mean: float | None
    bound_highest: float | None


def inflation(
    states: Sequence[torch.Tensor],
    old: tuple[torch.Tensor, torch.Tensor | None],
    new: tuple[torch.Tensor, torch.Tensor | None],
    plan: Layout,
    rows: RowMap,
) -> Inflation:
    """`states` [tokens, width] are what the head is given for old text; `old` and `new` are (head, bias) in float32.

    Measured: log(Z' / Z), Z over tokens that keep their rows, Z' over those and the new ones. Where every new row h'_t
    is an average sum_j A_tj h_j, exp(h'_t x) <= sum_j A_tj exp(h_j x), so Z' / Z <= 1 + sum_j c_j exp(h_j x) / Z with
    c_j = sum_t A_tj. No soft cap and no scale of the logits is looked at; both come after.
    """
    mass = torch.from_numpy(rows.column_mass()) if rows.is_convex() else None
    added = list(plan.new_ids)
    head = new[0][added]
    bias = None if new[1] is None else new[1][added]
    moved, bounds = [], []
    for state in states:
        before = F.linear(state, *old).double()
        kept = torch.logsumexp(before[:, plan.kept_old], 1)
        fresh = torch.logsumexp(F.linear(state, head, bias).double(), 1)
        moved.append(torch.nn.functional.softplus(fresh - kept))
        if mass is not None:
            bounds.append(torch.nn.functional.softplus(torch.logsumexp(before + mass.log(), 1) - kept))
    if not added or not moved:
        return Inflation(0.0, 0.0, 0.0, 0.0)
    measured, bound = torch.cat(moved), torch.cat(bounds) if bounds else None
    return Inflation(
        round(float(measured.mean()), _DIGITS),
        round(float(measured.max()), _DIGITS),
        None if bound is None else round(float(bound.mean()), _DIGITS),
        None if bound is None else round(float(bound.max()), _DIGITS),
    )
