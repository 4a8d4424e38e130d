"""The end of a run with an adapter: merged, written as a plain folder, read again, and compared.

Two comparisons of logits on text: before and after merging and rounding (a bound that suits the dtype), then the model
in memory with the folder that was written (the same numbers, so a tight bound). The second is what catches a head that
was not tied again, a tensor under a wrong name, or a matrix that was written transposed. Both are made in float64 where
the model can be, so that what differs is what the weights say, not how a kernel of this machine rounds its sums.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from langadapt.core.errors import LangadaptError
from langadapt.core.io import pretty_json, write_durably
from langadapt.core.progress import Progress
from langadapt.model.load import load_model
from langadapt.model.save import stored_as, write_model, write_tensors
from langadapt.model.tables import table_names
from langadapt.model.weights import DTYPE_NAMES, open_weights
from langadapt.train.adapters import NAME, Adapter
from langadapt.train.in_double import InDouble
from langadapt.train.slices import Parts

# What is written of a tensor: its values, or a function that makes them when they are written.
Replaced = torch.Tensor | Callable[[], torch.Tensor]
Arithmetic = type[InDouble] | type[nullcontext[None]]

FOLDER = "adapter"
# Root mean square of the difference, as a share of that of the logits. Rounding to the dtype of the files made, on
# models of width 32 to 2048: fp32 1e-6, fp16 1e-3, bf16 1e-2; an adapter left out or a table merged twice 0.1 to 1.
_ROUNDING = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 8e-2}
_READ_AGAIN = 1e-4


@dataclass(frozen=True)
class Compared:
    """Root-mean-square differences of logits, as shares of the logits' own."""

    merging: float
    reading: float


def stored_dtypes(folder: Path) -> Callable[[str], torch.dtype]:
    """The dtype in which the files of a model hold a parameter, by its name in the model, wrapped layers included."""
    weights = open_weights(folder)

    def dtype_of(name: str) -> torch.dtype:
        info = weights.tensors[stored_as(weights, name.replace(".base_layer.", "."))]
        dtype: torch.dtype = getattr(torch, DTYPE_NAMES.get(info.dtype, "float32"))
        return dtype

    return dtype_of


def write_merged(
    adapter: Adapter,
    base: Path,
    out: Path,
    texts: Sequence[Sequence[int]],
    *,
    keep: bool,
    parts: Parts,
    placed: Callable[[dict[str, torch.Tensor]], Mapping[str, Replaced]],
    progress: Progress,
) -> Compared:
    """Merge, write the whole model folder into `out`, load it and compare; `texts` are token ids to compare on.

    `parts` move beside the adapter; `placed` makes what is written of the merged tensors, by name. With `keep` the
    adapter is saved too, in `out/adapter`. The model in memory is empty afterwards. LangadaptError: the folder that was
    written does not compute what was trained.
    """
    model: Any = adapter.model
    dtype_of, tables = stored_dtypes(base), table_names(model)
    arithmetic, trained = _logits_in_double(model, texts)
    if keep:
        save_adapter(adapter, out / FOLDER, dtype_of, also=frozenset(part.name for part in parts.sliced))
    merged = adapter.merge(dtype_of)
    for part in parts.sliced:
        part.round(dtype_of(part.name))
    rounded = _logits(model, texts, arithmetic)
    coarsest = max((value.dtype for value in merged.values()), key=lambda dtype: _ROUNDING[dtype])
    merging = difference(trained, rounded)
    if not merging <= _ROUNDING[coarsest]:
        raise LangadaptError(
            f"merging the adapter into {coarsest} weights changes the logits by {merging:.2g} of their size, "
            f"at most {_ROUNDING[coarsest]:.2g} is rounding; nothing was written",
            hint="train with a lower `--learning-rate`, or on a base stored in float32",
        )
    write_model(base, out, placed(merged), progress=progress)
    merged.clear()
    for value in model.parameters():
        value.data = value.data.new_empty(0)  # the folder is loaded whole next: do not hold two models
    again = load_model(out)
    reading = difference(rounded, _logits(again, texts, arithmetic))
    if table_names(again) != tables or not reading <= _READ_AGAIN:
        raise LangadaptError(
            f"the model that was written is not the one that was trained: its logits differ by {reading:.2g} of their "
            "size; nothing was kept",
            hint="report this with the model's config.json",
        )
    progress.note(
        f"merged, written and read again: logits differ by {merging:.1g} of their size (rounding to {coarsest}), "
        f"and by {reading:.1g} between memory and files"
    )
    return Compared(merging, reading)


