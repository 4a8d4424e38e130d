"""The memory that refine-embeddings announces, against what whole runs took."""

from types import SimpleNamespace
from typing import Any

import pytest

from langadapt.steps._refine_price import _PROGRAM_BYTES, _training_bytes
from langadapt.train.footprint import shape_of

# SmolLM2-135M in float32 with 2,000 Hungarian tokens more, snippets of 50 tokens.
SHAPE = shape_of(parameters=135_667_008, rows=51_152, hidden=576, layers=30, tied=True, moves="none")
WEIGHTS = 4 * SHAPE.parameters
LEARNED: Any = SimpleNamespace(longest=lambda: (50, 130))


def announced(micro_batch: int, *, layer: int | None = None, compute: Any = "bf16", on_cpu: bool = True) -> float:
    config: Any = SimpleNamespace(layer=layer, next_token=0.0)
    return _PROGRAM_BYTES + _training_bytes(config, SHAPE, LEARNED, micro_batch, compute, WEIGHTS, on_cpu=on_cpu)


@pytest.mark.parametrize(("snippets", "measured"), [(16, 2_114e6), (16, 2_097e6), (4, 1_817e6)])
def test_what_real_runs_took_is_met_within_15_percent(snippets: int, measured: float) -> None:
    # 14 MB are the rows that move, with gradient and moments
    assert announced(snippets) + 14e6 == pytest.approx(measured, rel=0.15)


def test_fewer_layers_and_snippets_take_less() -> None:
    assert announced(4) < announced(8) < announced(16)
    # weights in float32 and as stored, while they load
    assert announced(1, layer=1) == _PROGRAM_BYTES + 2 * WEIGHTS
    assert announced(16) - announced(16, layer=15) == pytest.approx((announced(16) - announced(8)), rel=0.01)


def test_the_heap_of_learning_counts_beside_the_model_that_is_scored_on_a_cpu_alone() -> None:
    assert announced(16, on_cpu=False) < announced(16) - 1024 * SHAPE.rows * 2
