"""Parts of tensors that move: against AdamW on the whole model with everything else put back after each step."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.types import Movable, Slice
from langadapt.model.anatomy import anatomy
from langadapt.model.tables import table_names
from langadapt.train import head as heads
from langadapt.train.head import find_head, loss_of
from langadapt.train.optimiser import Optimiser
from langadapt.train.slices import put_in
from langadapt.train.trainable import Trainable, make_trainable
from tests.fixtures.sliced import (
    MODELS,
    ROWS,
    SETTINGS,
    STEPS,
    WIDTH,
    Slices,
    batches,
    bits,
    build,
    by_axis,
    check_against_oracle,
    learn,
    masks,
    neurons,
    rows_of,
    slice_of,
    some,
)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("axis", ["inputs", "outputs"])
def test_rows_columns_and_single_values_move_as_if_all_did_and_the_rest_was_put_back(name: str, axis: str) -> None:
    check_against_oracle(
        MODELS[name],
        lambda model: Movable(frozenset(), by_axis(model, reads=axis == "inputs") | rows_of(model, [3, 20, 44, 47])),
    )


@pytest.mark.parametrize("name", MODELS)
def test_neurons_with_most_rows_of_the_tables(name: str) -> None:
    check_against_oracle(
        MODELS[name], lambda model: Movable(frozenset(), neurons(model) | rows_of(model, range(2, 48)))
    )


def test_whole_tensors_beside_slices() -> None:
    def choose(model: Any) -> Movable:
        slices = by_axis(model, reads=True)
        whole = {name for name in slices if ".0." in name} | {table_names(model).input}
        return Movable(frozenset(whole), {name: part for name, part in slices.items() if name not in whole})

    check_against_oracle(MODELS["llama, grouped keys"], choose)


def test_rows_that_are_held_stand_still_whatever_the_optimiser_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their gradient is zero and tables do not decay, so AdamW leaves them; an optimiser that did not would find them
    put back."""
    model = build("llama")
    table = table_names(model).input
    movable = Movable(frozenset(), {table: slice_of(0, range(2, ROWS))})
    subject = make_trainable(model, movable, seed=0, folder=None, compute="fp32")
    assert list(subject.parts.held) == [table]
    before = bits(dict(model.named_parameters())[table]).clone()
    optimiser = Optimiser(model, set(subject.names), SETTINGS, old_rows=44, parts=subject.parts)

    @torch.no_grad()
    def move_all() -> None:
        for value in optimiser.parameters.values():
            value.add_(1.0)

    monkeypatch.setattr(optimiser._adam, "step", move_all)
    learn(subject, steps=1, optimiser=optimiser)
    after = bits(dict(model.named_parameters())[table])
    assert torch.equal(after[:2], before[:2])
    assert not bool((after[2:] == before[2:]).any())


def all_places(model: Any) -> Slices:
    return {matrix.weight: slice_of(matrix.input_axis, range(matrix.inputs)) for matrix in anatomy(model).matrices}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_with_every_place_free_it_is_full_training_bit_for_bit(arch: str, bf16: bool) -> None:
    full, sliced = build(arch), build(arch)
    slices = all_places(full)
    names = {name for name, _ in full.named_parameters()}
    # the norm is a sum in another order where a bias stands before what moves of its matrix
    unclipped = replace(SETTINGS, clip=1e9)
    subject = make_trainable(full, Movable(frozenset(names)), seed=0, folder=None, compute="fp32")
    learn(subject, settings=unclipped, bf16=bf16)
    subject = make_trainable(sliced, Movable(frozenset(names - slices.keys()), slices), seed=0, folder=None,
                             compute="fp32")  # fmt: skip
    assert len(subject.parts.sliced) == len(slices)
    learn(subject, settings=unclipped, bf16=bf16)
    after = dict(sliced.named_parameters())
    for name, value in full.named_parameters():
        assert torch.equal(bits(after[name]), bits(value)), name


def test_a_matrix_kept_in_bf16_computes_what_its_fp32_copy_would() -> None:
    """Under bf16 compute nothing is lost: what moves is fp32, and products are of bf16 numbers either way."""
    wide, narrow = build("llama"), build("llama")
    for model in (wide, narrow):
        for value in model.parameters():
            value.data = value.data.bfloat16().float()
    slices = by_axis(wide, reads=True)
    for name, module in narrow.named_modules():
        if f"{name}.weight" in slices and isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.bfloat16()
    ends = []
    for model in (wide, narrow):
        subject = make_trainable(model, Movable(frozenset(), slices), seed=0, folder=None, compute="fp32")
        learn(subject, bf16=True)
        ends.append({part.name: part.moving for part in subject.parts.sliced})
    assert all(torch.equal(bits(ends[0][name]), bits(ends[1][name])) for name in slices)
    matrix = next(name for name in slices if name.endswith("up_proj.weight"))
    assert narrow.get_parameter(matrix).dtype == torch.bfloat16 and ends[1][matrix].dtype == torch.float32


