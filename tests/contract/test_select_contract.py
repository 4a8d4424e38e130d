"""What every selection method promises: what it does not name comes out bit for bit as it went in."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import langadapt
from langadapt.core.registry import load_method, method_names
from langadapt.core.types import Movable
from langadapt.model.load import load_model
from langadapt.model.row_origin import write_origin
from langadapt.select.selection import read_selection
from langadapt.steps._strategy import look_at, looks_at_text
from tests.fixtures.measured import given_statistics
from tests.fixtures.tiny import tiny_corpus, tiny_model

OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "peft": {"config": {"peft_type": "LOHA", "r": 4}},
    "shielded-lora": {"rank": 4},
    "kappa": {"tensors": 3},
    "layers": {"layers": "-1"},
    **{name: {"top_rate": 0.1} for name in ("lape", "subnetwork", "activation-gap", "taylor")},
}
UNTIED = ("embeddings", "full", "hft", "lora", "new-tokens", "peft", "random", "shielded-lora", "subnetwork")
CASES = [
    *((name, "llama", True) for name in method_names("select")),
    *((name, "llama", False) for name in UNTIED),
    ("ssu", "gpt2", True),
]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model with new rows, and data and statistics for it, by architecture and ties."""

    @functools.cache
    def make(arch: str, tied: bool) -> tuple[Path, Path, Path]:
        folder = tmp_path_factory.mktemp(arch)
        base = tiny_model(folder / "base", arch=arch, tied=tied, dtype="bfloat16")
        rows = load_model(base).get_input_embeddings().weight.shape[0]
        write_origin(base, np.where(np.arange(rows) % 8 == 5, -1, np.arange(rows)).astype(np.int32))
        text = str(tiny_corpus(folder / "text", "hu", 30))
        data = langadapt.mix(
            out=folder / "data", model=base, corpora={"hu": text}, block_tokens=32, document_separator="<s>"
        )
        return base, data.path, given_statistics(folder / "statistics", base)

    return make


def chosen(model: Any, name: str) -> Movable:
    """What a method chooses of a model without looking at anything else."""
    method, look = load_method("select", name), look_at(model, None, seed=0)
    found: Movable = method(look, method.options(**OPTIONS.get(name, {})))
    assert found.names <= look.parameters.keys()
    return found


@pytest.mark.parametrize(("name", "arch", "tied"), CASES)
def test_frozen_places_are_the_same_bytes_in_the_saved_file(
    tmp_path: Path, given: Any, name: str, arch: str, tied: bool
) -> None:
    """Decay, momentum, clipping, bf16 compute and bf16 storage are all on: each can move what a mask only hides."""
    base, data, statistics = given(arch, tied)
    more: dict[str, Any] = {}
    if looks_at_text(load_method("select", name)):
        more = {"statistics": statistics, "source": "en"}
    made = langadapt.cpt(
        out=tmp_path / "out", model=base, data=data, steps=12, batch_tokens=64, strategy=name, compute="bf16",
        strategy_options=OPTIONS.get(name, {}), learning_rate=1e-2, weight_decay=0.5, clip=0.1, **more,
    )  # fmt: skip
    names, slices = frozenset(dict(load_model(base).named_parameters())), {}
    if name == "full":
        assert not (made.path / "selection").exists()
    else:
        record = read_selection(made.path / "selection")
        names, slices = record.names, dict(record.slices)
        assert made.facts["selection"]["moving"] == record.total < record.parameters
        if name not in ("lora", "peft", "shielded-lora"):
            assert made.facts["trained_parameters"] == record.total
    before, after = load_file(base / "model.safetensors"), load_file(made.path / "model.safetensors")
    assert before.keys() == after.keys()
    moved = 0
    for key in before:
        assert after[key].dtype == before[key].dtype == torch.bfloat16
        same = before[key].view(torch.int16) == after[key].view(torch.int16)
        if key in names:
            assert not same.all(), key
            continue
        part = slices.get(key)
        if part is None:
            assert same.all(), key
            continue
        free = torch.zeros(same.shape[part.axis], dtype=torch.bool)
        free[torch.from_numpy(part.ids).long()] = True
        assert same.movedim(part.axis, 0)[~free].all(), key
        moved += int((~same).sum())
        assert not same.all() or same.numel() < 100, key
    assert moved or not slices


def test_embeddings_names_the_tables_of_a_model_with_a_biased_head(tmp_path: Path) -> None:
    model = load_model(tiny_model(tmp_path / "phi", head_bias=True))
    found = chosen(model, "embeddings")
    assert found.names == {"model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"}
    assert found.adapter is None
