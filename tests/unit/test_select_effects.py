"""Silencing the neurons of one language and scoring another."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import langadapt
from langadapt.core.errors import ConfigError
from langadapt.core.io import read_json_object
from langadapt.core.verb import load
from langadapt.model.anatomy import anatomy
from langadapt.model.load import load_model
from langadapt.select.effects import silenced
from tests.fixtures.measured import given_statistics
from tests.fixtures.tiny import tiny_corpus, tiny_model

IDS = torch.tensor([[1, 40, 77, 120, 9, 200, 31, 8]])


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_a_silenced_neuron_is_one_whose_activation_is_0(tmp_path: Path, arch: str) -> None:
    """The oracle takes away what is put into the activation: both activations are 0 at 0."""
    model = load_model(tiny_model(tmp_path / arch, arch=arch))
    parts, plain = anatomy(model).need_neurons(), logits(model)
    chosen = [[3, 5], [0]]
    with silenced(model, parts, chosen):
        found = logits(model)
    assert torch.equal(logits(model), plain) and not torch.equal(found, plain)
    modules = dict(model.named_modules())
    with torch.no_grad():
        for layer, ids in zip(parts, chosen, strict=True):
            gate: Any = modules[layer.gate.module]
            weight = gate.weight.T if layer.gate.transposed else gate.weight
            weight[ids] = 0
            if gate.bias is not None:
                gate.bias[ids] = 0
    assert torch.equal(logits(model), found)


def test_silencing_nothing_changes_no_bit_and_everything_leaves_no_mlp(tmp_path: Path) -> None:
    model = load_model(tiny_model(tmp_path / "llama"))
    parts, plain = anatomy(model).need_neurons(), logits(model)
    with silenced(model, parts, [[], []]):
        assert torch.equal(logits(model), plain)
        assert not any(module._forward_pre_hooks for module in model.modules())
    with silenced(model, parts, [range(64), range(64)]):
        found = logits(model)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.zero_()
    assert torch.equal(logits(model), found)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("effects") / "model")


def test_the_matrix_has_every_language_and_a_control_of_the_same_size(model: Path, tmp_path: Path) -> None:
    text = {lang: str(tiny_corpus(tmp_path / "text", lang, 400)) for lang in ("en", "hu")}
    made = langadapt.select(
        model=model, method="lape", method_options={"top_rate": 0.1}, lang="hu", effects=True, text=text,
        statistics=given_statistics(tmp_path / "stats", model), effects_bytes=1200, out=tmp_path / "sel",
    )  # fmt: skip
    record = read_json_object(made.path / "selection.json")["found"]
    found = record["effects"]
    assert found["bits_per_byte"].keys() == {"en", "hu"}
    assert found["change"].keys() == found["random"].keys() == {"de", "en", "hu"} == record["counts"].keys()
    values = [value for key in ("change", "random") for row in found[key].values() for value in row.values()]
    assert np.isfinite(values).all() and any(values)
    first = load("select").table(made)[0]  # type: ignore[misc, index]
    assert len(first.rows) == 7 and first.rows[1][:2] == ("neurons of de", f"{record['counts']['de']:,}")
    plain = langadapt.select(
        model=model, method="lape", method_options={"top_rate": 0.1}, lang="hu",
        statistics=tmp_path / "stats", out=tmp_path / "plain",
    )  # fmt: skip
    assert (plain.path / "moves.safetensors").read_bytes() == (made.path / "moves.safetensors").read_bytes()


def test_effects_need_text_and_neurons(model: Path, tmp_path: Path) -> None:
    text = {"hu": str(tiny_corpus(tmp_path / "text", "hu", 60))}
    for more, words in (
        ({"method": "lape", "effects": True}, "measured on text"),
        ({"method": "magnitude", "text": text}, "is for an effect matrix"),
        ({"method": "magnitude", "text": text, "effects": True}, "chooses no neurons of languages"),
    ):
        with pytest.raises(ConfigError, match=words):
            langadapt.select(model=model, out=tmp_path / "sel", **more)
