"""Layers of which some rows, columns or single values move: the gradient is made for those only.

The tensor itself is frozen and holds what moves too, so a forward pass multiplies it as it always did. What moves is a
parameter of its own beside it, `weight_moving`; whoever changes that writes it through (`slices.Part.write_through`).
Sharding would not change the arithmetic: a columns' gradient is a sum over tokens for each row of the matrix alone,
a rows' one for each column alone, so matrix and moving part may be cut along the other axis.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from langadapt.train.new_rows import scale_of

MOVING, PLACES, AXIS = "_moving", "_places", "_axis"
# Layers that read the same input: what autograd keeps of it is kept once for all of them.
_SHARED = {"q_proj": 3, "k_proj": 3, "v_proj": 3, "query": 3, "key": 3, "value": 3, "gate_proj": 2, "up_proj": 2,
           "w1": 2, "w3": 2}  # fmt: skip


class _Product(torch.autograd.Function):
    """x W^T + b, or x W + b where W is stored `transposed`; of W's gradient only that of what moves is made."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        moving: torch.Tensor,
        places: torch.Tensor,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
        transposed: bool,
        reads: bool,
        early: bool,
    ) -> torch.Tensor:
        # `reads`: what moves belongs to some of the inputs; `early`: those are picked now, and the others not kept
        given = x.to(dtype)
        kept = given.index_select(-1, places) if early else given
        ctx.save_for_backward(kept, weight, places)
        ctx.plain = (x.dtype, moving.dtype, None if bias is None else bias.dtype, transposed, reads, early)
        with torch.autocast(x.device.type, enabled=False):
            return _product(given, weight.to(dtype), None if bias is None else bias.to(dtype), transposed)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kept, weight, places = ctx.saved_tensors
        own, wide, bias_dtype, transposed, reads, early = ctx.plain
        dy = upstream[0].reshape(-1, upstream[0].shape[-1])
        to_x = to_moving = to_bias = None
        if ctx.needs_input_grad[0]:
            turned = weight.to(dy.dtype)
            to_x = (dy @ (turned.T if transposed else turned)).to(own)
            to_x = to_x.view(*upstream[0].shape[:-1], to_x.shape[-1])
        if ctx.needs_input_grad[2]:
            x = kept.reshape(-1, kept.shape[-1])
            if reads and not early:
                x = x.index_select(1, places)
            some = dy if reads else dy.index_select(1, places)
            to_moving = (x.T @ some if transposed else some.T @ x).to(wide)
        if ctx.needs_input_grad[4]:
            to_bias = dy.sum(0).to(bias_dtype)
        return to_x, None, to_moving, None, to_bias, None, None, None, None


class _Rows(torch.autograd.Function):
    """Rows of a frozen table; the gradient is made for those that move."""

    @staticmethod
    def forward(
        ctx: Any, ids: torch.Tensor, table: torch.Tensor, moving: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(ids, places)
        ctx.dtype = moving.dtype
        return functional.embedding(ids, table).to(moving.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        ids, places = ctx.saved_tensors
        count = len(places)
        at = torch.searchsorted(places, ids.reshape(-1).to(places.dtype)).clamp_(max=count - 1)
        at = torch.where(places[at] == ids.reshape(-1), at, count)
        dy = upstream[0].reshape(-1, upstream[0].shape[-1])
        # one row more, for all that stand still: it is left out
        found = torch.ops.aten.embedding_dense_backward(dy, at, count + 1, count, False)
        return None, None, found[:count].to(ctx.dtype), None


class _Through(torch.autograd.Function):
    """A frozen tensor as it is; of its gradient what belongs to the places that move is handed on."""

    @staticmethod
    def forward(ctx: Any, whole: torch.Tensor, moving: torch.Tensor, places: torch.Tensor, axis: int) -> torch.Tensor:
        ctx.save_for_backward(places)
        ctx.plain = (axis, moving.dtype)
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        axis, dtype = ctx.plain
        return None, upstream[0].index_select(axis, ctx.saved_tensors[0]).to(dtype), None, None


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, transposed: bool) -> torch.Tensor:
    if not transposed:
        return functional.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    made = flat @ weight if bias is None else torch.addmm(bias, flat, weight)
    return made.view(*x.shape[:-1], weight.shape[1])


def _forward(layer: Any, x: torch.Tensor, transposed: bool) -> torch.Tensor:
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    weight, moving, bias = layer.weight, layer.weight_moving, layer.bias
    if not (torch.is_grad_enabled() and (moving.requires_grad or x.requires_grad)):
        return _product(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype), transposed)
    reads = layer.weight_axis == (0 if transposed else 1)
    made: torch.Tensor = _Product.apply(  # type: ignore[no-untyped-call]
        x, weight, moving, layer.weight_places, bias, dtype, transposed, reads,
        # a cast is shared with nobody
        reads and (layer.weight_early or x.dtype != dtype),
    )  # fmt: skip
    return made


