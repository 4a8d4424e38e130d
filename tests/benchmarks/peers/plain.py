"""Formulas of methods as their reference codes compute them: python -m tests.benchmarks.peers.plain OUT METHOD NEW MOST

The table is whole in float32, as every reference has it, and tokens are made one by one or in the blocks that the
reference has. At most MOST tokens are made, and their seconds are scaled to those of all. The cost of `ofa` and `sava`
is one of rows of the table and of steps: fewer of those are done, and their seconds are scaled in the same way.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from langadapt.core.host import peak_memory_bytes
from langadapt.embed.inputs import InitInputs
from langadapt.embed.types import Floats
from tests.benchmarks.peers.large import KEPT, ROWS, SHARED, WIDTH, large_inputs, opened, random_vectors

_BLOCK, _NEIGHBORS, _TEMPERATURE, _ATOMS, _STEPS, _RANK = 1024, 10, 0.1, 64, 1000, 400
_FEW_ROWS = (4096, 8192)
Doubles = Any


def _unit(values: Any) -> Doubles:
    """Rows of length 1, in the dtype that they have."""
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-8)


def _nearest(queries: Any, keys: Any, table: Floats) -> Floats:
    """Blocks of 1,024 in float64, ten nearest, weighted row by row (WECHSEL 0.0.4, OFA)."""
    keys, rows = _unit(keys.astype(np.float64)), []
    for start in range(0, len(queries), _BLOCK):
        similar = _unit(queries[start : start + _BLOCK].astype(np.float64)) @ keys.T
        for line in similar:
            near = np.argpartition(line, -_NEIGHBORS)[-_NEIGHBORS:]
            weights = np.exp(line[near] / _TEMPERATURE)
            rows.append((weights / weights.sum()) @ table[near])
    return np.array(rows, dtype=np.float32)


def mean(inputs: InitInputs, table: Floats, most: int) -> Floats:
    return np.repeat(table.mean(axis=0)[None], most, axis=0)


def subtoken_mean(inputs: InitInputs, table: Floats, most: int) -> Floats:
    tokens = inputs.new_tokens[:most]
    return np.stack([table[inputs.base.spell(token.content)].mean(axis=0) for token in tokens])


def wechsel(inputs: InitInputs, table: Floats, most: int) -> Floats:
    return _nearest(inputs.vectors().table[SHARED : SHARED + most], _rotated(inputs), table)


def _rotated(inputs: InitInputs) -> Floats:
    """Vectors of the base's words in the space of the new ones, by the pairs of the dictionary in their spellings."""
    from langadapt.embed.alignment import dictionary_places

    theirs, ours = inputs.base_vectors(), inputs.vectors()
    first, second, counts = dictionary_places(inputs.dictionary(), theirs, ours)
    source = theirs.table[first].astype(np.float64) * counts[:, None]
    left, _, right = np.linalg.svd(source.T @ ours.table[second])
    rotated: Floats = theirs.table @ (left @ right).astype(np.float32)
    return rotated


def knn(inputs: InitInputs, table: Floats, most: int) -> Floats:
    rows = inputs.helper().rows(np.arange(SHARED + most), "tied")
    return _nearest(rows[SHARED:], rows[:SHARED], table[:SHARED])


def focus(inputs: InitInputs, table: Floats, most: int) -> Floats:
    """All cosines at once, then a full sort a token (deepfocus 1.0.1)."""
    vectors = _unit(random_vectors("tokens", SHARED + len(inputs.new_tokens)))
    rows = []
    for line in vectors[SHARED : SHARED + most] @ vectors[:SHARED].T:
        falling = np.sort(line)[::-1]
        sums = np.cumsum(falling)
        last = np.flatnonzero(1 + np.arange(1, len(line) + 1) * falling > sums)[-1]
        weights = np.maximum(line - (sums[last] - 1) / (last + 1), 0)
        kept = np.flatnonzero(weights)
        rows.append(weights[kept] @ table[kept])
    return np.array(rows, dtype=np.float32)


