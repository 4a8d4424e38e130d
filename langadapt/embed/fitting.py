"""Linear maps from one space to another, fitted on anchors x [m, d], y [m, width]; and how well they do on hidden ones.

ridge   y - centre = (x - centre)/s M, M = (X'X + p I)^-1 X'Y; p by leave-one-out: residuals over 1 - h, h the
        diagonal of the hat matrix (Allen 1974)
ortho   both standardised, rows scaled to length 1, padded to one width; M = UV' of the SVD of X'Y (Schoenemann 1966)
sgd     the same, z = x W' + c by Adam on the mean squared error, as SAVA was published
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from langadapt.core import interrupt
from langadapt.embed.rotation import Doubles, procrustes, widened
from langadapt.embed.types import Floats

Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]
# Penalties that leave-one-out chooses from, in mean squares of a dimension: 17, half a decade apart.
_PENALTIES = 10.0 ** np.arange(-5, 3.5, 0.5)
# Leave-one-out residuals are computed for so many anchors at most; the fit is on all.
_LEFT_OUT = 2048
# 4,096 rows x 4,096 dimensions x 8 bytes = 134 MB.
_ROWS_AT_A_TIME = 4096
# Below it a singular value is rounding.
_RANK = 1e-10


@dataclass(frozen=True)
class Fit:
    """Rows [n, width] of a helper's rows x are `vectors(x)` times `matrix` plus `offset`."""

    centre: Doubles
    scale: Doubles
    unit_rows: bool
    matrix: Doubles
    offset: Doubles
    penalty: float | None = None

    def vectors(self, x: Floats) -> Doubles:
        """Helper rows [n, d] as the map takes them."""
        moved = (x - self.centre) / self.scale
        return _unit_rows(moved) if self.unit_rows else moved

    def __call__(self, x: Floats) -> Doubles:
        """Predicted rows [n, width]."""
        return np.asarray(self.vectors(x) @ self.matrix + self.offset)


def fit(
    x: Floats,
    y: Floats,
    how: Literal["ridge", "ortho", "sgd"],
    random: np.random.Generator,
    *,
    penalty: float | None = None,
    steps: int = 1000,
    rate: float = 1e-3,
) -> Fit:
    """Fit a map on anchors. `random` draws the first weights of `sgd`; `penalty`, `steps` and `rate` see above."""
    centre, middle = x.mean(axis=0, dtype=np.float64), y.mean(axis=0, dtype=np.float64)
    scale = _deviation(x)
    if how == "ridge":
        matrix, used = _ridge((x - centre) / scale, y, middle, penalty)
        return Fit(centre, scale, False, matrix, middle, used)
    height = _deviation(y)
    standard = (y - middle) / height
    length = float(np.linalg.norm(standard, axis=1).mean())
    source, target = _unit_rows((x - centre) / scale), _unit_rows(standard)
    back = length * height
    if how == "ortho":
        width = max(x.shape[1], y.shape[1])
        rotation = procrustes(widened(source, width), widened(target, width))
        return Fit(centre, scale, True, rotation[: x.shape[1], : y.shape[1]] * back, middle)
    weights, bias = _descend(source, target, random, steps, rate)
    return Fit(centre, scale, True, weights * back, bias * back + middle)


def held_out_cosine(fitted: Callable[[Flags], Fit], x: Floats, y: Floats, folds: int) -> float:
    """Mean cosine of true and predicted rows of anchors that their map has not seen, both less the mean of its anchors.

    0 is what the mean row would get, 1 is perfect. Anchor i is hidden in part i mod `folds`.
    """
    part = np.arange(len(x)) % folds
    total = 0.0
    for number in range(folds):
        interrupt.poll()
        hidden = part == number
        middle = y[~hidden].mean(axis=0, dtype=np.float64)
        predicted, true = fitted(~hidden)(x[hidden]) - middle, y[hidden] - middle
        lengths = np.linalg.norm(predicted, axis=1) * np.linalg.norm(true, axis=1)
        total += float(((predicted * true).sum(axis=1) / np.maximum(lengths, 1e-30)).sum())
    return total / len(x)


def _ridge(x: Doubles, y: Floats, middle: Doubles, penalty: float | None) -> tuple[Doubles, float]:
    """(M [d, width], penalty used) for centred x, and y with its mean."""
    squares, directions = np.linalg.eigh(x.T @ x)
    kept = squares > _RANK * max(float(squares[-1]), 1e-30)
    squares, directions = squares[kept], directions[:, kept]
    if not len(squares):
        return np.zeros((x.shape[1], y.shape[1])), penalty or 0.0
    # the sum of squares of a dimension: the penalty means the same for any helper and any number of anchors
    unit = float((x * x).sum()) / x.shape[1]
    across = directions.T @ _times_centred(x, y, middle)
    if penalty is None:
        penalty = _best_penalty(x, y, middle, squares, directions, across, unit)
    return directions @ (across / (squares + penalty * unit)[:, None]), penalty


def _times_centred(x: Doubles, y: Floats, middle: Doubles) -> Doubles:
    """x'(y - middle) in float64, of which y is never whole."""
    found = np.zeros((x.shape[1], y.shape[1]))
    for start in range(0, len(x), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        found += x[part].T @ (y[part] - middle)
    return found


def _best_penalty(
    x: Doubles, y: Floats, middle: Doubles, squares: Doubles, directions: Doubles, across: Doubles, unit: float
) -> float:
    """The penalty with the smallest leave-one-out error on evenly spread anchors; of equal ones the larger."""
    some = np.unique(np.linspace(0, len(x) - 1, min(len(x), _LEFT_OUT)).astype(np.int64))
    turned, true = x[some] @ directions, y[some] - middle
    errors = []
    for candidate in _PENALTIES:
        interrupt.poll()
        shrunk = squares + candidate * unit
        hat = (turned * turned / shrunk).sum(axis=1) + 1 / len(x)
        left = (true - turned @ (across / shrunk[:, None])) / np.maximum(1 - hat, 1e-9)[:, None]
        errors.append(float((left * left).sum()))
    return float(_PENALTIES[len(errors) - 1 - int(np.argmin(errors[::-1]))])


def _descend(x: Doubles, y: Doubles, random: np.random.Generator, steps: int, rate: float) -> tuple[Doubles, Doubles]:
    """(W' [d, width], c [width]) by Adam over all anchors at once, from the usual first weights of a linear layer."""
    import torch

    # the published map is between padded spaces: padding adds dimensions that are zero, and to the mean of the loss
    width = max(x.shape[1], y.shape[1])
    source, target = (torch.from_numpy(widened(part, width)).float() for part in (x, y))
    bound = 1 / np.sqrt(width)
    weight = torch.from_numpy(random.uniform(-bound, bound, (width, width)).astype(np.float32)).requires_grad_()
    bias = torch.from_numpy(random.uniform(-bound, bound, width).astype(np.float32)).requires_grad_()
    optimizer = torch.optim.Adam([weight, bias], lr=rate)
    for _ in range(steps):
        interrupt.poll()
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(source @ weight + bias, target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    weights: Doubles = weight.detach().double().numpy()[: x.shape[1], : y.shape[1]]
    return weights, bias.detach().double().numpy()[: y.shape[1]]


def _deviation(values: Floats) -> Doubles:
    """Standard deviation in each dimension, divided by n - 1; 1 where a dimension is constant."""
    if len(values) < 2:
        return np.ones(values.shape[1])
    found = values.astype(np.float64).std(axis=0, ddof=1)
    return np.where(found > 1e-12, found, 1.0)


def _unit_rows(values: Doubles) -> Doubles:
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))
