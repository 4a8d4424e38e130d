"""The loss from hidden states against the loss from logits, in pieces so small that there are many."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from langadapt.core.types import Block
from langadapt.model.load import load_model
from langadapt.train import head as heads
from langadapt.train import loss as losses
from langadapt.train.batches import collate
from langadapt.train.head import find_head, loss_of
from langadapt.train.loss import IGNORED, Bend, head_cross_entropy
from tests.fixtures.tiny import TINY_VOCABULARY, tiny_model


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_FEWEST_ROWS", 1)
    monkeypatch.setattr(losses, "HEAD_PIECE_NUMBERS", 3 * TINY_VOCABULARY)
    monkeypatch.setattr(losses, "PIECE_NUMBERS", 2 * TINY_VOCABULARY)
    monkeypatch.setattr(heads, "HEAD_PIECES_FROM", 0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("bend", [Bend(), Bend(scale=0.25), Bend(cap=3.0), Bend(scale=2.0, cap=1.5)])
def test_loss_and_gradients_against_the_formula_in_double(
    bias: bool, bend: Bend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_FEWEST_ROWS", 1)
    monkeypatch.setattr(losses, "HEAD_PIECE_NUMBERS", 3 * 13)
    monkeypatch.setattr(losses, "PIECE_NUMBERS", 2 * 13)
    random = torch.Generator().manual_seed(4)
    hidden = torch.randn(2, 8, 5, generator=random)
    weight, shift = torch.randn(13, 5, generator=random), torch.randn(13, generator=random)
    labels = torch.randint(13, (2, 8), generator=random)
    labels[0, 2] = labels[1, 7] = IGNORED
    exact = [value.double().requires_grad_() for value in (hidden, weight, shift)]
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(2):
        for place in range(8):
            if labels[row, place] == IGNORED:
                continue
            z = exact[1] @ exact[0][row, place] + (exact[2] if bias else 0.0)
            z = z * bend.scale
            z = z if bend.cap is None else bend.cap * torch.tanh(z / bend.cap)
            expected = expected + z.exp().sum().log() - z[labels[row, place]]
    (expected / 11 * 0.5).backward()
    own = [value.clone().requires_grad_() for value in (hidden, weight, shift)]
    loss = head_cross_entropy(own[0], own[1], own[2] if bias else None, labels, 11, bend)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()) / 11, rel=1e-6)
    (loss * 0.5).backward()
    for mine, theirs in zip(own[: 3 if bias else 2], exact, strict=False):
        assert mine.grad is not None and theirs.grad is not None
        assert torch.allclose(mine.grad.double(), theirs.grad, atol=1e-6)


def blocks() -> list[Block]:
    random = torch.Generator().manual_seed(9)
    rows = torch.randint(TINY_VOCABULARY - 10, (3, 16), generator=random).tolist()
    return [Block([1, *row[1:]], [0, 7], "", 0, 0) for row in rows]


def gradients(model: nn.Module, head: Any, *, bf16: bool = False) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    batch = collate(blocks(), "positions", torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = loss_of(model, batch, 45, head)
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma2", "phi"])
@pytest.mark.parametrize("tied", [True, False])
def test_whole_models_give_the_same_loss_and_gradients(
    tmp_path: Path, arch: str, tied: bool, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(tiny_model(tmp_path / "m", arch=arch, tied=tied, head_bias=arch == "phi"))
    expected_loss, expected = gradients(model, None)
    head = find_head(model)
    assert head is not None and (head.bend.cap == 30.0) == (arch == "gemma2")
    calls = []
    real = losses.head_cross_entropy
    monkeypatch.setattr(heads, "head_cross_entropy", lambda *values: calls.append(1) or real(*values))
    loss, found = gradients(model, head)
    assert calls == [1], "the pieces were not used"
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.allclose(found[name], expected[name], rtol=1e-4, atol=2e-6), name
    # what was left out of the forward pass is back
    assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.shape[-1] >= TINY_VOCABULARY - 10


def test_in_bf16_it_is_as_close_to_fp32_as_the_usual_way(tiny: Path, small_pieces: None) -> None:
    model = load_model(tiny)
    exact = gradients(model, None)[1]
    head = find_head(model)

    def error(found: dict[str, torch.Tensor]) -> float:
        return sum(float((found[name] - exact[name]).norm()) for name in exact)

    usual, pieces = error(gradients(model, None, bf16=True)[1]), error(gradients(model, head, bf16=True)[1])
    assert 0 < pieces < 1.2 * usual


def test_weights_in_bf16_get_gradients_in_bf16(tiny: Path, small_pieces: None) -> None:
    model = load_model(tiny)
    exact = gradients(model, None)[1]
    head = find_head(model)
    for value in model.parameters():
        value.data = value.data.to(torch.bfloat16)
    found = gradients(model, head, bf16=True)[1]
    for name, value in found.items():
        assert value.dtype == torch.bfloat16
        assert float((value.float() - exact[name]).norm()) < 0.05 * float(exact[name].norm()), name


def test_a_frozen_head_gets_no_gradient(tiny_untied: Path, small_pieces: None) -> None:
    model = load_model(tiny_untied)
    model.lm_head.weight.requires_grad_(False)
    expected = gradients(model, None)[1]
    found = gradients(model, find_head(model))[1]
    assert "lm_head.weight" not in found and found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], rtol=1e-4, atol=2e-6) for name in expected)


def test_a_model_that_does_something_unknown_to_its_logits_keeps_its_own_way(tiny: Path) -> None:
    model = load_model(tiny)
    assert find_head(model) is not None
    real = model.forward

    def other(*values: Any, **named: Any) -> Any:
        out = real(*values, **named)
        out.logits = out.logits + 0.5 * out.logits.sin()
        return out

    model.forward = other
    assert find_head(model) is None


def test_a_head_that_is_no_plain_matrix_keeps_its_own_way(tiny: Path) -> None:
    class Other(nn.Linear):
        pass

    model = load_model(tiny)
    model.lm_head.__class__ = Other
    assert find_head(model) is None


def test_small_logits_are_made_by_the_model_itself(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(tiny)
    head = find_head(model)
    monkeypatch.setattr(heads, "head_cross_entropy", lambda *values: pytest.fail("not needed"))
    gradients(model, head)
