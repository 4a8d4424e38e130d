"""Cosines between two sets of vectors in blocks of one shape, and exact choices among them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from langadapt.embed.types import Floats, Ints

if TYPE_CHECKING:
    import torch

# A row must come out as the same bits whichever rows stand beside it, so every product has the same shape.
_QUERIES_AT_A_TIME = 256
# Directions of vectors shorter than this are rounding noise.
_SHORTEST = 1e-8
# Values looked at first; rows whose support may be larger look at twice as many until it is known whole.
_FIRST = 256


def unit(vectors: Floats) -> Floats:
    """Rows scaled to length 1; rows that are too short for a direction become zero."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    scaled = np.where(lengths > _SHORTEST, vectors / np.maximum(lengths, _SHORTEST), 0)
    return scaled.astype(np.float32)


def cosines(queries: Floats, keys: Floats) -> "Iterator[tuple[int, torch.Tensor]]":
    """(first query, cosines [queries of a block, keys]) for unit vectors; at most 256 x keys in memory.

    Each block overwrites the one before. If it had memory of its own, what is kept of it would settle in the hole that
    it leaves, so that the next block finds no room there: 128,000 queries of 20,000 keys took 10 GB.
    """
    import torch

    across = torch.from_numpy(np.ascontiguousarray(keys.T))
    padded = torch.zeros((_QUERIES_AT_A_TIME, queries.shape[1]))
    product = torch.empty((_QUERIES_AT_A_TIME, len(keys)))
    for start in range(0, len(queries), _QUERIES_AT_A_TIME):
        block = queries[start : start + _QUERIES_AT_A_TIME]
        padded[: len(block)] = torch.from_numpy(block)
        padded[len(block) :] = 0.0
        yield start, torch.mm(padded, across, out=product)[: len(block)]


def top(similar: "torch.Tensor", count: int) -> tuple[Floats, Ints]:
    """(values, columns) [rows, count] of the largest values of each row, falling; of equal ones the lower column."""
    import torch

    # one more than asked for shows whether the last of them is one of several equal ones
    values, columns = torch.topk(similar, min(count + 1, similar.shape[1]), dim=1)
    last = values[:, count - 1 : count]
    tied = torch.nonzero(values[:, -1] == last[:, 0]).flatten() if values.shape[1] > count else torch.zeros(0).long()
    values, columns = values[:, :count].contiguous(), columns[:, :count].contiguous()
    found, places = values.numpy(), columns.numpy()
    for row in tied.tolist():
        candidates = torch.nonzero(similar[row] >= last[row]).flatten().numpy()
        order = np.lexsort((candidates, -similar[row].numpy()[candidates]))[:count]
        places[row] = candidates[order]
        found[row] = similar[row].numpy()[places[row]]
    order = np.lexsort((places, -found), axis=1)
    return np.take_along_axis(found, order, 1), np.take_along_axis(places, order, 1)


def sparsemax(falling: Floats) -> tuple[Floats, "np.ndarray[tuple[int], np.dtype[np.bool_]]"]:
    """Weights [rows, k] of the sparsemax of whole rows, of which only the k largest values are given, falling.

    w = max(s - tau, 0) with tau = (s_1 + ... + s_n - 1) / n, n the largest number with 1 + n s_n > s_1 + ... + s_n
    (Martins and Astudillo 2016). The condition holds for 1..n and for none after it: where it fails within the k values
    the weights are exact, and the second result is true. Where it does not, more values are needed.
    """
    values = falling.astype(np.float64)
    count = np.arange(1, values.shape[1] + 1)
    sums = np.cumsum(values, axis=1)
    support = (1 + count * values > sums).sum(axis=1)
    tau = (sums[np.arange(len(values)), support - 1] - 1) / support
    weights = np.maximum(values - tau[:, None], 0).astype(np.float32)
    return weights, support < values.shape[1]


def neighbors(queries: Floats, keys: Floats, count: int) -> tuple[Floats, Ints]:
    """(cosines, places) [queries, count] of the nearest keys, falling; of equal ones the lower place. Unit vectors."""
    count = min(count, len(keys))
    found = [top(similar, count) for _, similar in cosines(queries, keys)]
    if not found:
        return np.zeros((0, count), dtype=np.float32), np.zeros((0, count), dtype=np.int64)
    return np.concatenate([values for values, _ in found]), np.concatenate([places for _, places in found])


def softened(values: Floats, temperature: float) -> tuple[Ints, "np.ndarray[Any, np.dtype[np.float64]]"]:
    """(indptr, weights) of lines in CSR: softmax of falling `values` [rows, k] / `temperature`, not yet scaled."""
    weights = np.exp((values - values[:, :1]).astype(np.float64) / temperature)
    return np.arange(len(values) + 1) * values.shape[1], weights.ravel()


def sparse_weights(queries: Floats, keys: Floats) -> tuple[Ints, Ints, Floats]:
    """CSR (indptr, columns, weights) of the sparsemax of the cosines of unit vectors, exact."""
    lines: list[tuple[Ints, Floats]] = []
    for _, similar in cosines(queries, keys):
        count = min(_FIRST, similar.shape[1])
        values, places = top(similar, count)
        weights, exact = sparsemax(values)
        for row in range(len(values)):
            line, at, sure = weights[row], places[row], bool(exact[row])
            wide = count
            while not sure and wide < similar.shape[1]:
                wide = min(2 * wide, similar.shape[1])
                values_of_row, places_of_row = top(similar[row : row + 1], wide)
                found, whole = sparsemax(values_of_row)
                line, at, sure = found[0], places_of_row[0], bool(whole[0])
            kept = line > 0
            lines.append((at[kept], line[kept]))
    indptr = np.cumsum([0, *(len(at) for at, _ in lines)], dtype=np.int64)
    if not lines:
        return indptr, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    return indptr, np.concatenate([at for at, _ in lines]), np.concatenate([line for _, line in lines])
