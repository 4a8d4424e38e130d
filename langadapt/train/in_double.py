"""A model computed in float64, without a copy of its weights."""

from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_LINEAR, _EMBEDDING = functional.linear, functional.embedding
# Functions that want one dtype of all that they are given.
_OF_ONE_DTYPE = frozenset({
    functional.layer_norm, functional.rms_norm, functional.group_norm, functional.scaled_dot_product_attention,
    functional.conv1d, torch.addmm, torch.baddbmm, torch.bmm, torch.einsum, torch.matmul, torch.mm, torch.Tensor.bmm,
    torch.Tensor.matmul, torch.Tensor.mm, torch.Tensor.__matmul__,
})  # fmt: skip
# Of a matrix that are widened at once: 0.3 GB at a width of 4,096.
_ROWS = 8192


class InDouble(TorchFunctionMode):
    """Inside the block what a model is given goes through it in float64, whatever its weights are held in."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _LINEAR:
            return _linear(*args, **kwargs)
        if func is _EMBEDDING:
            return func(*args, **kwargs).double()
        # norms and softmax ask for fp32 and go back to what they were given
        if func in (torch.Tensor.to, torch.Tensor.float) and args[0].dtype == torch.float64:
            made = func(*args, **kwargs)
            return args[0].to(made.device) if made.is_floating_point() else made
        if func is functional.softmax and args[0].dtype == torch.float64:
            return func(*args, **{**kwargs, "dtype": torch.float64})
        if func in _OF_ONE_DTYPE:
            args, kwargs = _widened(args), _widened(kwargs)
        return func(*args, **kwargs)


def _linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    given = input.double()
    parts = [_LINEAR(given, part.double()) for part in torch.split(weight, _ROWS)]
    made = torch.cat(parts, dim=-1)
    return made if bias is None else made + bias.double()


def _widened(value: Any) -> Any:
    """With every tensor of floating point in it as float64."""
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, list | tuple):
        return type(value)(map(_widened, value))
    return {key: _widened(one) for key, one in value.items()} if isinstance(value, dict) else value