def test_zeroed_gradients_freeze_nothing() -> None:
    """What masks in hooks do (SSU's released code): decay alone moves every shielded weight."""
    model = build("llama")
    name = "model.layers.0.mlp.up_proj.weight"
    weight = model.get_parameter(name)
    before = weight.detach().clone()
    weight.register_hook(lambda gradient: torch.zeros_like(gradient))
    learn(make_trainable(model, Movable(frozenset({name})), seed=0, folder=None, compute="fp32"))
    assert float((bits(weight) != bits(before)).float().mean()) > 0.99


def test_neurons_in_another_order_move_alike() -> None:
    plain, mixed = build("llama"), build("llama")
    order = torch.from_numpy(np.random.default_rng(3).permutation(2 * WIDTH))
    chosen = some(2 * WIDTH, 0.2, 1)
    with torch.no_grad():
        for layer in mixed.model.layers:
            for each in (layer.mlp.gate_proj, layer.mlp.up_proj):
                each.weight.copy_(each.weight[order])
            layer.mlp.down_proj.weight.copy_(layer.mlp.down_proj.weight[:, order])
    at = np.argsort(order.numpy())[chosen]
    for model, ids in ((plain, chosen), (mixed, np.sort(at).astype(np.int32))):
        slices: Slices = {}
        for each in anatomy(model).need_neurons():
            slices |= each.slices(ids)
        learn(make_trainable(model, Movable(frozenset(), slices), seed=0, folder=None, compute="fp32"))
    for one, other in zip(plain.model.layers, mixed.model.layers, strict=True):
        assert (one.mlp.up_proj.weight[order] - other.mlp.up_proj.weight).abs().max() < 1e-5
        assert (one.mlp.down_proj.weight[:, order] - other.mlp.down_proj.weight).abs().max() < 1e-5


