"""Parts of tensors that move: against AdamW on the whole model with everything else put back after each step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from langadapt.core.types import Block, Movable, Slice
from langadapt.model.anatomy import anatomy
from langadapt.model.tables import table_names
from langadapt.train.batches import collate
from langadapt.train.head import find_head, loss_of
from langadapt.train.optimiser import AdamSettings, Optimiser
from langadapt.train.trainable import Trainable, make_trainable
from tests.fixtures.tiny import tiny_config

ROWS, WIDTH, STEPS = 48, 16, 4
# the large epsilon: a gradient that is nothing but rounding moves nothing (keys have a bias that softmax does not see)
SETTINGS = AdamSettings(weight_decay=0.3, epsilon=1e-3, clip=0.5, new_rows_factor=3.0, tables_factor=0.5)
Slices = dict[str, Slice]


def build(arch: str, *, tied: bool = True, layers: int = 2) -> Any:
    """A model with random weights, norms and biases included, in fp32."""
    import transformers

    if arch == "phi3":
        config: Any = transformers.Phi3Config(
            vocab_size=ROWS, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied, pad_token_id=0,
        )  # fmt: skip
    else:
        config = tiny_config(arch, rows=ROWS, width=WIDTH, layers=layers, tied=tied)
    with torch.random.fork_rng(devices=[]):
        model = transformers.AutoModelForCausalLM.from_config(config)
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for _, value in sorted(model.named_parameters()):
            value.copy_(torch.randn(value.shape, generator=random) * 0.15 + (1.0 if value.ndim == 1 else 0.0))
    model.get_input_embeddings().padding_idx = None
    return model.train()


def slice_of(axis: int, ids: Any) -> Slice:
    return Slice(axis, np.asarray(sorted(ids), dtype=np.int32))


def some(length: int, share: float, seed: int) -> np.ndarray:
    count = max(1, round(length * share))
    return np.sort(np.random.default_rng(seed).choice(length, count, replace=False)).astype(np.int32)


def by_axis(model: Any, *, reads: bool, share: float = 0.4) -> Slices:
    """Inputs or outputs of every matrix, with half of the biases and norms."""
    found = {}
    for number, matrix in enumerate(anatomy(model).matrices):
        axis, length = (matrix.input_axis, matrix.inputs) if reads else (matrix.output_axis, matrix.outputs)
        found[matrix.weight] = Slice(axis, some(length, share, number))
        if matrix.bias is not None:
            found[matrix.bias] = Slice(0, some(matrix.outputs, 0.5, number))
    for name, value in model.named_parameters():
        if "norm" in name or "ln_" in name:
            found[name] = Slice(0, some(len(value), 0.5, 3))
    return found


def neurons(model: Any, share: float = 0.1) -> Slices:
    found: Slices = {}
    for each in anatomy(model).need_neurons():
        found |= each.slices(some(each.width, share, each.layer))
    return found


def rows_of(model: Any, ids: Any) -> Slices:
    """Rows of the tables, tied or not, and of the head's bias."""
    names = table_names(model)
    return {name: slice_of(0, ids) for name in names.among(dict(model.named_parameters()))}


def batches(step: int) -> list[Any]:
    random = np.random.default_rng(step)
    return [
        collate([Block(random.integers(0, ROWS, 12).tolist(), [0, 5], "", 0, 0)], "positions", torch.device("cpu"))
        for _ in range(2)
    ]


def learn(subject: Trainable, *, steps: int = STEPS, settings: AdamSettings = SETTINGS, bf16: bool = False,
          old_rows: int | None = 44, first: int = 0, optimiser: Optimiser | None = None) -> Optimiser:  # fmt: skip
    model = subject.model
    optimiser = optimiser or Optimiser(model, set(subject.names), settings, old_rows=old_rows, parts=subject.parts)
    head = find_head(model)
    for step in range(first, steps):
        for batch in batches(step):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = loss_of(model, batch, 24, head)
            loss.backward()
        optimiser.step(0.02, optimiser.gradient_norm())
    return optimiser


