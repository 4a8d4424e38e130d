"""The memory formula: activations counted on a real layer, orders that must hold, cards and the settings that fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from langadapt.core.types import Block, Movable, Portion, Slice
from langadapt.train.batches import collate
from langadapt.train.cards import CARDS, card_rows, first_that_fits, setups
from langadapt.train.footprint import Kept, Shape, Work, activation_bytes, memory_bytes, shape_of, state_bytes
from langadapt.train.trainable import make_trainable

SMOLLM2: dict[str, Any] = {"parameters": 134_515_008, "rows": 49_152, "hidden": 576, "layers": 30, "tied": True}
FULL = shape_of(**SMOLLM2, moves="full")
TABLES = shape_of(**SMOLLM2, moves="tables")
LORA = shape_of(**SMOLLM2, moves="tables", rank=64)
COLUMNS = shape_of(**SMOLLM2, moves=Portion(0.5, 1.0))
NEURONS = shape_of(**SMOLLM2, moves=Portion(0.01, 0.0))
USUAL = Work(256, 4, 4, "bf16")
WIDTH, LENGTH = 96, 128


def saved_bytes(layers: int, moves: str, compute: str) -> int:
    """Bytes of everything that autograd keeps of a forward pass and that is no copy of a matrix: an oracle."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=layers, num_attention_heads=6,
        num_key_value_heads=2, vocab_size=WIDTH, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config).train()
    movable = Movable(frozenset(name for name, _ in model.named_parameters() if moves == "full" or "embed" in name))
    if moves == "columns":
        chosen = {name: Slice(value.ndim - 1, np.arange(0, value.shape[-1], 2, dtype=np.int32))
                  for name, value in model.named_parameters() if "embed" not in name}  # fmt: skip
        movable = replace(movable, slices=chosen)
    if moves == "lora":
        movable = replace(movable, adapter={"peft_type": "LORA", "r": 8, "target_modules": "all-linear"})
    subject = make_trainable(model, movable, seed=0, folder=None, compute="fp32")
    for name, value in subject.model.named_parameters():
        value.requires_grad_(name in subject.names)
    weights = {value.untyped_storage().data_ptr() for value in model.parameters()}
    shapes = {tuple(value.shape) for value in model.parameters()}
    seen: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        place = value.untyped_storage()
        # a copy of a matrix in bf16 has its shape, or the transposed one
        if place.data_ptr() not in weights and not {tuple(value.shape), tuple(value.shape)[::-1]} & shapes:
            seen[place.data_ptr()] = place.nbytes()
        return value

    batch = collate([Block(list(range(64)) * 2, [0, 40], "", 0, 0)] * 2, "positions", torch.device("cpu"))
    bf16 = torch.autocast("cpu", torch.bfloat16, enabled=compute == "bf16")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value), bf16:
        result = model(**batch.inputs, use_cache=False).logits
    assert result.requires_grad
    return sum(seen.values())