def clp(inputs: InitInputs, table: Floats, most: int) -> Floats:
    """An average over all shared rows for each token (clp-transfer)."""
    rows = _unit(inputs.helper().rows(np.arange(SHARED + most), "tied"))
    similar = rows[SHARED:] @ rows[:SHARED].T
    return np.stack([np.average(table[:SHARED], axis=0, weights=line) for line in similar]).astype(np.float32)


def omp(inputs: InitInputs, table: Floats, most: int) -> Floats:
    """Atom by atom, coefficients by least squares anew each time."""
    rows = inputs.helper().rows(np.arange(SHARED + most), "tied").astype(np.float64)
    atoms, found = _unit(rows[:SHARED]), []
    for goal in rows[SHARED:]:
        rest, chosen = goal, []
        for _ in range(_ATOMS):
            strength = np.abs(atoms @ rest)
            strength[chosen] = -1
            chosen.append(int(strength.argmax()))
            parts = rows[chosen].T
            weights = np.linalg.lstsq(parts, goal, rcond=None)[0]
            rest = goal - parts @ weights
        found.append(weights @ table[chosen])
    return np.array(found, dtype=np.float32)


def sava(inputs: InitInputs, table: Floats, most: int) -> Floats:
    """The published descent, one of its 1,000 steps over all anchors; both spaces padded to one width."""
    import torch

    helper = inputs.helper().rows(np.arange(SHARED), "tied")
    source = torch.nn.functional.pad(torch.from_numpy(helper), (0, WIDTH - helper.shape[1]))
    layer = torch.nn.Linear(WIDTH, WIDTH)
    steps = torch.optim.Adam(layer.parameters(), lr=1e-3)
    torch.nn.functional.mse_loss(layer(source), torch.from_numpy(table[:SHARED])).backward()
    steps.step()
    return np.zeros((0, WIDTH), dtype=np.float32)


def ofa(inputs: InitInputs, table: Floats, most: int) -> Floats:
    """The SVD of the whole table, here of its first rows only, then as WECHSEL in the coordinates."""
    coordinates, _, _ = np.linalg.svd(table[:most], full_matrices=False)
    return np.zeros((0, len(coordinates[0])), dtype=np.float32)


METHODS: dict[str, Callable[[InitInputs, Floats, int], Floats]] = {
    "mean": mean, "subtoken-mean": subtoken_mean, "wechsel": wechsel, "knn": knn, "focus": focus, "clp": clp,
    "omp": omp, "sava": sava, "ofa": ofa,
}  # fmt: skip


def main(out: str, name: str, new: str, most: str) -> None:
    work, count, few = Path(out).parent, int(new), int(most)
    inputs = large_inputs(work, count)
    opened(inputs, name)
    began = time.process_time()
    table = inputs.base_rows(slice(0, ROWS))
    loaded = time.process_time()
    if name == "ofa":
        # seconds are a line through two sizes: what depends on the rows, and what does not
        sizes = [(size, _timed(name, inputs, table, size)[1]) for size in _FEW_ROWS]
        slope = (sizes[1][1] - sizes[0][1]) / (sizes[1][0] - sizes[0][0])
        seconds, rows = slope * ROWS + max(0.0, sizes[0][1] - slope * sizes[0][0]), np.zeros((0, WIDTH))
    else:
        rows, spent = _timed(name, inputs, table, min(few, count))
        times = _STEPS if name == "sava" else 1 if name == "mean" else count / min(few, count)
        seconds = spent * times
    np.save(Path(out) / "rows.npy", rows[:KEPT])
    found = {"seconds": loaded - began + seconds, "peak_bytes": peak_memory_bytes(), "tokens": len(rows),
             "whole": name in ("mean",) or len(rows) == count}  # fmt: skip
    (Path(out) / "measured.json").write_text(json.dumps(found))


def _timed(name: str, inputs: InitInputs, table: Floats, most: int) -> tuple[Floats, float]:
    began = time.process_time()
    rows = METHODS[name](inputs, table, most)
    return rows, time.process_time() - began


if __name__ == "__main__":
    main(*sys.argv[1:])
