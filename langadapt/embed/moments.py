"""Mean, spread and covariance of the rows of a population, summed in float64 whatever the size of the table."""

from typing import Any

import numpy as np

from langadapt.embed.types import Floats, Ints

Doubles = np.ndarray[Any, np.dtype[np.float64]]
# 8,192 rows x 4,096 dimensions x 8 bytes = 268 MB.
_ROWS_AT_A_TIME = 8192


def mean_of(table: Floats, population: Ints) -> Doubles:
    """Mean in each dimension [width]."""
    total = np.zeros(table.shape[1])
    for chunk in _chunks(population):
        total += table[chunk].sum(axis=0, dtype=np.float64)
    return total / len(population)


def deviation_of(table: Floats, population: Ints, mean: Doubles) -> Doubles:
    """Standard deviation (divided by n) in each dimension [width]."""
    squares = np.zeros(table.shape[1])
    for chunk in _chunks(population):
        squares += ((table[chunk] - mean) ** 2).sum(axis=0)
    return np.sqrt(squares / len(population))


def _chunks(population: Ints) -> list[Ints]:
    return np.array_split(population, max(1, len(population) // _ROWS_AT_A_TIME))


def covariance_factor(table: Floats, population: Ints, mean: Doubles) -> Floats:
    """F [width, width] with F'F = the covariance (divided by n): z F has it if z is standard normal.

    Fewer rows than dimensions, or rows that depend on each other, have no Cholesky factor: then the one by eigenvalues.
    """
    covariance = np.zeros((table.shape[1], table.shape[1]))
    for chunk in _chunks(population):
        centred = table[chunk] - mean
        covariance += centred.T @ centred
    covariance /= len(population)
    try:
        factor = np.linalg.cholesky(covariance).T
    except np.linalg.LinAlgError:
        values, directions = np.linalg.eigh(covariance)
        factor = np.sqrt(np.maximum(values, 0))[:, None] * directions.T
    return np.ascontiguousarray(factor, dtype=np.float32)
