"""Proof, on the loaded model, that the documents packed into one block do not see each other.

Whether position ids that start again isolate documents depends on the model family and its attention, silently. So
two things are shown before training: changing an earlier document changes nothing in the later ones, and packed
documents get the logits that they get alone. The second catches masks that isolate but are wrong otherwise.
"""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from langadapt.core.errors import DataError
from langadapt.core.rng import stream
from langadapt.core.types import Block
from langadapt.train.batches import Layout, collate
from langadapt.train.head import forward

# fp32 rounding differs between batch shapes: 1e-6 to 1e-4 of the largest logit was seen, leaks move logits by 1 to 5.
_TOLERANCE = 1e-3
_SHORT = 48


@dataclass(frozen=True)
class Proof:
    """What was found: the layout that isolates, and the largest difference of a logit it showed."""

    layout: Layout
    largest_difference: float
    refused: tuple[str, ...] = ()


def prove_isolation(model: nn.Module, *, vocabulary: int, block_tokens: int, separator: int) -> Proof:
    """The first of `positions`, `4d`, `rows` that keeps documents apart in this model; DataError if none does."""
    refused = []
    layouts: tuple[Layout, ...] = ("positions", "4d", "rows")
    training = model.training
    model.eval()
    try:
        for layout in layouts:
            if layout != "rows" and not _takes_positions(model):
                refused.append(f"{layout}: the model takes no position ids")
                continue
            difference = _largest_difference(model, layout, _lengths(model, block_tokens), vocabulary, separator)
            if difference <= _TOLERANCE:
                return Proof(layout, difference, tuple(refused))
            if math.isnan(difference):
                raise DataError(
                    f"this {type(model).__name__} computes NaN or infinity on plain text",
                    hint="its weights are damaged: copy the model again",
                )
            refused.append(f"{layout}: logits differ by {difference:.2g} of the largest")
    finally:
        model.train(training)
    raise DataError(
        f"documents cannot be kept apart in this {type(model).__name__} ({'; '.join(refused)})",
        hint="use a causal language model: its outputs may depend on earlier tokens of the same document only",
    )


def _takes_positions(model: nn.Module) -> bool:
    return "position_ids" in inspect.signature(model.forward).parameters


def _lengths(model: nn.Module, block_tokens: int) -> tuple[int, ...]:
    """Lengths of three documents; one is longer than a sliding window if a block can be, or the window goes unseen."""
    config = getattr(model, "config", None)
    window = getattr(config.get_text_config(), "sliding_window", None) if config is not None else None
    total = min(block_tokens, _SHORT)
    if isinstance(window, int) and window < block_tokens:
        total = min(block_tokens, max(total, 2 * window))
    first = max(1, total // 5)
    second = max(1, total // 6)
    return (first, second, max(1, total - first - second))


def _largest_difference(
    model: nn.Module, layout: Layout, lengths: Sequence[int], vocabulary: int, separator: int
) -> float:
    """Largest difference of a logit over both assertions, as a share of the largest logit; infinity if it fails."""
    random = stream(0, "isolation")
    documents = [[separator, *random.integers(vocabulary, size=length - 1).tolist()] for length in lengths]
    changed = [[separator, *random.integers(vocabulary, size=lengths[0] - 1).tolist()], *documents[1:]]
    try:
        packed = _logits_by_document(model, documents, layout)
        disturbed = _logits_by_document(model, changed, layout)
        alone = [_logits_by_document(model, [document], "positions" if layout == "4d" else layout)[0]
                 for document in documents]  # fmt: skip
    except (ValueError, TypeError, RuntimeError, IndexError, NotImplementedError):
        return float("inf")  # this architecture refuses such a mask or such positions
    scale = 1e-30 + max(float(logits.abs().max()) for logits in alone)
    pairs = [*zip(packed[1:], disturbed[1:], strict=True), *zip(packed, alone, strict=True)]
    return max(float((one - other).abs().max()) for one, other in pairs) / scale


@torch.no_grad()
def _logits_by_document(model: nn.Module, documents: Sequence[Sequence[int]], layout: Layout) -> list[torch.Tensor]:
    tokens = [token for document in documents for token in document]
    starts = [sum(map(len, documents[:number])) for number in range(len(documents))]
    device = next(model.parameters()).device
    batch = collate([Block(tokens, starts, "", 0, 0)], layout, device)
    logits = forward(model, batch).float()
    if layout == "rows":
        return [logits[row, : len(document)] for row, document in enumerate(documents)]
    return [logits[0, first : first + len(document)] for first, document in zip(starts, documents, strict=True)]
