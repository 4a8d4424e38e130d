"""A matrix and what moves of it, cut along the other axis as sharding would cut them, learn what the whole learns.

Each shard is the product's own sliced layer with an optimiser of its own. Between shards travels what tensor parallel
layers send anyway (outputs put side by side, or partial sums), and one number: the square of each gradient's norm.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from langadapt.core.types import Slice
from langadapt.train.sliced_layers import slice_layer
from langadapt.train.slices import Part

INPUTS, OUTPUTS, STEPS, CLIP = 12, 20, 5, 0.3
PLACES = {"inputs": [1, 4, 5, 10], "outputs": [0, 3, 8, 13, 19]}


class Shard:
    """Some of a layer's numbers, its moving part and its optimiser."""

    def __init__(self, weight_OI: torch.Tensor, side: str, transposed: bool) -> None:
        stored = (weight_OI.T if transposed else weight_OI).contiguous()
        layer: Any = Conv1D(*weight_OI.shape) if transposed else nn.Linear(*weight_OI.shape[::-1], bias=False)
        layer.weight = nn.Parameter(stored.clone(), requires_grad=False)
        if transposed:
            layer.bias = nn.Parameter(torch.zeros(len(weight_OI)), requires_grad=False)
        axis = (side == "inputs") ^ transposed
        places = torch.tensor(PLACES[side])
        moving = nn.Parameter(stored.index_select(int(axis), places))
        slice_layer(layer, "weight", moving, int(axis), places, "proj")
        self.part = Part("weight", "weight_moving", Slice(int(axis), places.numpy().astype(np.int32)), layer)
        self.layer, self.moving, self.transposed = layer, moving, transposed
        self.adam = torch.optim.AdamW([moving], lr=0.01, weight_decay=0.3)

    @property
    def weight_OI(self) -> torch.Tensor:
        whole = self.part.whole.detach()
        return whole.T if self.transposed else whole


def learn(shards: list[Shard], forward: Callable[[torch.Tensor], torch.Tensor]) -> None:
    random = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        x = torch.randn(7, INPUTS, generator=random)
        goal = torch.randn(7, OUTPUTS, generator=random)
        (forward(x) - goal).square().sum().backward()
        squares = [float(shard.moving.grad.double().square().sum()) for shard in shards]  # type: ignore[union-attr]
        norm = torch.tensor(sum(squares) ** 0.5)
        for shard in shards:
            torch.nn.utils.clip_grads_with_norm_([shard.moving], CLIP, norm)
            shard.adam.step()
            shard.adam.zero_grad()
            shard.part.write_through()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("side", PLACES)
def test_two_shards_learn_what_the_whole_learns(side: str, transposed: bool) -> None:
    weight_OI = torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(0))
    whole = Shard(weight_OI, side, transposed)
    learn([whole], whole.layer)
    # what moves are inputs: cut the outputs, and the other way round
    cut = 0 if side == "inputs" else 1
    at = weight_OI.shape[cut] // 2
    shards = [Shard(part, side, transposed) for part in weight_OI.split(at, dim=cut)]
    if cut == 0:
        learn(shards, lambda x: torch.cat([shard.layer(x) for shard in shards], dim=1))
    else:
        learn(
            shards,
            lambda x: sum((s.layer(part) for s, part in zip(shards, x.split(at, dim=1), strict=True)), torch.zeros(())),
        )
    together = torch.cat([shard.weight_OI for shard in shards], dim=cut)
    # sums in another order
    torch.testing.assert_close(together, whole.weight_OI, rtol=1e-5, atol=1e-6)
    axis = 1 if side == "inputs" else 0
    still = [place for place in range(weight_OI.shape[axis]) if place not in PLACES[side]]
    moved = (together != weight_OI).any(dim=1 - axis)
    assert not bool(moved[still].any()) and bool(moved[PLACES[side]].all())
