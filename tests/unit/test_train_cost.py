"""The price of a run, from facts alone."""

from pathlib import Path

import pytest
import torch

from langadapt.core import verb as verbs
from langadapt.core.inputs import Input
from langadapt.core.validate import validate
from langadapt.model.compute import busy_with
from langadapt.train import cost
from langadapt.train.cost import step_seconds
from langadapt.train.footprint import Shape, Work, memory_bytes

SMOLLM2 = Shape(parameters=134_515_008, trained=134_515_008, rows=49_152, hidden=576, layers=30, tied=True)
MODEL_FACTS = {
    "parameters": 136_819_008, "rows": 53_152, "old_rows": 49_152, "hidden_size": 576, "layers": 30, "tied": True,
    "dtype": "float32", "added": 4000, "method": "mean",
}  # fmt: skip
SOURCES = {
    "hu": {"lang": "hu", "role": "target", "tokens": 400_000, "share_tokens": 0.85, "bytes_per_token": 4.2},
    "en": {"lang": "en", "role": "replay", "tokens": 900_000, "share_tokens": 0.15, "bytes_per_token": 4.6},
}


def promised(path: str, facts: dict[str, object]) -> Input:
    return Input(path, Path(path), None, "", facts, exists=False)


def price(**wishes: object):  # type: ignore[no-untyped-def]
    verb = verbs.load("cpt")
    config = validate(verb.config, {"model": "m", "data": "d", "compute": "fp32"} | wishes)
    inputs = {
        "model": promised("m", MODEL_FACTS),
        "data": promised("d", {"sources": SOURCES, "block_tokens": 256, "vocabulary": 53_152}),
    }
    return verb.estimate(config, inputs)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langadapt.train.cost.step_seconds", lambda *a, **k: 4.0)


def test_a_run_is_priced_before_its_model_and_data_exist(quick: None) -> None:
    found = price(steps=95)
    assert found.seconds == pytest.approx(95 * 4.0, rel=0.25)
    shown = dict(found.rows)
    assert shown["tokens"] == "97,280 = 95 steps of 1,024"
    assert "hu 0.21 times" in shown["text read"]
    assert found.facts["steps"] == 95 and found.facts["rows"] == 53_152 and found.facts["lang"] == "hu"
    # one checkpoint falls due, one more is written if the run is stopped
    assert found.disk_bytes == 2 * 12 * 136_819_008 + 4 * 136_819_008 and found.passing_bytes == 2 * 12 * 136_819_008
    branch = price(steps=95, schedule="wsd", keep_branch=True)
    assert branch.disk_bytes - branch.passing_bytes == (4 + 12) * 136_819_008  # the model, and the kept state


def test_embeddings_only_is_cheaper(quick: None) -> None:
    full, tables = price(steps=10), price(steps=10, strategy="embeddings")
    assert tables.memory_bytes < full.memory_bytes - 1e9
    assert tables.facts["trained_parameters"] == 53_152 * 576


def test_memory_knows_adapters_moments_and_checkpointing(quick: None) -> None:
    usual = price(steps=10, gradient_checkpointing="off").memory_bytes
    lora = price(steps=10, strategy="lora", strategy_options={"rank": 8})
    assert lora.facts["trained_parameters"] == pytest.approx(53_152 * 576 + 30 * 8 * (7 * 576 + 6144), rel=1e-3)
    assert lora.memory_bytes < usual
    assert price(steps=10, gradient_checkpointing="on").memory_bytes < usual - 5e8
    low = price(steps=10, moments="8bit", weights="bf16", compute="bf16", compile=True)
    assert low.memory_bytes < usual - 1.5e9 and low.disk_bytes < price(steps=10).disk_bytes
    stages = price(steps=10, stages=[{"share": 0.5, "strategy": "embeddings"}, {"strategy": "full"}])
    assert stages.facts["trained_parameters"] == 136_819_008


