"""Summed cross entropy of next tokens without an fp32 copy of the logits."""

from typing import Any

import torch

IGNORED = -100
# 2**23 fp32 numbers are 32 MiB of scratch memory; larger pieces were not faster on CPU.
_PIECE_NUMBERS = 2**23


class _SummedCrossEntropy(torch.autograd.Function):
    """Forward computes loss and gradient together, a few rows at a time; backward hands the gradient out.

    torch's own path keeps the logits, their fp32 copy and the log-softmax until backward (at 1,024 x 53,152 that is
    0.5 GB); here the logits and one gradient of the same dtype live.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor, labels_N: torch.Tensor, divisor: float) -> torch.Tensor:
        gradient_NV = torch.empty_like(logits_NV)
        total = torch.zeros((), dtype=torch.float64, device=logits_NV.device)
        rows = max(1, _PIECE_NUMBERS // logits_NV.shape[1])
        for first in range(0, logits_NV.shape[0], rows):
            piece = slice(first, first + rows)
            labels = labels_N[piece]
            counted = (labels != IGNORED).unsqueeze(1)
            target = labels.clamp(min=0).unsqueeze(1)
            logits = logits_NV[piece].float()
            log_total = logits.logsumexp(dim=1, keepdim=True)
            losses = (log_total - logits.gather(1, target)).masked_fill(~counted, 0.0)
            total += losses.sum(dtype=torch.float64)
            # d loss / d logit = softmax - onehot, in fp32 and already divided, so that it is rounded only once
            share = (logits - log_total).exp_()
            share.scatter_add_(1, target, torch.full_like(losses, -1.0))
            gradient_NV[piece] = share.mul_(counted.float() / divisor)
        ctx.save_for_backward(gradient_NV)
        return (total / divisor).float()

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient_NV,) = ctx.saved_tensors
        return gradient_NV.mul_(upstream[0].to(gradient_NV.dtype)), None, None


def cross_entropy(logits_BLV: torch.Tensor, labels_BL: torch.Tensor, divisor: int) -> torch.Tensor:
    """Sum of the cross entropies (nats) at labels other than -100, over `divisor`; labels are shifted already.

    The divisor is the number of labels of the whole optimiser step, so that accumulated micro-batches add up to
    the exact mean whatever their sizes. Backward may be called once.
    """
    logits_NV = logits_BLV.reshape(-1, logits_BLV.shape[-1])
    loss: torch.Tensor = _SummedCrossEntropy.apply(logits_NV, labels_BL.reshape(-1), float(divisor))  # type: ignore[no-untyped-call]
    return loss