def difference(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """Root mean square of the difference over that of `one`, each row of logits [..., V] about its mean."""
    gap = own = 0.0
    for first, second in zip(one, other, strict=True):
        centred = first - first.mean(-1, keepdim=True)
        gap += float((centred - second + second.mean(-1, keepdim=True)).double().square().sum())
        own += float(centred.double().square().sum())
    return float((gap / max(own, 1e-30)) ** 0.5)


def _logits_in_double(model: Any, texts: Sequence[Sequence[int]]) -> tuple[Arithmetic, list[torch.Tensor]]:
    """Logits, and how they were made: as the model computes where it cannot in float64.

    Experts of a mixture have kernels for fewer bits only.
    """
    try:
        return InDouble, _logits(model, texts, InDouble)
    except (RuntimeError, TypeError, ValueError):
        return nullcontext, _logits(model, texts, nullcontext)


@torch.no_grad()
def _logits(model: Any, texts: Sequence[Sequence[int]], arithmetic: Arithmetic) -> list[torch.Tensor]:
    """Logits [L, V] of each text in float64, on the CPU."""
    model.eval()
    with arithmetic():
        return [
            model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False).logits[0].double().cpu()
            for ids in texts
        ]


def save_adapter(
    adapter: Adapter, folder: Path, stored_as: Callable[[str], torch.dtype], *, also: frozenset[str] = frozenset()
) -> None:
    """Write what was trained as a folder that `peft.PeftModel.from_pretrained(base, folder)` reads.

    It holds the adapter in fp32 and the trained tables, and `also` other parameters, in the dtype of the base's files.
    """
    from peft.utils.save_and_load import get_peft_model_state_dict

    model: Any = adapter.model
    tensors = dict(get_peft_model_state_dict(model, adapter_name=NAME, save_embedding_layers=False))
    for name, value in model.named_parameters():
        if name in adapter.names | also and not any(name.startswith(f"{layer}.") for layer in adapter.layers):
            tensors[name] = value.to(stored_as(name))
    folder.mkdir()
    named = {f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_tensors(dict(sorted(named.items())), folder / "adapter_model.safetensors")
    settings = {key: _plain(value) for key, value in adapter.config.to_dict().items()}
    settings |= {"base_model_name_or_path": None, "inference_mode": True}
    write_durably(folder / "adapter_config.json", pretty_json(settings))
    write_durably(folder / "README.md", _about(adapter, model))


def _plain(value: Any) -> Any:
    """A value as JSON holds it, the same text for the same content: peft keeps names in sets."""
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value))
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return getattr(value, "value", value)


def _about(adapter: Adapter, model: nn.Module) -> str:
    tables = sorted(name for name in adapter.names if not any(name.startswith(f"{each}.") for each in adapter.layers))
    own = ", ".join(f"`{name}` {list(model.get_parameter(name).shape)}" for name in tables) or "no table"
    return (
        f"An adapter of type {adapter.kind}, already merged into the model in the folder above; it is kept to be "
        "looked at, scaled or combined.\n\n"
        "    model = AutoModelForCausalLM.from_pretrained(BASE)\n"
        "    model = PeftModel.from_pretrained(model, THIS_FOLDER)\n\n"
        "BASE is the model that `langadapt cpt` was given (after `init-embeddings`, with its added rows), not one with "
        f"fewer rows.\nBeside the adapter it holds parameters that were trained whole and replace those of BASE: "
        f"{own}.\n"
    )
