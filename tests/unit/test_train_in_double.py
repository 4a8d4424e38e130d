"""A model computed in float64 without a copy: the values of a copy in float64, weights as they were."""

import copy
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from langadapt.core.io import read_json_object
from langadapt.model.load import load_model
from langadapt.train.in_double import InDouble
from langadapt.train.stored import keep_stored
from tests.contract.test_adapters import train
from tests.fixtures.tiny import tiny_model

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2", "gemma2"])
@torch.no_grad()
def test_it_gives_what_a_copy_in_float64_gives(tmp_path: Path, arch: str) -> None:
    model = load_model(tiny_model(tmp_path / "model", arch=arch)).eval()
    narrow = model(input_ids=IDS).logits
    with InDouble():
        found = model(input_ids=IDS).logits
    exact = copy.deepcopy(model).double()(input_ids=IDS).logits
    assert found.dtype == torch.float64
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    # what is left are angles of positions, which the model makes in fp32
    assert (found - exact).abs().max() < (narrow - exact).abs().max()
    assert (found - exact).abs().max() <= 1e-6 * exact.abs().max()


@torch.no_grad()
def test_matrices_that_are_kept_narrow_are_widened(tmp_path: Path) -> None:
    model = load_model(tiny_model(tmp_path / "model")).eval()
    with InDouble():
        before = model(input_ids=IDS).logits
    for value in model.parameters():
        value.copy_(value.bfloat16())
    with InDouble():
        wanted = model(input_ids=IDS).logits
    assert not torch.equal(before, wanted)
    assert keep_stored(model, (), lambda name: torch.bfloat16) > 0
    with InDouble():
        assert torch.equal(model(input_ids=IDS).logits, wanted)


def test_a_merged_adapter_is_judged_by_its_weights_and_not_by_sloppy_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some machines multiply numbers of fp32 in fewer bits: no reason to throw a trained model away."""
    exact = functional.linear

    def sloppy(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        fewer = input.bfloat16().float() if input.dtype == torch.float32 else input
        return exact(fewer, weight, bias)

    monkeypatch.setattr(functional, "linear", sloppy)
    made = train(tmp_path, tiny_model(tmp_path / "base"))
    assert read_json_object(made.path / "run.json")["compared"]["merging"] < 1e-6


def test_a_mixture_whose_kernels_know_no_float64_is_compared_as_it_computes(tmp_path: Path) -> None:
    options = {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}
    made = train(tmp_path, tiny_model(tmp_path / "base", arch="mixtral", tied=False), strategy_options=options)
    assert 1e-9 < read_json_object(made.path / "run.json")["compared"]["merging"] < 1e-5
