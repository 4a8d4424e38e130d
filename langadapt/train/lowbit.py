"""Moments of 8 or 4 bits, and weights of 16 bits moved by stochastic rounding: torchao's AdamW, made exact to go on.

torchao is an optional extra (`pip install langadapt[lowbit]`); this is the only module that imports it.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from langadapt.core.errors import ConfigError
from langadapt.model.surroundings import quiet_torchao

Moments = Literal["fp32", "8bit", "4bit"]
# Numbers that share a scale, as torchao and bitsandbytes have them; smaller tensors keep fp32 moments.
_BLOCK = {"8bit": 256, "4bit": 128}
_SMALLEST = 4096


def check_installed() -> None:
    """ConfigError if torchao is not there."""
    quiet_torchao()
    try:
        import torchao.optim  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "low-bit moments and bf16 weights need torchao", hint="pip install 'langadapt[lowbit]'"
        ) from error


def make_adam(
    groups: Sequence[Mapping[str, Any]], *, betas: tuple[float, float], epsilon: float, rounds: bool
) -> torch.optim.Optimizer:
    """torchao's AdamW; with `rounds` bf16 weights are rounded stochastically. Moments come from `new_moment`."""
    from torchao.optim import AdamW8bit

    adam: torch.optim.Optimizer = AdamW8bit(
        [dict(group) for group in groups], lr=0.0, betas=betas, eps=epsilon, bf16_stochastic_round=rounds
    )
    return adam


def new_moment(parameter: torch.Tensor, moments: Moments, *, signed: bool) -> torch.Tensor:
    """A moment of zeros: quantised where the tensor is large enough and a whole number of blocks, else fp32."""
    block = _BLOCK.get(moments, 0)
    if not block or parameter.numel() < _SMALLEST or parameter.numel() % block:
        return torch.zeros_like(parameter, dtype=torch.float32)
    from torchao.optim.subclass_4bit import OptimState4bit
    from torchao.optim.subclass_8bit import OptimState8bit

    kind = OptimState8bit if moments == "8bit" else OptimState4bit
    zeros: torch.Tensor = kind.zeros(parameter.shape, signed, block, parameter.device, dtype=torch.float32)
    return zeros


def parts(moment: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a moment consists of, by a suffix of its name: itself, or its codes and scales."""
    if type(moment) is torch.Tensor:
        return {"": moment}
    return {"/codes": moment.codes, "/scale": moment.scale}  # type: ignore[attr-defined]


@torch.no_grad()
def move(adam: torch.optim.Optimizer, device: torch.device, *, compiled: bool) -> None:
    """One step. On a CPU as plain torch operations unless `compiled`, which needs a C++ compiler."""
    if device.type == "cpu" and not compiled:
        with torch.compiler.set_stance("force_eager"):
            adam.step()
        return
    with warnings.catch_warnings():
        # a remark of the compiler to the authors of torchao
        warnings.filterwarnings("ignore", message=".*_stable_hash_for_caching")
        adam.step()
