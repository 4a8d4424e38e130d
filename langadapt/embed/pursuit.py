"""Orthogonal matching pursuit for many targets over one dictionary.

For each target g: r = g; then k times: the atom i with the largest |<r, a_i>|, coefficients of all atoms chosen so far
by least squares, r = g minus their sum (Pati et al. 1993). With the Gram matrix of the atoms r need not be multiplied
with all of them: <r, a_i> = <g, a_i> - sum over chosen j of c_j <a_j, a_i> (Batch-OMP, Rubinstein et al. 2008).
Coefficients come from a Cholesky factor that grows by a row a step.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from langadapt.embed.nearest import unit
from langadapt.embed.types import Floats, Ints

if TYPE_CHECKING:
    import torch

# A row must come out as the same bits whichever rows stand beside it, so every product has the same shape.
# 64 targets x 64 atoms x 11,000 correlations x 4 bytes = 180 MB.
_TARGETS_AT_A_TIME = 64
# The Gram matrix is used up to this size (11,000 atoms) and where it saves work: for atoms wider than this times k. It
# reads k^2 / 2 numbers a target and atom at the speed of memory, products with the atoms themselves compute d k at that
# of the processor.
_GRAM_BYTES = 500_000_000
_WIDE = 8
# What is left of a target's length when it counts as explained, and of an atom's when it depends on those chosen.
_EXPLAINED = 1e-3
_DEPENDENT = 1e-5
# Correlations are float32; of the largest few they are made again in float64, and of those that are equal within
# rounding the one with the lower column counts.
_CANDIDATES = 8
_TIE = 1e-9


@dataclass(frozen=True)
class Pursuit:
    """CSR (indptr, columns of the atoms, weights) of the sums, and the share of each target's length left over [n]."""

    indptr: Ints
    columns: Ints
    weights: Floats
    unexplained: Floats


def pursue(targets: Floats, atoms: Floats, k: int, *, unit_atoms: bool) -> Pursuit:
    """Sums of at most `k` atoms [m, d] for targets [n, d], none of them zero. Every target gets one atom at least."""
    import torch

    # one scale for all: what counts as dependent does not change with the helper's units
    scale = float(np.linalg.norm(atoms.astype(np.float64), axis=1).mean())
    used = unit(atoms) if unit_atoms else (atoms / scale).astype(np.float32)
    lengths = np.linalg.norm(atoms.astype(np.float64), axis=1) if unit_atoms else np.full(len(atoms), scale)
    dictionary = torch.from_numpy(np.ascontiguousarray(used))
    pays = len(used) ** 2 * 4 <= _GRAM_BYTES and used.shape[1] > _WIDE * k
    gram = dictionary @ dictionary.T if pays else None
    goals = unit(targets)
    goal_lengths = np.linalg.norm(targets.astype(np.float64), axis=1)
    sizes, columns, weights, left = [], [], [], []
    for start in range(0, len(goals), _TARGETS_AT_A_TIME):
        block = np.zeros((_TARGETS_AT_A_TIME, goals.shape[1]), dtype=np.float32)
        count = len(goals[start : start + _TARGETS_AT_A_TIME])
        block[:count] = goals[start : start + count]
        chosen, values, size, rest = _block(torch.from_numpy(block), dictionary, gram, min(k, len(used)))
        there = np.arange(chosen.shape[1]) < size[:count, None]
        at = chosen[:count][there]
        sizes.append(size[:count])
        columns.append(at)
        weights.append(
            values[:count][there] * np.repeat(goal_lengths[start : start + count], size[:count]) / lengths[at]
        )
        left.append(rest[:count])
    if not sizes:
        nothing = np.zeros(0, dtype=np.float32)
        return Pursuit(np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64), nothing, nothing)
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)
    return Pursuit(
        indptr,
        np.concatenate(columns),
        np.concatenate(weights).astype(np.float32),
        np.concatenate(left).astype(np.float32),
    )


def _block(
    goals: "torch.Tensor", atoms: "torch.Tensor", gram: "torch.Tensor | None", k: int
) -> tuple[Any, Any, Any, Any]:
    """(chosen [b, k], coefficients [b, k], number of atoms [b], length left over [b]) for goals of length 1 or 0."""
    import torch

    b = len(goals)
    precise = goals.double()
    first = goals @ atoms.T
    correlations, residual = first, precise
    chosen = torch.zeros((b, k), dtype=torch.long)
    factor = torch.zeros((b, k, k), dtype=torch.float64)
    aims = torch.zeros((b, k), dtype=torch.float64)
    coefficients = torch.zeros((b, k), dtype=torch.float64)
    size = torch.zeros(b, dtype=torch.long)
    left = torch.linalg.vector_norm(precise, dim=1)
    going = left > 0
    for step in range(k):
        strength = correlations.abs()
        if step:
            strength.scatter_(1, chosen[:, :step], -1.0)
        few = torch.topk(strength, min(_CANDIDATES, len(atoms)), dim=1).indices.sort(dim=1).values
        exact = torch.bmm(atoms[few].double(), residual[:, :, None])[:, :, 0].abs()
        exact[strength.gather(1, few) < 0] = -1
        # argmax of a comparison gives the first of equal ones
        first_best = (exact >= exact.max(dim=1, keepdim=True).values * (1 - _TIE)).to(torch.uint8).argmax(dim=1)
        pick = few.gather(1, first_best[:, None])[:, 0]
        atom = atoms[pick].double()
        known = atoms[chosen[:, :step]].double()
        across = torch.bmm(known, atom[:, :, None])
        own = (atom * atom).sum(dim=1)
        row = torch.linalg.solve_triangular(factor[:, :step, :step], across, upper=False)[:, :, 0]
        pivot = own - (row * row).sum(dim=1)
        # the first atom is always taken: every row needs one
        going = going & ((pivot > _DEPENDENT * own) | (step == 0))
        if not bool(going.any()):
            break
        chosen[:, step] = pick
        factor[:, step, :step] = row
        factor[:, step, step] = torch.where(going, pivot, torch.ones_like(pivot)).clamp(min=1e-30).sqrt()
        aims[:, step] = (atom * precise).sum(dim=1)
        part = factor[:, : step + 1, : step + 1]
        found = torch.cholesky_solve(aims[:, : step + 1, None], part)[:, :, 0]
        coefficients[going, : step + 1] = found[going]
        size[going] = step + 1
        residual = precise - torch.bmm(coefficients[:, None, : step + 1], atoms[chosen[:, : step + 1]].double())[:, 0]
        left = torch.linalg.vector_norm(residual, dim=1)
        going = going & (left > _EXPLAINED)
        if step + 1 < k:
            if gram is None:
                correlations = residual.float() @ atoms.T
            else:
                sums = torch.bmm(coefficients[:, None, : step + 1].float(), gram[chosen[:, : step + 1]])[:, 0]
                correlations = first - sums
    return chosen.numpy(), coefficients.numpy(), size.numpy(), left.numpy()
