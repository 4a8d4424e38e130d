"""Where models compute, and how what a GPU computes is made to repeat."""

import pytest
import torch
from torch.utils import deterministic

from langadapt.core.errors import ConfigError, ResourceError
from langadapt.model.compute import choose_device, matrix_rate, repeatable, resolve_compute, wait_for

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def asked_of_torch() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), bool(deterministic.fill_uninitialized_memory)  # type: ignore[attr-defined]


def test_a_gpu_may_only_use_kernels_that_repeat_and_torch_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = asked_of_torch()
    with repeatable(GPU):
        assert asked_of_torch() == (True, False)
        assert not torch.is_deterministic_algorithms_warn_only_enabled(), "attention would only warn"
    assert asked_of_torch() == before
    with pytest.raises(KeyError), repeatable(GPU):
        raise KeyError
    assert asked_of_torch() == before


def test_a_cpu_needs_nothing_and_a_gpu_can_be_let_go() -> None:
    before = asked_of_torch()
    with repeatable(GPU, False):
        assert asked_of_torch() == before
    with repeatable(CPU):
        assert asked_of_torch() == before
    wait_for(CPU)


def test_a_model_that_cannot_repeat_on_a_gpu_is_refused_with_a_way_out() -> None:
    text = "cumsum_cuda_kernel does not have a deterministic implementation, but you set 'torch.use_deterministic'"
    with pytest.raises(ConfigError, match="cumsum_cuda_kernel") as caught, repeatable(GPU):
        raise RuntimeError(text)
    assert caught.value.hint is not None and "--device cpu" in caught.value.hint
    with pytest.raises(RuntimeError, match="out of memory"), repeatable(GPU):
        raise RuntimeError("CUDA out of memory")


def test_the_device_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **how: True)
    monkeypatch.setattr("langadapt.model.compute.cpu_features", lambda path: frozenset())
    assert (choose_device(), choose_device("cuda"), choose_device("cpu")) == (GPU, GPU, CPU)
    # a CPU without bf16 units beside a GPU that has them
    assert (resolve_compute("auto", CPU), resolve_compute("auto", GPU), resolve_compute("auto")) == (
        "fp32", "bf16", "bf16",
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == CPU and resolve_compute("auto") == "fp32"
    with pytest.raises(ResourceError):
        choose_device("cuda")


def test_the_rate_of_the_cpu_is_that_of_the_cpu() -> None:
    assert matrix_rate("fp32", threads=1) > 1e8
