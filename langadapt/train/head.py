"""The last product of a model, taken out of its forward pass so that the loss can do it a piece at a time.

A model's own code may do more to the logits than multiply (a cap, a scale, something nobody thought of). What is
known is read from its configuration, and the result is shown on the loaded model before it is relied upon.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from langadapt.train.batches import Batch
from langadapt.train.loss import HEAD_PIECES_FROM, Bend, cross_entropy, head_cross_entropy
from langadapt.train.sliced_layers import SlicedLinear, kind_of, moving_rows
from langadapt.train.stored import StoredLinear

# fp32 rounding between one product and another is 1e-6 of the largest logit; a cap that was missed is 1e-2 and more.
_TOLERANCE = 1e-4
_PROBE_TOKENS = 16


@dataclass(frozen=True)
class Head:
    """A linear head whose product the loss may do; `module` is where the model calls it."""

    module: nn.Module
    linear: nn.Linear
    bend: Bend


def find_head(model: nn.Module) -> Head | None:
    """The head of a model if it is a plain linear layer and it is shown that the loss can do its work; else None."""
    module = getattr(model, "get_output_embeddings", lambda: None)()
    if module is None:
        return None
    linear = _plain(module)
    if linear is None:
        return None
    config = getattr(model, "config", None)
    text = config.get_text_config() if config is not None else None
    head = Head(module, linear, _bend(text))
    return head if _shown(model, head) else None


def _plain(module: nn.Module) -> nn.Linear | None:
    """The module if it is a linear layer; a subclass (adapters, quantised layers) may multiply differently."""
    kind = kind_of(module)
    if not isinstance(module, nn.Linear) or kind not in (nn.Linear, StoredLinear, SlicedLinear):
        return None
    return module if kind is not SlicedLinear or moving_rows(module) is not None else None


def _bend(config: Any) -> Bend:
    """From the names that transformers' configurations use; 0 and None mean nothing is done."""
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return Bend(scale, float(cap) if cap else None)


@torch.no_grad()
def _shown(model: nn.Module, head: Head) -> bool:
    """Are the logits of a few tokens those that the model gives?"""
    device = head.linear.weight.device
    ids = torch.arange(_PROBE_TOKENS, device=device).unsqueeze(0) % head.linear.weight.shape[0]
    batch = Batch({"input_ids": ids}, ids)
    training = model.training
    model.eval()
    try:
        expected = forward(model, batch).float()
        hidden = _hidden_states(model, batch, head)
    finally:
        model.train(training)
    if hidden is None or hidden.shape[-1] != head.linear.weight.shape[1]:
        return False
    found = head.bend.forward(head.linear(hidden).float())
    if found.shape != expected.shape:
        return False
    return float((found - expected).abs().max()) <= _TOLERANCE * max(1e-30, float(expected.abs().max()))


def forward(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Logits [B, L, V] of a batch; no key-value cache is built."""
    logits: torch.Tensor = _call(model, batch).logits
    return logits


def loss_of(model: nn.Module, batch: Batch, divisor: int, head: Head | None) -> torch.Tensor:
    """Summed cross entropy of a batch over `divisor`; by pieces where the logits would be large.

    The choice depends on shapes alone, so it is the same after a restart.
    """
    tokens = batch.labels_BL.numel()
    if head is not None and tokens * head.linear.weight.shape[0] > HEAD_PIECES_FROM:
        hidden = _hidden_states(model, batch, head)
        if hidden is not None:
            return head_cross_entropy(
                hidden, head.linear.weight, head.linear.bias, batch.labels_BL, divisor, head.bend,
                moving_rows(head.linear),
            )  # fmt: skip
    return cross_entropy(forward(model, batch), batch.labels_BL, divisor)


def _hidden_states(model: nn.Module, batch: Batch, head: Head) -> torch.Tensor | None:
    """What the head is given in a forward pass; the product itself is left out."""
    with _caught(head.module) as seen:
        _call(model, batch)
    return seen[0] if len(seen) == 1 else None


@contextmanager
def _caught(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Inside the block the module returns no logits and keeps what it was given."""
    seen: list[torch.Tensor] = []

    def keep(hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        seen.append(hidden)
        return hidden[..., :0]

    own = vars(module).get("forward")
    module.forward = keep
    try:
        yield seen
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def _call(model: nn.Module, batch: Batch) -> Any:
    extra: dict[str, Any] = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    return model(**batch.inputs, **extra)
