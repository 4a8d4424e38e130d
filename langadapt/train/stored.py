"""Frozen matrices kept in memory as the file stores them, in 2 bytes a number where that is 2 bytes.

The rest of the model is fp32: what is trained, and norms and biases, which are small and which not every kernel takes
in another precision than its input. A half-precision number is exactly representable in fp32, so nothing that is
computed changes; only memory does.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from langadapt.train.new_rows import scale_of

STAYS_STORED = (nn.Linear, Conv1D)


class StoredLinear(nn.Linear):
    """`y = x W^T + b`; outside autocast W is widened for the time of the product."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.linear(input, _as(input, self.weight), self.bias)


class _StoredConv1D(Conv1D):  # type: ignore[misc]
    """`y = x W + b`, the transposed layer of GPT-2; outside autocast W is widened for the time of the product."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), _as(x, self.weight))
        return flat.view(*x.shape[:-1], self.nf)


class _StoredEmbedding(nn.Embedding):
    """Rows of a table that is kept narrow because the head is it, widened: the states between layers are fp32."""

    scale: float

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.embedding(input, self.weight).float() * self.scale


def is_stored(module: nn.Module) -> bool:
    """Is this one of the layers that widen their weight themselves?"""
    return isinstance(module, StoredLinear | _StoredConv1D)


def _as(given: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight if torch.is_autocast_enabled(given.device.type) else weight.to(given.dtype)


def keep_stored(model: nn.Module, trained: Collection[str], stored_as: Callable[[str], torch.dtype]) -> int:
    """Narrow the weights of linear layers that are not `trained` to their stored dtype; returns the bytes saved.

    `stored_as` gives the dtype of a parameter by the name it has in the model.
    """
    moving = {id(value) for name, value in model.named_parameters() if name in trained}
    # a tied head has the name of the input table: its own is in no file
    names = {id(value): name for name, value in model.named_parameters()}
    saved = 0
    for module in model.modules():
        if type(module) not in STAYS_STORED:
            continue
        value: Any = module.weight
        if id(value) in moving:
            continue
        dtype = stored_as(names[id(value)])
        if dtype.itemsize < 4 and dtype.is_floating_point:
            value.data = value.data.to(dtype)
            module.__class__ = StoredLinear if isinstance(module, nn.Linear) else _StoredConv1D
            saved += value.numel() * (4 - dtype.itemsize)
    for module in model.modules():
        scale = scale_of(module) if isinstance(module, nn.Embedding) and module.weight.dtype.itemsize < 4 else None
        if scale is not None:
            module.__class__ = _StoredEmbedding
            setattr(module, "scale", scale)  # noqa: B010 (mypy takes it for a layer)
    return saved
