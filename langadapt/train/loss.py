"""Summed cross entropy of next tokens: from logits without an fp32 copy, or from hidden states without the logits."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

IGNORED = -100
# 2**23 fp32 numbers are 32 MiB of scratch memory; larger pieces were not faster on CPU.
PIECE_NUMBERS = 2**23
# Pieces of the head's product want more rows: each one reads and writes the whole gradient of the head once. At
# 53k rows 2**26 numbers were as fast as one product, 2**24 cost 12 % of the head's time (docs/cpt.md).
HEAD_PIECE_NUMBERS = 2**26
# Below this the logits are small beside everything else, and the model's own code makes them.
HEAD_PIECES_FROM = 2**25
_FEWEST_ROWS = 128


@dataclass(frozen=True)
class Bend:
    """What a model does to its logits after the head's product: z -> cap x tanh(scale x z / cap)."""

    scale: float = 1.0
    cap: float | None = None

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Bent logits, in place."""
        if self.scale != 1.0:
            logits.mul_(self.scale)
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    def backward(self, gradient: torch.Tensor, bent: torch.Tensor) -> torch.Tensor:
        """Gradient to the plain logits, in place: d cap tanh(z/cap) / dz = 1 - (bent/cap)^2."""
        if self.cap is not None:
            gradient.mul_(1.0 - (bent / self.cap).square_())
        return gradient if self.scale == 1.0 else gradient.mul_(self.scale)


class _SummedCrossEntropy(torch.autograd.Function):
    """Forward computes loss and gradient together, a few rows at a time; backward hands the gradient out.

    torch's own path keeps the logits, their fp32 copy and the log-softmax until backward (at 1,024 x 53,152 that is
    0.5 GB); here the logits and one gradient of the same dtype live.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor, labels_N: torch.Tensor, divisor: float) -> torch.Tensor:
        gradient_NV = torch.empty_like(logits_NV)
        total = torch.zeros((), dtype=torch.float64, device=logits_NV.device)
        for piece in _pieces(logits_NV.shape[0], max(1, PIECE_NUMBERS // logits_NV.shape[1])):
            # a copy also of fp32 logits: the model's own code may need them for its backward pass
            logits = logits_NV[piece].to(torch.float32, copy=True)
            loss, share = _loss_and_share(logits, labels_N[piece], divisor)
            total += loss
            gradient_NV[piece] = share
        ctx.save_for_backward(gradient_NV)
        return (total / divisor).float()

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient_NV,) = ctx.saved_tensors
        return gradient_NV.mul_(upstream[0].to(gradient_NV.dtype)), None, None


class _HeadCrossEntropy(torch.autograd.Function):
    """The head's product, the loss and both gradients, some rows at a time: the logits never exist as a whole.

    What lives is one piece in fp32 and in the dtype of the product, and the gradients to hidden states and head.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        labels_N: torch.Tensor,
        divisor: float,
        bend: Bend,
        moving_KH: torch.Tensor | None,
        rows_K: torch.Tensor | None,
    ) -> torch.Tensor:
        kind = hidden_NH.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_NH.dtype
        moves_hidden, moves_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        # of a head some of whose rows move, the gradient is made for these only
        own = moving_KH if moving_KH is not None and ctx.needs_input_grad[6] else weight_VH if moves_weight else None
        moves_bias = bias_V is not None and ctx.needs_input_grad[2]
        hidden_gradient = torch.empty_like(hidden_NH) if moves_hidden else None
        weight_gradient = None if own is None else torch.empty_like(own, dtype=torch.float32)
        bias_gradient = torch.zeros_like(bias_V, dtype=torch.float32) if moves_bias and bias_V is not None else None
        total = torch.zeros((), dtype=torch.float64, device=hidden_NH.device)
        rows = max(_FEWEST_ROWS, HEAD_PIECE_NUMBERS // weight_VH.shape[0])
        with torch.autocast(kind, enabled=False):
            weight = weight_VH.to(dtype)
            bias = None if bias_V is None else bias_V.to(dtype)
            for piece in _pieces(hidden_NH.shape[0], rows):
                hidden = hidden_NH[piece].to(dtype)
                gradient = torch.nn.functional.linear(hidden, weight, bias)
                total += _gradient_in_place(gradient, labels_N[piece], divisor, bend)
                if hidden_gradient is not None:
                    hidden_gradient[piece] = gradient @ weight
                if weight_gradient is not None:
                    some = gradient if own is weight_VH or rows_K is None else gradient.index_select(1, rows_K)
                    _add_product(weight_gradient, some, hidden, first=piece.start == 0)
                if bias_gradient is not None:
                    bias_gradient += gradient.sum(0, dtype=torch.float32)
        made = None if weight_gradient is None or own is None else weight_gradient.to(own.dtype)
        ctx.gradients = (
            hidden_gradient,
            made if own is weight_VH else None,
            None if bias_gradient is None or bias_V is None else bias_gradient.to(bias_V.dtype),
            made if own is not weight_VH else None,
        )
        return (total / divisor).float()

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients = tuple(None if value is None else value.mul_(upstream[0].to(value.dtype)) for value in ctx.gradients)
        # The head's gradient is as large as the head: nothing may hold it once it is handed out
        ctx.gradients = ()
        return (*gradients[:3], None, None, None, gradients[3], None)


def _pieces(length: int, rows: int) -> Iterator[slice]:
    for first in range(0, length, rows):
        yield slice(first, min(first + rows, length))


def _loss_and_share(logits: torch.Tensor, labels: torch.Tensor, divisor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss of some rows of fp32 logits, and its gradient, divided; the logits are used up."""
    counted = (labels != IGNORED).unsqueeze(1)
    target = labels.clamp(min=0).unsqueeze(1)
    log_total = logits.logsumexp(dim=1, keepdim=True)
    losses = (log_total - logits.gather(1, target)).masked_fill(~counted, 0.0)
    # d loss / d logit = softmax - onehot, in fp32 and already divided, so that it is rounded only once
    share = logits.sub_(log_total).exp_()
    share.scatter_add_(1, target, torch.full_like(losses, -1.0))
    return losses.sum(dtype=torch.float64), share.mul_(counted.float() / divisor)


def _gradient_in_place(logits: torch.Tensor, labels: torch.Tensor, divisor: float, bend: Bend) -> torch.Tensor:
    """Replace plain logits by the gradient to them, a few rows of fp32 at a time; returns the summed loss."""
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    for piece in _pieces(logits.shape[0], max(1, PIECE_NUMBERS // logits.shape[1])):
        plain = logits[piece].to(torch.float32, copy=True)
        bent = bend.forward(plain)
        kept = bent.clone() if bend.cap is not None else bent
        loss, share = _loss_and_share(bent, labels[piece], divisor)
        total += loss
        logits[piece] = bend.backward(share, kept)
    return total


def _add_product(total_VH: torch.Tensor, gradient: torch.Tensor, hidden: torch.Tensor, *, first: bool) -> None:
    """total (+)= gradient.T @ hidden, in fp32, some rows of the table at a time so that the product stays small."""
    for rows in _pieces(total_VH.shape[0], max(1, PIECE_NUMBERS // total_VH.shape[1] // 2)):
        product = gradient[:, rows].T @ hidden
        if first:
            total_VH[rows] = product
        else:
            total_VH[rows] += product


def cross_entropy(logits_BLV: torch.Tensor, labels_BL: torch.Tensor, divisor: int) -> torch.Tensor:
    """Sum of the cross entropies (nats) at labels other than -100, over `divisor`; labels are shifted already.

    The divisor is the number of labels of the whole optimiser step, so that accumulated micro-batches add up to
    the exact mean whatever their sizes. Backward may be called once.
    """
    logits_NV = logits_BLV.reshape(-1, logits_BLV.shape[-1])
    loss: torch.Tensor = _SummedCrossEntropy.apply(logits_NV, labels_BL.reshape(-1), float(divisor))  # type: ignore[no-untyped-call]
    return loss


def head_cross_entropy(
    hidden_BLH: torch.Tensor,
    weight_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
    labels_BL: torch.Tensor,
    divisor: int,
    bend: Bend,
    rows: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """`cross_entropy` of the logits that head and bend would make of hidden states, without making them all.

    `rows` are those of a frozen head that move, and their numbers; the gradient is made for them alone.
    Products are in the autocast dtype, else in that of the hidden states; the loss in fp32. Backward may be called
    once.
    """
    loss: torch.Tensor = _HeadCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_BLH.reshape(-1, hidden_BLH.shape[-1]), weight_VH, bias_V, labels_BL.reshape(-1), float(divisor), bend,
        *((None, None) if rows is None else rows),
    )  # fmt: skip
    return loss