@pytest.mark.parametrize("compute", ["bf16", "fp32"])
@pytest.mark.parametrize("moves", ["full", "tables", "lora", "columns"])
def test_saved_activations_are_those_of_a_real_layer(moves: str, compute: str) -> None:
    counted = (saved_bytes(3, moves, compute) - saved_bytes(1, moves, compute)) / 2 / (2 * LENGTH)
    # q and o, k and v, gate, up and down; two norms
    layer = WIDTH * (WIDTH * 2 + WIDTH * 2 // 3 + 3 * WIDTH * 3) + 2 * WIDTH
    shape = shape_of(
        parameters=WIDTH * WIDTH + 3 * layer + WIDTH, rows=WIDTH, hidden=WIDTH, layers=3, tied=True,
        moves="full" if moves == "full" else Portion(0.5, 1.0) if moves == "columns" else "tables",
        rank=8 if moves == "lora" else 0,
    )  # fmt: skip
    work = Work(LENGTH, 2, 2, "bf16" if compute == "bf16" else "fp32")
    assert activation_bytes(shape, work) == pytest.approx(counted, rel=0.06)


def test_the_parameters_of_an_adapter_are_those_that_peft_makes() -> None:
    # 64 x (in + out) of query, key, value, back, gate, up, down in each of 30 layers
    sides = [(576, 576), (576, 192), (576, 192), (576, 576), (576, 1536), (576, 1536), (1536, 576)]
    assert LORA.adapter == pytest.approx(30 * 64 * sum(a + b for a, b in sides), rel=1e-3)
    assert LORA.trained == LORA.adapter + 49_152 * 576
    assert not LORA.body_moves and LORA.tables_move and FULL.body_moves and not TABLES.body_moves


def test_the_state_of_what_moves_in_part_is_its_share_of_all() -> None:
    full, columns, neurons = (state_bytes(shape) for shape in (FULL, COLUMNS, NEURONS))
    assert full == 16 * FULL.parameters and columns < 0.7 * full and neurons < 0.05 * full
    assert state_bytes(NEURONS, Kept("8bit", "bf16")) < neurons / 1.9
    rows = shape_of(**SMOLLM2, moves=Portion(0.0, 0.1))
    assert state_bytes(rows) == pytest.approx(16 * 0.1 * rows.tables) and not rows.sliced and not rows.tables_move
    layers = shape_of(**SMOLLM2, moves=Portion(0.5, 1.0, whole=True))
    assert memory_bytes(layers, USUAL, CPU) < memory_bytes(FULL, USUAL, CPU) and not layers.sliced


CPU = Kept(on_cpu=True)
LONG = Work(256, 16, 16, "bf16")
# Peaks of whole runs on a CPU (docs/memory.md).
MEASURED: list[tuple[Shape, Work, Kept, float]] = [
    (FULL, USUAL, CPU, 3.86e9),
    (FULL, replace(USUAL, compute="fp32"), CPU, 4.00e9),
    (FULL, replace(USUAL, micro_batch_blocks=1), CPU, 3.60e9),
    (FULL, USUAL, replace(CPU, recompute=True), 2.99e9),
    (FULL, replace(USUAL, compute="fp32"), replace(CPU, recompute=True), 3.09e9),
    (TABLES, USUAL, CPU, 2.57e9),
    (LORA, USUAL, CPU, 3.50e9),
    (LORA, replace(USUAL, compute="fp32"), CPU, 4.27e9),
    (LORA, replace(USUAL, compute="fp32", micro_batch_blocks=1), CPU, 2.83e9),
    (LORA, replace(USUAL, compute="fp32", batch_blocks=8, micro_batch_blocks=8), CPU, 7.16e9),
    (LORA, replace(USUAL, compute="fp32"), replace(CPU, recompute=True), 2.98e9),
    (replace(LORA, rank=8, trained=LORA.trained - LORA.adapter * 7 // 8), replace(USUAL, compute="fp32"), CPU, 3.59e9),
    (COLUMNS, USUAL, CPU, 3.39e9),
    (COLUMNS, replace(USUAL, compute="fp32"), CPU, 4.02e9),
    (NEURONS, USUAL, CPU, 2.69e9),
    (NEURONS, replace(USUAL, compute="fp32"), CPU, 2.80e9),
    (FULL, LONG, CPU, 8.0e9),
    (FULL, LONG, replace(CPU, recompute=True), 3.9e9),
    (FULL, USUAL, replace(CPU, moments="8bit"), 4.5e9),
    (FULL, USUAL, replace(CPU, moments="4bit"), 4.2e9),
    (FULL, USUAL, replace(CPU, moments="8bit", weights="bf16"), 3.8e9),
    (FULL, USUAL, replace(CPU, moments="8bit", compiled=True), 2.65e9),
    (FULL, USUAL, replace(CPU, moments="8bit", weights="bf16", compiled=True), 2.1e9),
]


@pytest.mark.parametrize(("shape", "work", "kept", "peak"), MEASURED)
def test_peaks_that_were_measured_are_met_within_15_percent(shape: Shape, work: Work, kept: Kept, peak: float) -> None:
    assert memory_bytes(shape, work, kept) == pytest.approx(peak, rel=0.15)


def test_every_setting_that_should_save_memory_does() -> None:
    big = shape_of(parameters=8_030_261_248, rows=128_256, hidden=4096, layers=32, tied=False, moves="full")
    work = Work(512, 512, 16, "bf16")
    found = list(setups(big, work, Kept(), stored_bytes=2))
    sizes = [each.bytes for each in found]
    assert sizes[:5] == sorted(sizes[:5], reverse=True) and min(sizes) == sizes[-1]
    assert found[4].kept == Kept("8bit", "bf16", recompute=True) and found[4].work.micro_batch_blocks == 1
    assert memory_bytes(big, work, Kept("8bit", on_cpu=True)) > memory_bytes(big, work, Kept("8bit"))


def test_a_card_is_told_what_it_takes() -> None:
    rows = card_rows(FULL, replace(USUAL, batch_blocks=4096, micro_batch_blocks=64), Kept(), stored_bytes=4)
    assert sum(len(name.split(",")) for name, _ in rows) == len(CARDS)
    assert rows[-1] == ("fits 24, 48, 80 GB", "yes")
    assert rows[0][1] == "with -o micro_batch_blocks=1"
    none = first_that_fits(FULL, USUAL, Kept(), 1e9, stored_bytes=4)
    assert none is None
    assert card_rows(replace(FULL, parameters=10**12), USUAL, Kept(), stored_bytes=2)[0][1] == "does not fit"


def test_the_page_shows_what_the_formula_says() -> None:
    from tools.make_docs import memory_page

    page = Path(__file__).parents[2] / "docs" / "memory.md"
    assert page.read_text(encoding="utf-8") == memory_page(page.read_text(encoding="utf-8"))
