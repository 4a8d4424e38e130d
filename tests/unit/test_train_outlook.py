"""What text and time buy, with a step that takes a known time on a machine with known memory."""

from typing import Any

import pytest
import torch

from langadapt.core.errors import DataError
from langadapt.train import cost
from langadapt.train.outlook import MAX_EPOCHS, REPLAY_SHARE, Outlook, look_ahead, shape_of

SMOL = {"parameters": 134_515_008, "rows": 49_152, "hidden_size": 576, "layers": 30, "tied": True, "dtype": "float32"}
RATE = 400.0


@pytest.fixture(autouse=True)
def known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 tokens a second, whatever the shape."""

    def seconds(shape: cost.Shape, work: cost.Work, device: torch.device) -> float:
        return work.block_tokens * work.batch_blocks / RATE

    monkeypatch.setattr(cost, "step_seconds", seconds)


def ahead(**changes: Any) -> Outlook:
    values: dict[str, Any] = {
        "target_tokens": 1_000_000, "new_rows": 4000, "budget_seconds": None, "compute": "fp32",
        "device": torch.device("cpu"), "free_bytes": 16 * 10**9,
    } | changes  # fmt: skip
    return look_ahead(SMOL, **values)


def test_without_a_budget_the_text_is_read_once() -> None:
    found = ahead()
    assert found.epochs == pytest.approx(1.0, abs=0.01)
    assert found.tokens == pytest.approx(1_000_000 / (1 - REPLAY_SHARE), rel=0.01)
    assert found.steps * found.batch_tokens == found.tokens
    assert found.tokens_a_second == pytest.approx(RATE)
    assert found.seconds > found.tokens / RATE


@pytest.mark.parametrize("hours", [0.25, 1, 2])
def test_a_budget_is_used_and_kept(hours: float) -> None:
    found = ahead(budget_seconds=hours * 3600)
    assert 0.9 * hours * 3600 < found.seconds <= hours * 3600
    assert found.epochs == pytest.approx(found.tokens * (1 - REPLAY_SHARE) / 1_000_000, rel=1e-3)


def test_more_than_four_passes_are_not_bought() -> None:
    found = ahead(budget_seconds=1e6)
    assert MAX_EPOCHS - 0.1 < found.epochs <= MAX_EPOCHS
    assert found.seconds < 1e5


def test_too_little_text_or_time() -> None:
    with pytest.raises(DataError, match="too short for training"):
        ahead(budget_seconds=10)
    with pytest.raises(DataError, match="too few tokens"):
        ahead(target_tokens=50)


def test_the_best_strategy_that_fits_into_memory() -> None:
    found = {free: ahead(free_bytes=int(free * 1e9)).strategy for free in (16.0, 5.5, 4.2, 2.0)}
    assert found == {16.0: "full", 5.5: "lora", 4.2: "embeddings", 2.0: None}
    assert ahead(free_bytes=10**9).memory_bytes > 10**9


def test_what_moves() -> None:
    full, lora, tables = (shape_of(SMOL, 1000, name) for name in ("full", "lora", "embeddings"))
    assert full.parameters == full.trained == SMOL["parameters"] + 1000 * 576
    assert tables.trained == 50_152 * 576
    # rank 16 on all linear layers of this model has 4.88 M numbers (peft), rank 64 four times as many
    assert lora.trained - tables.trained == pytest.approx(4 * 4.88e6, rel=0.25)
