"""The parts of a model that selective training speaks of: its linear layers, and the neurons of its MLPs.

Axes are those of the tensors as they are stored: GPT-2 keeps its matrices the other way round.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from langadapt.core.errors import DataError
from langadapt.core.types import Slice

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    Ints = np.ndarray[Any, np.dtype[np.int32]]

# What the families of transformers call the matrices of an MLP: those that write its neurons (the gate first), and the
# one that reads them. What a name promises is shown on the loaded model by `calibrate` before it is relied upon.
_MLPS = (
    (("gate_proj", "up_proj"), "down_proj"),
    (("gate_up_proj",), "down_proj"),
    (("w1", "w3"), "w2"),
    (("fc1",), "fc2"),
    (("fc_in",), "fc_out"),
    (("c_fc",), "c_proj"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
    (("up_proj",), "down_proj"),
)


@dataclass(frozen=True)
class Matrix:
    """A linear layer: module `module`, its matrix `weight` [outputs, inputs] (transposed: [inputs, outputs])."""

    module: str
    weight: str
    bias: str | None
    inputs: int
    outputs: int
    transposed: bool
    layer: int | None

    @property
    def input_axis(self) -> int:
        """The axis of the stored matrix along which its columns (what it reads) lie."""
        return 0 if self.transposed else 1

    @property
    def output_axis(self) -> int:
        """The axis along which its rows (what it writes) lie."""
        return 1 - self.input_axis


@dataclass(frozen=True)
class Neurons:
    """The MLP of one layer. Neuron n is place offset + n along the axis of each of `parts`: (tensor, axis, offset).

    `gate` is the matrix whose output, from `gate_offset` on, is the value that the activation function is applied to.
    """

    layer: int
    width: int
    gate: Matrix
    gate_offset: int
    down: Matrix
    parts: tuple[tuple[str, int, int], ...]

    def slices(self, ids: "Ints") -> dict[str, Slice]:
        """The rows and columns of these neurons, by tensor: gate and up rows, down columns, and their biases."""
        found: dict[str, list[tuple[int, Ints]]] = {}
        for name, axis, offset in self.parts:
            found.setdefault(name, []).append((axis, np.asarray(ids, dtype=np.int32) + np.int32(offset)))
        return {
            name: Slice(places[0][0], np.sort(np.concatenate([each for _, each in places])).astype(np.int32))
            for name, places in found.items()
        }


@dataclass(frozen=True)
class Anatomy:
    """All linear layers but the head, and the neurons layer by layer (empty where an MLP is not known)."""

    matrices: tuple[Matrix, ...]
    neurons: tuple[Neurons, ...]
    layers: int
    activation: str = ""
    by_weight: Mapping[str, Matrix] = field(default_factory=dict, repr=False)

    def need_neurons(self) -> tuple[Neurons, ...]:
        """The neurons. DataError if this architecture's MLPs are not known."""
        if not self.neurons:
            raise DataError(
                "the MLPs of this model are none that langadapt knows, so it has no neurons to choose from",
                hint="choose by columns or layers: `--method ssu`, `--method layers`",
            )
        return self.neurons


def anatomy(model: "PreTrainedModel") -> Anatomy:
    """Read a model's parts off the model itself, which may be one without values (on the meta device)."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    modules = dict(model.named_modules())
    lists = {name for name, module in modules.items() if isinstance(module, nn.ModuleList)}
    matrices = []
    for name, module in modules.items():
        if module is head or not isinstance(module, nn.Linear | Conv1D):
            continue
        transposed = isinstance(module, Conv1D)
        rows, columns = module.weight.shape
        outputs, inputs = (columns, rows) if transposed else (rows, columns)
        bias = None if module.bias is None else f"{name}.bias"
        matrices.append(Matrix(name, f"{name}.weight", bias, inputs, outputs, transposed, _layer(name, lists)))
    config = model.config.get_text_config()
    found = tuple(matrices)
    return Anatomy(
        found,
        _neurons(found),
        int(getattr(config, "num_hidden_layers", 0) or 0),
        str(getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
            or getattr(config, "activation_function", None) or ""),
        {matrix.weight: matrix for matrix in found},
    )  # fmt: skip


def _layer(name: str, lists: set[str]) -> int | None:
    """The number behind the outermost list of layers in a module's name."""
    parts = name.split(".")
    for at, part in enumerate(parts):
        if part.isdecimal() and ".".join(parts[:at]) in lists:
            return int(part)
    return None


def _neurons(matrices: tuple[Matrix, ...]) -> tuple[Neurons, ...]:
    groups: dict[tuple[int, str], dict[str, Matrix]] = {}
    for matrix in matrices:
        parent, _, last = matrix.module.rpartition(".")
        if matrix.layer is not None:
            groups.setdefault((matrix.layer, parent), {})[last] = matrix
    found: dict[int, Neurons] = {}
    for (layer, _), named in groups.items():
        for writers, reader in _MLPS:
            if not {*writers, reader} <= named.keys():
                continue
            down, width = named[reader], named[reader].inputs
            fused = named[writers[0]].outputs == 2 * width and len(writers) == 1
            if not fused and any(named[name].outputs != width for name in writers):
                continue
            if layer in found:
                return ()  # several MLPs in a layer: a mixture of experts
            parts = [(down.weight, down.input_axis, 0)]
            for name in writers:
                matrix = named[name]
                for offset in (0, width) if fused else (0,):
                    parts.append((matrix.weight, matrix.output_axis, offset))
                    if matrix.bias is not None:
                        parts.append((matrix.bias, 0, offset))
            found[layer] = Neurons(layer, width, named[writers[0]], 0, down, tuple(parts))
            break
    layers = {matrix.layer for matrix in matrices if matrix.layer is not None}
    return tuple(found[layer] for layer in sorted(found)) if found.keys() == layers else ()