def test_the_dry_run_says_what_fits_where(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langadapt.train.price.free_memory", lambda device: 3.8e9)
    shown = dict(price(steps=10, gradient_checkpointing="off").rows)
    assert shown["fits 12, 16, 24, 48, 80 GB"] == "yes"
    assert shown["here"].endswith("of 3.8 GB that are free; with -o micro_batch_blocks=1 --gradient-checkpointing on")
    monkeypatch.setattr("langadapt.train.price.free_memory", lambda device: 2e9)
    assert dict(price(steps=10, gradient_checkpointing="off").rows)["here"].endswith("; does not fit")
    monkeypatch.setattr("langadapt.train.price.free_memory", lambda device: 1e12)
    assert "here" not in dict(price(steps=10).rows)


def test_a_busy_machine_is_said_beside_the_time(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("os.getloadavg", lambda: (7.04, 3.0, 1.0))
    assert dict(price(steps=10).rows)["timed while busy"].startswith("load 7.0 on 2 core(s); ")
    assert busy_with(torch.device("cuda")) is None
    monkeypatch.setattr("os.getloadavg", lambda: (1.9, 9.0, 9.0))
    assert "timed while busy" not in dict(price(steps=10).rows)
    monkeypatch.delattr("os.getloadavg")
    assert busy_with(torch.device("cpu")) is None, "Windows has none"


def test_learning_rates_that_are_tried_are_part_of_the_price(quick: None) -> None:
    plain, probed = price(steps=95), price(steps=95, lr_probe=True, learning_rate=1e-4)
    assert probed.seconds - plain.seconds == pytest.approx(3 * 50 * 4.0, rel=0.25)
    assert dict(probed.rows)["rates to try"].startswith("3e-05, 0.0001, 0.0003: 50 steps each, ")
    few = price(steps=10, lr_probe=True, lr_probe_factors=[1.0, 3.0])
    assert "10 steps each" in dict(few.rows)["rates to try"] and few.seconds < price(steps=40).seconds


def test_unknown_facts_are_said_and_not_guessed(quick: None) -> None:
    verb = verbs.load("cpt")
    config = validate(verb.config, {"model": "m", "data": "d"})
    found = verb.estimate(config, {"model": promised("m", {}), "data": promised("d", {})})
    assert found.seconds is None and found.memory_bytes is None


def test_the_width_of_a_layer_follows_from_the_parameters() -> None:
    # q and o 576 each, k and v 192 each, gate, up and down 1,536 each, two norms
    assert SMOLLM2.layer_width == pytest.approx(576 * 2 + 192 * 2 + 1536 * 3, abs=3)


def test_memory_grows_with_what_is_computed_at_once() -> None:
    sizes = [memory_bytes(SMOLLM2, Work(256, 4, blocks, "fp32")) for blocks in (1, 2, 4, 8)]
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]
    assert memory_bytes(SMOLLM2, Work(256, 4, 4, "bf16")) < sizes[2]


def test_a_step_is_timed_quickly_and_in_proportion() -> None:
    shape = Shape(parameters=30_000, trained=30_000, rows=350, hidden=32, layers=2, tied=True)
    one, four = (
        step_seconds(shape, Work(64, blocks, 1, "fp32"), device=torch.device("cpu"), budget_seconds=0.1)
        for blocks in (4, 16)
    )
    assert 0 < one < four < 20 * one


def test_the_timed_layer_has_the_products_of_a_real_one() -> None:
    """Count multiply-adds of the timed layer with torch's own counter: 6 x parameters x tokens, and attention."""
    from torch.utils.flop_counter import FlopCounterMode

    work = Work(64, 1, 1, "fp32")
    job = cost._layer(SMOLLM2, 64, work, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        job()
    products = 6 * SMOLLM2.layer_width * 576 * 64
    assert counter.get_total_flops() == pytest.approx(products, rel=0.1)


def test_a_gpu_is_timed_with_a_whole_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the few tokens that suffice for a CPU its time is that of asking it: 30 times as long was seen."""
    asked: list[int] = []
    monkeypatch.setattr(cost, "_layer", lambda shape, tokens, work, device, learns=True: asked.append(tokens))
    monkeypatch.setattr(cost, "_head", lambda shape, tokens, work, device: asked.append(tokens))
    monkeypatch.setattr(cost, "_move", lambda numbers, device: asked.append(numbers))
    monkeypatch.setattr(cost, "_time", lambda job, device, budget: 1.0)
    large = Shape(parameters=1_719_568_384, trained=1_719_568_384, rows=53_152, hidden=2048, layers=24, tied=True)
    work = Work(512, 32, 16, "bf16")
    for device in ("cpu", "cuda"):
        step_seconds(large, work, device=torch.device(device))
        cost.forward_seconds(large, work, device=torch.device(device))
    assert asked == [64, 92, 4_000_000, 298, 8192, 2048, 32_000_000, 8192]
