"""From blocks to tensors: labels, positions, and what keeps the documents of a block apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch

from langadapt.core.types import Block
from langadapt.train.loss import IGNORED

# positions: position ids start again at every document and no mask is given; transformers isolates the documents
# 4d: as positions, and an explicit mask; rows: one document a row, padded on the right
Layout = Literal["positions", "4d", "rows"]


@dataclass(frozen=True)
class Batch:
    """One forward pass. `inputs` are the keyword arguments of the model, `labels_BL` are shifted already."""

    inputs: dict[str, Any]
    labels_BL: torch.Tensor


def count_labels(blocks: Sequence[Block]) -> int:
    """Labels of some blocks: every token but the first of each block, whose context lies in another block.

    The separator that opens a document is a label too: predicting it from the end of the document before is how
    a model learns to stop.
    """
    return sum(len(block.tokens) - 1 for block in blocks)


def collate(blocks: Sequence[Block], layout: Layout, device: torch.device) -> Batch:
    """Tensors of a micro-batch; all blocks have the same length."""
    tokens = torch.tensor([list(block.tokens) for block in blocks])
    labels = torch.full_like(tokens, IGNORED)
    labels[:, :-1] = tokens[:, 1:]
    if layout == "rows":
        return _rows(blocks, tokens, labels, device)
    positions = torch.stack([_positions(block) for block in blocks])
    inputs: dict[str, Any] = {"input_ids": tokens.to(device), "position_ids": positions.to(device)}
    if layout == "4d":
        inputs["attention_mask"] = _mask(blocks, tokens.shape[1]).to(device)
    return Batch(inputs, labels.to(device))


def _bounds(block: Block) -> list[tuple[int, int]]:
    edges = sorted({0, *block.starts, len(block.tokens)})
    return list(pairwise(edges))


def _positions(block: Block) -> torch.Tensor:
    return torch.cat([torch.arange(last - first) for first, last in _bounds(block)])


def _mask(blocks: Sequence[Block], length: int) -> torch.Tensor:
    """Additive fp32 mask [B, 1, L, L]: 0 where a token may look (same document, not later), else the lowest number."""
    documents = torch.zeros(len(blocks), length, dtype=torch.long)
    for row, block in enumerate(blocks):
        for number, (first, last) in enumerate(_bounds(block)):
            documents[row, first:last] = number
    seen = (documents[:, :, None] == documents[:, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min).unsqueeze(1)


def _rows(blocks: Sequence[Block], tokens: torch.Tensor, labels: torch.Tensor, device: torch.device) -> Batch:
    pieces = [(row, first, last) for row, block in enumerate(blocks) for first, last in _bounds(block)]
    width = max(last - first for _, first, last in pieces)
    ids = torch.zeros(len(pieces), width, dtype=torch.long)
    mask = torch.zeros(len(pieces), width, dtype=torch.long)
    targets = torch.full((len(pieces), width), IGNORED)
    for number, (row, first, last) in enumerate(pieces):
        ids[number, : last - first] = tokens[row, first:last]
        targets[number, : last - first] = labels[row, first:last]
        mask[number, : last - first] = 1
    return Batch({"input_ids": ids.to(device), "attention_mask": mask.to(device)}, targets.to(device))