@pytest.mark.parametrize("axis", [0, 1])
def test_a_transposed_layer_has_the_gradient_of_the_plain_one(axis: int) -> None:
    from transformers.pytorch_utils import Conv1D

    random = torch.Generator().manual_seed(0)
    plain, turned = nn.Linear(6, 9), Conv1D(9, 6)
    with torch.no_grad():
        turned.weight.copy_(plain.weight.T)
        turned.bias.copy_(plain.bias)
    parts = [
        put_in(each, {"weight": slice_of(number, [0, 2, 5]), "bias": slice_of(0, [1, 8])})[0]
        for each, number in ((plain, axis), (turned, 1 - axis))
    ]
    given = torch.randn(2, 4, 6, generator=random)
    for each in (plain, turned):
        each(given).square().sum().backward()
        assert each.weight.grad is None or not each.weight.grad.any()
    one, other = ({part.name: part.moving.grad for part in found.sliced} for found in parts)
    assert one["weight"] is not None and other["weight"] is not None
    # sums in another order: an entry near 0 may be off by a part of the large ones
    torch.testing.assert_close(one["weight"], other["weight"].T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one["bias"], other["bias"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_no_logits_are_made_where_rows_of_the_head_move(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss makes the gradient of the moving rows piece by piece, and it is the one that whole logits give."""
    ends = []
    for pieces in (False, True):
        model = build("llama", tied=tied)
        subject = make_trainable(
            model, Movable(frozenset(), rows_of(model, [3, 20, 44, 47])), seed=0, folder=None, compute="fp32"
        )
        head = find_head(model)
        assert head is not None
        if pieces:
            monkeypatch.setattr(heads, "HEAD_PIECES_FROM", 0)
            monkeypatch.setattr(heads, "forward", lambda *values: pytest.fail("logits were made"))
        optimiser = Optimiser(model, set(subject.names), SETTINGS, old_rows=44, parts=subject.parts)
        for step in range(STEPS):
            for batch in batches(step):
                loss_of(model, batch, 24, head).backward()  # type: ignore[no-untyped-call]
            optimiser.step(0.02, optimiser.gradient_norm())
        ends.append(model.lm_head.weight.detach())
    assert (ends[0] - ends[1]).abs().max() < 1e-5 and (ends[0] != build("llama", tied=tied).lm_head.weight).any()


def test_going_on_from_what_a_checkpoint_holds_is_going_on() -> None:
    def make() -> Trainable:
        model = build("llama")
        movable = Movable(frozenset(), by_axis(model, reads=True) | rows_of(model, range(1, 48)))
        return make_trainable(model, movable, seed=0, folder=None, compute="fp32")

    whole, begun, other = make(), make(), make()
    learn(whole, steps=4)
    first = learn(begun, steps=2)
    second = Optimiser(other.model, set(other.names), SETTINGS, old_rows=44, parts=other.parts)
    missing = second.expect(first.moved())
    for name, tensor in first.tensors():
        second.put_back(name, tensor.clone())
        missing.discard(name)
    assert not missing
    # written through at once: what is probed before the next step is the model as it was
    now = dict(other.model.named_parameters())
    assert all(torch.equal(bits(now[name]), bits(value)) for name, value in begun.model.named_parameters())
    learn(other, steps=4, first=2, optimiser=second)
    assert all(torch.equal(bits(now[name]), bits(value)) for name, value in whole.model.named_parameters())


def test_what_is_kept_is_what_moves() -> None:
    model = build("llama")
    table = table_names(model).input
    slices = by_axis(model, reads=True) | rows_of(model, range(4, 48))
    expected = sum(len(part.ids) * model.get_parameter(name).numel() // model.get_parameter(name).shape[part.axis]
                   for name, part in slices.items())  # fmt: skip
    subject = make_trainable(model, Movable(frozenset(), slices), seed=0, folder=None, compute="fp32")
    assert subject.names == {f"{name}_moving" for name in slices if name != table} | {table}
    assert subject.parameters == expected
    optimiser = learn(subject, steps=1)
    assert set(optimiser.parameters) == subject.names
    size = sum(tensor.numel() * tensor.element_size() for _, tensor in optimiser.tensors())
    held = 4 * WIDTH  # rows of the table that are trained with it and put back
    assert size == optimiser.checkpoint_bytes() == 12 * (expected + held)


@pytest.mark.parametrize("rounds", [False, True])
def test_low_bit_moments_and_weights_move_nothing_else(rounds: bool) -> None:
    model, first = build("llama", layers=1), build("llama", layers=1)
    movable = Movable(frozenset(), by_axis(model, reads=True) | rows_of(model, range(1, 48)))
    subject = make_trainable(model, movable, seed=0, folder=None, compute="fp32")
    settings = replace(SETTINGS, moments="8bit", rounds=rounds)
    optimiser = Optimiser(model, set(subject.names), settings, old_rows=44, parts=subject.parts)
    if rounds:  # as a session does, after the optimiser was made
        for each in (model, first):
            for value in each.parameters():
                value.data = value.data.bfloat16()
    learn(subject, settings=settings, bf16=rounds, optimiser=optimiser)
    free, now = masks(first, movable), dict(model.named_parameters())
    for name, value in first.named_parameters():
        assert torch.equal(bits(now[name])[~free[name]], bits(value)[~free[name]]), name
    assert not torch.equal(now["model.norm.weight"], first.get_parameter("model.norm.weight"))


def test_what_cannot_be_is_refused() -> None:
    model = build("llama")
    name = "model.layers.0.mlp.up_proj.weight"

    def make(names: set[str], slices: Slices) -> Any:
        return make_trainable(model, Movable(frozenset(names), slices), seed=0, folder=None, compute="fp32")

    with pytest.raises(ConfigError, match="nothing of the model may move"):
        make(set(), {name: slice_of(1, [])})
    with pytest.raises(ConfigError, match="as a whole and in part"):
        make({name}, {name: slice_of(1, [1])})
    for part in (slice_of(1, [3, WIDTH]), slice_of(2, [0]), slice_of(1, [-1, 2]), Slice(1, np.array([2, 1], np.int32))):
        with pytest.raises(DataError, match=r"does not have them.*\[32, 16\]"):
            make(set(), {name: part})
    with pytest.raises(DataError, match="no such tensor"):
        make(set(), {name.replace("0", "7"): slice_of(1, [1])})


@pytest.mark.parametrize("reads", [True, False])
def test_an_adapter_changes_the_chosen_places_only(reads: bool) -> None:
    model, first = build("llama", tied=False), build("llama", tied=False)
    slices = {name: part for name, part in by_axis(model, reads=reads).items() if "proj" in name}
    adapter = {"peft_type": "LORA", "r": 4, "target_modules": "all-linear"}
    movable = Movable(frozenset(), slices | rows_of(model, [3, 44]), adapter=adapter)
    subject = make_trainable(model, movable, seed=0, folder=None, compute="fp32")
    learn(subject)
    assert subject.adapter is not None
    merged = subject.adapter.merge(lambda name: torch.float32)
    for name, part in slices.items():
        differ = bits(merged[name]) != bits(first.get_parameter(name) + 0.0)
        places = np.flatnonzero(differ.any(1 - part.axis).numpy())
        assert places.tolist() == part.ids.tolist(), name
    for kind in ({"use_dora": True}, {"peft_type": "LOHA"}):
        with pytest.raises(ConfigError, match="a shield cannot be put into"):
            make_trainable(build("llama"), replace(movable, adapter=adapter | kind, slices=slices), seed=0, folder=None,
                           compute="fp32")  # fmt: skip
