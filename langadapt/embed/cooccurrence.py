"""Vectors of tokens from the tokens around them: counts, pointwise mutual information, and its largest directions.

    PPMI(a, c) = max(0, log(n(a, c) n / (n(a) n(c))))    a a token, c a token at its left or at its right

n(a, c) counts a pair at distance o as 1 / o, up to `window` tokens; left and right contexts are columns of their own,
and frequent contexts are flattened (n(c) to the power 0.75). Rows are U sqrt(S) of the truncated SVD (Levy, Goldberg
and Dagan 2015), found by block power iteration (Halko et al. 2011).
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from langadapt.core import interrupt
from langadapt.embed.sums import added_up
from langadapt.embed.types import Floats, Ints

if TYPE_CHECKING:
    import torch

_FLATTENED = 0.75
_TOKENS_AT_A_TIME = 2_000_000
# Extra directions and rounds of the iteration; with these the last direction kept is still right to a percent or so.
_MORE = 32
_ROUNDS = 4
# Below it, as a share of the first, the strength of a direction is rounding.
_RANK = 1e-5


def pair_counts(texts: Iterable[Sequence[int]], size: int, window: int) -> "tuple[Ints, Any]":
    """(keys, counts): key a * size + c for token a and token c behind it in the same text, weighted by 1 / distance."""
    keys: list[Ints] = []
    counts: list[Any] = []
    block: list[int] = []

    def close() -> None:
        ids = np.array(block, dtype=np.int64)
        for distance in range(1, window + 1):
            interrupt.poll()
            left, right = ids[:-distance], ids[distance:]
            # texts are parted by `window` marks, so that no pair reaches over a border
            inside = (left >= 0) & (right >= 0)
            found, number = np.unique(left[inside] * size + right[inside], return_counts=True)
            keys.append(found)
            counts.append(number / distance)
        block.clear()

    for ids in texts:
        block.extend(ids)
        block.extend([-1] * window)
        if len(block) >= _TOKENS_AT_A_TIME:
            close()
    close()
    return added_up(keys, counts)


def mutual_information(keys: Ints, counts: Any, size: int) -> "torch.Tensor":
    """PPMI [size, 2 size], sparse, in float32: columns are what follows a token, then what precedes it."""
    import torch

    left, right = keys // size, keys % size
    rows, columns = np.concatenate([left, right]), np.concatenate([right, left + size])
    values = np.concatenate([counts, counts])
    of_row = np.bincount(rows, weights=values, minlength=size)
    of_column = np.bincount(columns, weights=values, minlength=2 * size) ** _FLATTENED
    score = np.log(values * of_column.sum() / (of_row[rows] * of_column[columns]))
    kept = score > 0
    places = torch.from_numpy(np.stack([rows[kept], columns[kept]]))
    found = torch.from_numpy(score[kept].astype(np.float32))
    return torch.sparse_coo_tensor(places, found, (size, 2 * size), check_invariants=True).coalesce()


def directions(matrix: "torch.Tensor", width: int, random: np.random.Generator) -> Floats:
    """U sqrt(S) [rows, width] of a sparse matrix; the sign of a direction is that of its largest entry.

    Empty rows are zero, and so are directions that the matrix does not have: not rounding noise.
    """
    import torch

    rows = matrix.shape[0]
    most = min(width + _MORE, rows)
    turned = matrix.t().coalesce()
    block = torch.from_numpy(random.standard_normal((rows, most), dtype=np.float32))
    for _ in range(_ROUNDS):
        interrupt.poll()
        block, _ = torch.linalg.qr(torch.sparse.mm(matrix, torch.sparse.mm(turned, block)))
    # M'Q = V S W', so that M ~ (Q W) S V'
    _, strengths, turn = torch.linalg.svd(torch.sparse.mm(turned, block), full_matrices=False)
    width = min(width, most)
    found, strengths = (block @ turn.T)[:, :width], strengths[:width]
    found[torch.bincount(matrix.indices()[0], minlength=rows) == 0] = 0
    signs = torch.sign(found.gather(0, found.abs().argmax(dim=0, keepdim=True)))
    there = strengths > _RANK * strengths[0]
    vectors: Floats = (found * signs * torch.where(there, strengths, 0).sqrt()).numpy()
    return vectors