class SlicedLinear(nn.Linear):
    """`y = x W^T + b`, some rows or columns of W moving; W may be kept in fewer bytes than what is computed in."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return _forward(self, input, transposed=False)


class _SlicedConv1D(Conv1D):  # type: ignore[misc]
    """`y = x W + b`, the transposed layer of GPT-2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _forward(self, x, transposed=True)


class _SlicedEmbedding(nn.Embedding):
    """An input table some of whose rows move; what is looked up has the dtype of those."""

    scale: float

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        layer: Any = self
        rows: torch.Tensor = _Rows.apply(input, self.weight, layer.weight_moving, layer.weight_places)  # type: ignore[no-untyped-call]
        return rows * self.scale if self.scale != 1.0 else rows


def slice_layer(layer: nn.Module, name: str, moving: nn.Parameter, axis: int, places: torch.Tensor, last: str) -> None:
    """Let `places` [k] along an axis of the parameter `name` of a layer move: they become `moving`.

    `last` is the last part of the layer's name. A layer of a kind that is not known keeps its own forward pass and
    makes the whole gradient of the tensor for a moment.
    """
    layer.register_parameter(f"{name}{MOVING}", moving)
    layer.register_buffer(f"{name}{PLACES}", places, persistent=False)
    setattr(layer, f"{name}{AXIS}", axis)
    known: Any = layer
    if name == "weight" and isinstance(layer, nn.Linear | Conv1D):
        known.weight_early = len(places) * _SHARED.get(last, 1) < known.weight.shape[axis]
        layer.__class__ = _SlicedConv1D if isinstance(layer, Conv1D) else SlicedLinear
        return
    if name == "weight" and isinstance(layer, nn.Embedding) and axis == 0 and _looks_up(layer):
        known.scale = scale_of(layer)
        layer.__class__ = _SlicedEmbedding
        return
    _write_through_property(layer, name)


def _looks_up(layer: nn.Embedding) -> bool:
    """Does a table nothing but look rows up and scale them?"""
    return layer.max_norm is None and layer.padding_idx is None and not layer.sparse and scale_of(layer) is not None


def kind_of(layer: nn.Module) -> type[nn.Module]:
    """The class of a layer, whatever single values of it move."""
    kind: type[nn.Module] = getattr(type(layer), "inner_kind", type(layer))
    return kind


def _write_through_property(layer: nn.Module, name: str) -> None:
    """Make `layer.name` the frozen tensor with a gradient for what moves of it; its parameter keeps its name."""

    def read(self: Any) -> torch.Tensor:
        own, buffers = self._parameters, self._buffers
        made: torch.Tensor = _Through.apply(  # type: ignore[no-untyped-call]
            own[name], own[f"{name}{MOVING}"], buffers[f"{name}{PLACES}"], getattr(self, f"{name}{AXIS}")
        )
        return made

    kind = type(layer)
    layer.__class__ = type(kind.__name__, (kind,), {name: property(read), "inner_kind": kind_of(layer)})


def moving_rows(layer: nn.Module) -> "tuple[torch.Tensor, torch.Tensor] | None":
    """What moves of a linear layer's rows and their places; None if its weight moves as a whole, or not at all."""
    known: Any = layer
    if not isinstance(layer, SlicedLinear):
        return None
    return known.weight_moving, known.weight_places


def table_ids(model: nn.Module) -> Collection[int]:
    """Identities of the parameters with a row a token, parts that move included: of the input table and the head."""
    found = [getattr(model, f"get_{end}_embeddings", lambda: None)() for end in ("input", "output")]
    return {id(value) for module in found if module is not None for value in module.parameters()}


def looked_up_ids(model: nn.Module) -> Collection[int]:
    """Identities of the parameters of which a step reads some rows: tables, and those of positions and the like."""
    found = {
        id(value) for module in model.modules() if isinstance(module, nn.Embedding) for value in module.parameters()
    }
    return found | set(table_ids(model))