def masks(model: Any, movable: Movable) -> dict[str, torch.Tensor]:
    found = {}
    for name, value in model.named_parameters():
        mask = torch.zeros_like(value, dtype=torch.bool)
        if name in movable.names:
            mask.fill_(True)
        elif name in movable.slices:
            part = movable.slices[name]
            mask.index_fill_(part.axis, torch.from_numpy(part.ids).long(), True)
        found[name] = mask
    return found


def oracle(model: Any, movable: Movable, settings: AdamSettings = SETTINGS, *, old_rows: int = 44) -> None:
    """AdamW written out, on whole tensors: gradients masked before the clip, everything else put back at the end."""
    free = masks(model, movable)
    tables = {id(model.get_input_embeddings().weight)} | {id(v) for v in model.get_output_embeddings().parameters()}
    moments = {name: (torch.zeros_like(v), torch.zeros_like(v)) for name, v in model.named_parameters()}
    for step in range(STEPS):
        model.zero_grad()
        for batch in batches(step):
            logits = model(**batch.inputs, use_cache=False).logits
            labels = batch.labels_BL.reshape(-1)
            (functional.cross_entropy(logits.reshape(-1, ROWS), labels, reduction="sum") / 24).backward()
        gradients = {name: (0 if v.grad is None else v.grad) * free[name] for name, v in model.named_parameters()}
        norm = sum(float(g.double().square().sum()) for g in gradients.values()) ** 0.5
        scale = min(1.0, settings.clip / (norm + 1e-6))
        with torch.no_grad():
            for name, value in model.named_parameters():
                mean, square = moments[name]
                before, gradient = value.clone(), gradients[name] * scale
                mean.lerp_(gradient, 1 - settings.betas[0])
                square.mul_(settings.betas[1]).addcmul_(gradient, gradient, value=1 - settings.betas[1])
                rate = torch.full_like(value, 0.02)
                if id(value) in tables:
                    rate *= settings.tables_factor
                    rate[old_rows:] *= settings.new_rows_factor
                elif value.ndim >= 2:
                    value.mul_(1 - 0.02 * settings.weight_decay)
                corrected = mean / (1 - settings.betas[0] ** (step + 1))
                root = (square / (1 - settings.betas[1] ** (step + 1))).sqrt() + settings.epsilon
                value.sub_(rate * corrected / root)
                value.copy_(torch.where(free[name], value, before))


def bits(value: torch.Tensor) -> torch.Tensor:
    return value.detach().contiguous().view({4: torch.int32, 2: torch.int16}[value.element_size()])


def check_against_oracle(make: Callable[[], Any], choose: Callable[[Any], Movable]) -> None:
    naive, sliced, first = make(), make(), make()
    movable = choose(naive)
    oracle(naive, movable)
    learn(make_trainable(sliced, movable, seed=0, folder=None, compute="fp32"))
    free, start = masks(first, movable), dict(first.named_parameters())
    after, moved = dict(sliced.named_parameters()), 0
    for name, wanted in naive.named_parameters():
        # rounding of sums in another order
        assert (after[name] - wanted).abs().max() < 2e-5, name
        still = ~free[name]
        assert torch.equal(bits(after[name])[still], bits(start[name])[still]), name
        moved += int((bits(after[name]) != bits(start[name])).sum())
    assert moved > 0.9 * sum(int(mask.sum()) for mask in free.values())


MODELS: dict[str, Callable[[], Any]] = {
    "llama, grouped keys": lambda: build("llama"),
    "gpt2, transposed with biases": lambda: build("gpt2"),
    "qwen2, some biases, untied": lambda: build("qwen2", tied=False),
    "gemma2, scaled rows, capped logits": lambda: build("gemma2"),
    "phi, head with a bias": lambda: build("phi", tied=False),
    "phi3, fused gate and up": lambda: build("phi3", tied=False),
}


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
