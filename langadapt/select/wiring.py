"""What a short forward pass shows of a model's parts: which matrices read the same values, which axis of what a norm
reads is that of tokens, and that neurons are what the names of their matrices promise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from langadapt.core.errors import DataError
from langadapt.model.anatomy import Anatomy, Matrix, Neurons, Norm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Act = Callable[[torch.Tensor], torch.Tensor]

# Tokens of the short pass: enough that values of different neurons cannot be taken for one another, and no number of
# heads, which norms of queries and keys have an axis for.
TOKENS = 17
# What `down` reads may differ from act(gate) * up by roundings of the model's dtype, as a share of the largest value.
_CLOSE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}


BOTH_SIDES = "the activation function of this model is above 0 for some values below 0: active neurons are not counted"


@dataclass(frozen=True)
class Wiring:
    """`shared`: matrices that read the same tensor, the first of each group is the one to watch.

    `neurons` is empty where they are not known, and `why_none` says why. `by_sign`: act(z) > 0 just where z > 0, so
    that an active neuron is one with a positive z. `norms` have beside them the axis of tokens in what they read.
    """

    shared: tuple[tuple[Matrix, ...], ...]
    neurons: tuple[Neurons, ...]
    act: Act | None
    by_sign: bool
    why_none: str
    norms: tuple[tuple[Norm, int], ...] = ()


def look(model: "PreTrainedModel", parts: Anatomy, ids: Sequence[int]) -> Wiring:
    """Run a few tokens through the model's body and look at what its linear layers read and write.

    A matrix or norm that is not met once for every token (experts, convolutions) is left out: it has no statistics.
    DataError: what neurons compute is no number.
    """
    few = torch.tensor([(list(ids) * TOKENS)[:TOKENS]], device=model.device)
    read: dict[str, torch.Tensor] = {}
    wrote: dict[str, torch.Tensor] = {}
    often: dict[str, int] = {}

    def watch(part: Matrix | Norm) -> Callable[..., None]:
        def hook(module: Any, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
            often[part.weight] = often.get(part.weight, 0) + 1
            if given:
                read[part.weight], wrote[part.weight] = given[0], result

        return hook

    modules = dict(model.named_modules())
    watched: list[Matrix | Norm] = [*parts.matrices, *parts.norms]
    with torch.inference_mode():
        handles = [modules[one.module].register_forward_hook(watch(one)) for one in watched]
        try:
            model.base_model(input_ids=few, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
    groups: dict[int, list[Matrix]] = {}
    for matrix in parts.matrices:
        given = read.get(matrix.weight)
        if given is not None and often[matrix.weight] == 1 and given.numel() == few.numel() * matrix.inputs:
            groups.setdefault(id(given), []).append(matrix)
    norms = [
        (norm, axis)
        for norm in parts.norms
        if often.get(norm.weight) == 1 and (axis := _token_axis(read.get(norm.weight), norm.size)) is not None
    ]
    act, why = activation(parts.activation), why_none(parts)
    neurons = () if why else parts.neurons
    for one in neurons:
        if act is not None and not _is_neuron(one, act, read, wrote):
            neurons, why = (), f"layer {one.layer}: what `{one.down.weight}` reads is not act(gate) x up"
            break
    return Wiring(tuple(tuple(group) for group in groups.values()), neurons, act, _by_sign(act), why, tuple(norms))


def why_none(parts: Anatomy, *, active: bool = False) -> str:
    """Why, by a config, neurons or (`active`) which of them are active cannot be known; empty if they may."""
    if not parts.neurons:
        return parts.why_none
    act = activation(parts.activation)
    if act is None:
        return f"langadapt does not know its activation function `{parts.activation}`"
    return BOTH_SIDES if active and not _by_sign(act) else ""


def _token_axis(read: torch.Tensor | None, size: int) -> int | None:
    """Which axis of [1, ..., size] has the tokens of the short pass; None if it is not one alone."""
    if read is None or read.shape[-1] != size:
        return None
    axes = [axis for axis in range(1, read.ndim - 1) if read.shape[axis] == TOKENS]
    return axes[0] if len(axes) == 1 else None


def activation(name: str) -> Act | None:
    """The function of this name in transformers; None if there is none."""
    from transformers.activations import ACT2FN

    # its `get` gives the class, not the function
    found: Act | None = ACT2FN[name] if name in ACT2FN else None  # noqa: SIM401
    return found


def _is_neuron(one: Neurons, act: Act, read: dict[str, torch.Tensor], wrote: dict[str, torch.Tensor]) -> bool:
    names = [one.gate.weight, *([one.up.weight] if one.up is not None else [])]
    if one.down.weight not in read or any(name not in wrote for name in names):
        return False
    found = read[one.down.weight].reshape(-1, one.width)
    if not bool(found.isfinite().all()):
        raise not_finite(f"what `{one.down.weight}` reads")
    expected = act(_part(wrote[one.gate.weight], one.gate_offset, one.width))
    if one.up is not None:
        expected = expected * _part(wrote[one.up.weight], one.up_offset, one.width)
    if found.shape != expected.shape:
        return False
    apart = float((found.float() - expected.float()).abs().max())
    return apart <= _CLOSE.get(found.dtype, 1e-4) * max(float(found.float().abs().max()), 1e-6)


def not_finite(what: str) -> DataError:
    """The error for a model that computes what is no number."""
    return DataError(
        f"activations of this model are not finite numbers ({what})",
        hint="give `--compute fp32`; if it is so already, the model's weights are damaged: copy them again",
    )


def _part(values: torch.Tensor, offset: int, width: int) -> torch.Tensor:
    """The values [tokens, width] of neurons in what a matrix wrote."""
    return values.reshape(-1, values.shape[-1])[:, offset : offset + width]


def _by_sign(act: Act | None) -> bool:
    """Is act(z) > 0 just where z > 0? Tried on numbers, far out and close to 0.

    True of ReLU and its square, SiLU, all GELUs, Mish, tanh; not of sigmoid, xIELU and others that rise on both sides.
    """
    if act is None:
        return False
    near = torch.logspace(-5, 0, 100)
    values = torch.cat([torch.linspace(-30, 30, 6001), near, -near])
    with torch.inference_mode():
        return bool(((act(values.clone()) > 0) == (values > 0)).all())
