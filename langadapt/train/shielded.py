"""An adapter that can change some rows or columns of a matrix only: what of its factors would change others is zero.

A LoRA adds B A to a matrix W. Columns of A that are zero add nothing to those columns of W, rows of B that are zero
nothing to those rows; they begin as zeros and are held there, so that the rest of W stays exactly what it was.
"""

from collections.abc import Mapping

import torch
from torch import nn

from langadapt.core.errors import ConfigError
from langadapt.core.types import Slice
from langadapt.train.adapters import NAME, Adapter
from langadapt.train.slices import complement
from langadapt.train.stored import STAYS_STORED


@torch.no_grad()
def hold_factors(adapter: Adapter, slices: Mapping[str, Slice]) -> tuple[dict[str, Slice], dict[str, Slice]]:
    """What of the adapter's factors is held, by parameter, and those of `slices` that are of no layer of the adapter.

    ConfigError: an adapter that is not a product of two factors, or a bias that it would have to move in part.
    """
    held: dict[str, Slice] = {}
    own = {f"{name}.{part}": name for name, layer in adapter.layers.items()
           for part, _ in layer.get_base_layer().named_parameters()}  # fmt: skip
    inside = {name: part for name, part in slices.items() if name in own}
    if inside and (adapter.kind != "LORA" or getattr(adapter.config, "use_dora", False)):
        raise ConfigError(
            f"a shield cannot be put into `{adapter.kind}`{' with `use_dora`' if adapter.kind == 'LORA' else ''}: "
            "it changes a matrix in other ways than by a product of two factors",
            hint="use `--strategy shielded-lora`, or `--strategy lora` without a selection",
        )
    for name, part in inside.items():
        layer = adapter.layers[own[name]]
        base = layer.get_base_layer()
        if not name.endswith(".weight") or not isinstance(base, STAYS_STORED):
            raise ConfigError(
                f"an adapter cannot move a part of `{name}`", hint="choose columns of matrices, as `ssu` does"
            )
        transposed = not isinstance(base, nn.Linear)
        reads = part.axis == (0 if transposed else 1)
        # A is [rank, inputs], B [outputs, rank]
        factor, axis = ("lora_A", 1) if reads else ("lora_B", 0)
        value = getattr(layer, factor)[NAME].weight
        still = complement(Slice(axis, part.ids), value.shape[axis])
        value.index_fill_(axis, torch.from_numpy(still.ids).long().to(value.device), 0.0)
        held[f"{own[name]}.{factor}.{NAME}.weight"] = still
    return held, {name: part for name, part in slices.items() if name not in own}
