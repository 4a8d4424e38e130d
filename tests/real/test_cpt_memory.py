"""The memory that the dry run promises against whole runs of the real model; 15 % is the promise."""

import os
from pathlib import Path

import pytest

from tests.benchmarks.cpt_memory import TOLERANCE, compare, make_data

ASSETS = Path(os.environ.get("LANGADAPT_ASSETS", "work/assets-hu")).resolve()
MODEL = Path(os.environ.get("LANGADAPT_MODEL", ASSETS / "model" / "SmolLM2-135M-Instruct.Q4_1.gguf"))

pytestmark = [pytest.mark.real, pytest.mark.skipif(not ASSETS.is_dir(), reason="run `make assets` first")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(str(MODEL), ASSETS / "text" / "hu.jsonl", tmp_path_factory.mktemp("memory"))


# In fp32: on a CPU without bf16 units two steps in bf16 take a quarter of an hour.
@pytest.mark.parametrize("name", ["full, fp32", "gradient checkpointing, fp32", "lora, fp32"])
@pytest.mark.timeout(900)
def test_predicted_memory_is_what_a_run_takes(data: Path, name: str) -> None:
    found = compare(str(MODEL), data, name)
    assert found.ratio == pytest.approx(1.0, abs=TOLERANCE), f"{found.predicted:,} predicted, {found.peak:,} measured"
