"""One token by chance: the most probable ones that together have a given probability, drawn from a named stream."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


class Nucleus:
    """Draws from the smallest set of tokens that has probability `top_p` (Holtzman et al. 2020, nucleus sampling).

    Probabilities are those of logits divided by `temperature`. One number of `random` is used for a token, whatever
    the vocabulary: models side by side are given the same luck.
    """

    def __init__(self, random: np.random.Generator, *, temperature: float, top_p: float) -> None:
        self._random, self._temperature, self._top_p = random, temperature, top_p

    def __call__(self, logits_V: "torch.Tensor") -> int:
        """The id of the token that was drawn."""
        return draw(logits_V.double().cpu().numpy(), self._random.random(), self._temperature, self._top_p)


def draw(logits_V: np.ndarray, luck: float, temperature: float, top_p: float) -> int:
    """The token at `luck` (0 to 1) of the nucleus, tokens in order of probability; equal ones in order of id."""
    scaled = logits_V / temperature
    order = np.argsort(-scaled, kind="stable")
    order = order[: int(np.isfinite(scaled).sum())]
    weights = np.exp(scaled[order] - scaled[order[0]])
    reached = np.cumsum(weights / weights.sum())
    # the token that crosses `top_p` belongs to the set; rounding may leave the sum of all below 1
    size = min(int(np.searchsorted(reached, top_p)) + 1, len(order))
    at = int(np.searchsorted(reached[:size], luck * reached[size - 1], side="right"))
    return int(order[min(at, size - 1)])
