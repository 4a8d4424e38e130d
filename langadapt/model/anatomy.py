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
# Activation functions that the code of a family holds, not its config.
_BUILT_IN = {"bloom": "gelu_pytorch_tanh", "mpt": "gelu"}
# What configs call the function (that of Gemma 2 and 3 first: an older key beside it is not read), and how many experts
# there are.
_ACTIVATIONS = ("hidden_activation", "hidden_act", "activation_function", "activation")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts")


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
class Norm:
    """A norm: module `module`, its factors `weight` [size], one for each value that it reads, and its shifts `bias`."""

    module: str
    weight: str
    bias: str | None
    size: int


@dataclass(frozen=True)
class Neurons:
    """The MLP of one layer. Neuron n is place offset + n along the axis of each of `parts`: (tensor, axis, offset).

    `gate` is the matrix whose output, from `gate_offset` on, is the value that the activation function is applied to;
    `up`, from `up_offset` on, what the result is multiplied by (None: by nothing).
    """

    layer: int
    width: int
    gate: Matrix
    gate_offset: int
    down: Matrix
    parts: tuple[tuple[str, int, int], ...]
    up: Matrix | None = None
    up_offset: int = 0

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
    """All linear layers but the head, and the neurons layer by layer (none where an MLP is not known, and then why).

    `norms` are all of them, those of queries and keys and those outside of layers among them.
    """

    matrices: tuple[Matrix, ...]
    neurons: tuple[Neurons, ...]
    layers: int
    activation: str = ""
    by_weight: Mapping[str, Matrix] = field(default_factory=dict, repr=False)
    why_none: str = ""
    norms: tuple[Norm, ...] = ()

    def need_neurons(self) -> tuple[Neurons, ...]:
        """The neurons. DataError if this architecture's MLPs are not known."""
        if not self.neurons:
            raise DataError(
                f"{self.why_none or 'the MLPs of this model are not known'}, so it has no neurons to choose from",
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
    neurons, why = _neurons(found)
    if any((getattr(config, name, None) or 0) > 1 for name in _EXPERTS):
        # a neuron of one expert is met by few tokens, and several MLPs of a layer have a neuron of the same number
        neurons, why = (), "this model is a mixture of experts"
    activation = next((value for name in _ACTIVATIONS if (value := getattr(config, name, None))), None)
    return Anatomy(
        found,
        neurons,
        int(getattr(config, "num_hidden_layers", 0) or 0),
        str(activation or _BUILT_IN.get(config.model_type, "")),
        {matrix.weight: matrix for matrix in found},
        why,
        tuple(norm for name, module in modules.items() if (norm := _norm(name, module)) is not None),
    )


def _norm(name: str, module: Any) -> Norm | None:
    """A module whose own weight has one axis; None if it is none."""
    own = dict(module.named_parameters(recurse=False))
    if "weight" not in own or own["weight"].ndim != 1:
        return None
    return Norm(name, f"{name}.weight", f"{name}.bias" if "bias" in own else None, len(own["weight"]))


def _layer(name: str, lists: set[str]) -> int | None:
    """The number behind the outermost list of layers in a module's name."""
    parts = name.split(".")
    for at, part in enumerate(parts):
        if part.isdecimal() and ".".join(parts[:at]) in lists:
            return int(part)
    return None


def _neurons(matrices: tuple[Matrix, ...]) -> tuple[tuple[Neurons, ...], str]:
    """The MLP of each layer; or none, and why."""
    groups: dict[tuple[int, str], dict[str, Matrix]] = {}
    for matrix in matrices:
        parent, _, last = matrix.module.rpartition(".")
        if matrix.layer is not None:
            groups.setdefault((matrix.layer, parent), {})[last] = matrix
    found: dict[int, Neurons] = {}
    for (layer, _), named in groups.items():
        neurons = _mlp(layer, named)
        if neurons is None:
            continue
        if layer in found:
            return (), f"layer {layer} of this model has several MLPs"
        found[layer] = neurons
    layers = {matrix.layer for matrix in matrices if matrix.layer is not None}
    if not found or found.keys() != layers:
        return (), "the MLPs of this model are none that langadapt knows"
    return tuple(found[layer] for layer in sorted(found)), ""


def _mlp(layer: int, named: Mapping[str, Matrix]) -> Neurons | None:
    """The MLP that the matrices of one module make, by their last names; None if they make none."""
    for writers, reader in _MLPS:
        if not {*writers, reader} <= named.keys():
            continue
        down, width = named[reader], named[reader].inputs
        fused = named[writers[0]].outputs == 2 * width and len(writers) == 1
        if not fused and any(named[name].outputs != width for name in writers):
            continue
        parts = [(down.weight, down.input_axis, 0)]
        for name in writers:
            matrix = named[name]
            for offset in (0, width) if fused else (0,):
                parts.append((matrix.weight, matrix.output_axis, offset))
                if matrix.bias is not None:
                    parts.append((matrix.bias, 0, offset))
        gate = named[writers[0]]
        up = gate if fused else named[writers[1]] if len(writers) == 2 else None
        return Neurons(layer, width, gate, 0, down, tuple(parts), up, width if fused else 0)
    return None
