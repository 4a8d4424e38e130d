"""The parts of a model by family: a neuron's slices are the neuron, and columns lie where the files have them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from langadapt.core.errors import DataError
from langadapt.model.anatomy import Anatomy, anatomy
from tests.fixtures.tiny import tiny_config

ROWS, WIDTH, LAYERS = 64, 16, 2
# family -> matrices of a layer, width of its MLP, activation function
FAMILIES = {
    "llama": (7, 32, "silu"), "qwen2": (7, 32, "silu"), "qwen3": (7, 32, "silu"),
    "gemma2": (7, 32, "gelu_pytorch_tanh"), "gemma3": (7, 32, "gelu_pytorch_tanh"), "gpt2": (4, 64, "gelu_new"),
    "gptj": (6, 64, "gelu_new"), "gpt_neox": (4, 32, "gelu"), "opt": (6, 32, "relu"),
    "bloom": (4, 64, "gelu_pytorch_tanh"), "phi3": (4, 32, "silu"), "phi": (6, 32, "gelu_new"),
    "falcon": (4, 64, "gelu"),
}  # fmt: skip


def made(arch: str, seed: int = 0) -> tuple[Any, Anatomy]:
    config = tiny_config(arch, rows=ROWS, width=WIDTH, layers=LAYERS, tied=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)  # biases too, which start at 0
    return model, anatomy(model)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.arange(5, 25)[None], use_cache=False).logits
    return found


def with_hook(module: nn.Module, hook: Callable[..., Any], model: Any) -> torch.Tensor:
    handle = module.register_forward_pre_hook(hook)
    try:
        return logits(model)
    finally:
        handle.remove()


@pytest.mark.parametrize("arch", FAMILIES)
def test_a_neuron_without_its_slice_is_a_neuron_that_is_silent(arch: str) -> None:
    """Zeros in gate and up rows, biases and down columns give what zeros in the activation give."""
    model, parts = made(arch)
    matrices, width, activation = FAMILIES[arch]
    assert (len(parts.neurons), parts.layers, parts.activation) == (LAYERS, LAYERS, activation)
    assert sum(matrix.layer == 1 for matrix in parts.matrices) == matrices
    neurons = parts.need_neurons()[1]
    assert (neurons.layer, neurons.width) == (1, width)
    ids = np.array([0, 3, width - 1], dtype=np.int32)

    def silence(module: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        changed = given[0].clone()
        changed[..., torch.from_numpy(ids).long()] = 0
        return (changed,)

    silent = with_hook(model.get_submodule(neurons.down.module), silence, model)
    whole = logits(model)
    parameters, kept = dict(model.named_parameters()), {}
    with torch.no_grad():
        for name, slice in neurons.slices(ids).items():
            assert (slice.ids[1:] > slice.ids[:-1]).all() and slice.ids.dtype == np.int32
            kept[name] = parameters[name].clone()
            parameters[name].index_fill_(slice.axis, torch.from_numpy(slice.ids).long(), 0.0)
    assert torch.allclose(logits(model), silent, atol=1e-6)
    assert not torch.allclose(whole, silent, atol=1e-4)
    down = neurons.down.weight
    with torch.no_grad():
        parameters[down].copy_(kept[down])
    assert torch.allclose(logits(model), silent, atol=1e-6), "the rows alone do it"
    with torch.no_grad():
        for name, value in kept.items():
            parameters[name].copy_(value)
        parameters[down].index_fill_(neurons.down.input_axis, torch.from_numpy(ids).long(), 0.0)
    assert torch.allclose(logits(model), silent, atol=1e-6), "the columns alone do it"


@pytest.mark.parametrize("arch", FAMILIES)
def test_columns_and_rows_lie_along_the_axes_that_are_named(arch: str) -> None:
    model, parts = made(arch)
    given = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
    for matrix in parts.matrices:
        module = model.get_submodule(matrix.module)
        assert isinstance(module, Conv1D if arch == "gpt2" else nn.Linear) and matrix.transposed == (arch == "gpt2")
        shape = model.get_parameter(matrix.weight).shape
        assert (shape[matrix.input_axis], shape[matrix.output_axis]) == (matrix.inputs, matrix.outputs)
        if matrix.inputs == WIDTH:
            before = module(given)
            with torch.no_grad():
                model.get_parameter(matrix.weight).select(matrix.input_axis, 2).zero_()
            other = given.clone()
            other[:, 2] = 7.0
            assert torch.equal(module(given), module(other)) and not torch.equal(module(given), before)
    assert "lm_head.weight" not in parts.by_weight and "embed_out.weight" not in parts.by_weight


def test_what_has_no_neurons_says_why() -> None:
    for arch, why in (("mixtral", "mixture of experts"), ("mamba", "none that langadapt knows")):
        _, parts = made(arch)
        assert parts.matrices and not parts.neurons
        with pytest.raises(DataError, match=why):
            parts.need_neurons()


def test_an_expert_that_is_shared_is_not_taken_for_the_mlp() -> None:
    from transformers import Qwen2MoeConfig

    config = Qwen2MoeConfig(
        vocab_size=ROWS, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        num_experts=4, moe_intermediate_size=8, shared_expert_intermediate_size=8,
    )  # fmt: skip
    with torch.device("meta"):
        parts = anatomy(AutoModelForCausalLM.from_config(config))
    with pytest.raises(DataError, match="mixture of experts"):
        parts.need_neurons()


def test_a_model_without_values_has_the_same_parts() -> None:
    config = tiny_config("phi3", rows=ROWS, width=WIDTH, layers=LAYERS, tied=False)
    with torch.device("meta"):
        empty = anatomy(AutoModelForCausalLM.from_config(config))
    assert empty == made("phi3")[1]
    gate_up = empty.neurons[0].slices(np.array([1, 4], dtype=np.int32))["model.layers.0.mlp.gate_up_proj.weight"]
    assert gate_up.axis == 0 and gate_up.ids.tolist() == [1, 4, 33, 36]
