"""What a step makes smaller: the loss of some blocks, and what the sum over a step is divided by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from langadapt.core.types import Block
from langadapt.train.batches import Layout, collate, count_labels
from langadapt.train.head import Head, loss_of

_LIGHTER = (
    "lower `-o micro_batch_blocks`, give `--gradient-checkpointing on`, use shorter blocks "
    "(`mix --block-tokens`), or `--strategy embeddings`; `--dry-run` shows what each needs"
)


@dataclass(frozen=True)
class Objective:
    """`loss(blocks, count(all blocks of the step))`, added up over the micro-batches of a step, is the step's loss.

    `size` orders micro-batches by the memory they take; `lighter` says what to do when there is not enough. Text that
    makes a step fail can be left out by a branch where `can_leave_out`.
    """

    count: Callable[[Sequence[Block]], int]
    loss: Callable[[Sequence[Block], int], torch.Tensor]
    size: Callable[[Sequence[Block]], int]
    lighter: str = _LIGHTER
    can_leave_out: bool = True


def next_token(model: nn.Module, layout: Layout, head: Head | None) -> Objective:
    """The mean cross entropy of the next token over all labels of a step; `head` lets the loss do the last product."""
    device = next(model.parameters()).device

    def size(blocks: Sequence[Block]) -> int:
        return collate(blocks, layout, torch.device("cpu")).labels_BL.numel()

    def loss(blocks: Sequence[Block], labels: int) -> torch.Tensor:
        return loss_of(model, collate(blocks, layout, device), labels, head)

    return Objective(count_labels, loss, size)
