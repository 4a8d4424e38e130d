"""What every selection method promises: what it does not name comes out bit for bit as it went in."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import langadapt
from langadapt.core.registry import load_method, method_names
from langadapt.model.load import load_model
from langadapt.steps._strategy import look_at
from tests.fixtures.tiny import tiny_corpus, tiny_model

OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "peft": {"config": {"peft_type": "LOHA", "r": 4}},
}


# Their choice is whole tensors, or an adapter.
WHOLE = [name for name in method_names("select") if name in ("embeddings", "full", "layers", "lora", "peft")]


def movable(model: Any, name: str) -> tuple[set[str], bool]:
    """Names of what the method lets move, and whether an adapter changes the linear layers beside them."""
    method, look = load_method("select", name), look_at(model, None, seed=0)
    found = method(look, method.options(**OPTIONS.get(name, {})))
    assert found.names <= look.parameters.keys()
    return set(found.names), found.adapter is not None


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", WHOLE)
def test_frozen_tensors_are_the_same_bytes_in_the_saved_file(tmp_path: Path, name: str, tied: bool) -> None:
    """Decay, momentum, clipping, bf16 compute and bf16 storage are all on: each can move what a mask only hides."""
    base = tiny_model(tmp_path / "base", tied=tied, dtype="bfloat16")
    text = str(tiny_corpus(tmp_path / "text", "hu", 30))
    data = langadapt.mix(
        out=tmp_path / "data", model=base, corpora={"hu": text}, block_tokens=32, document_separator="<s>"
    )
    made = langadapt.cpt(
        out=tmp_path / "out", model=base, data=data, steps=50, batch_tokens=64, strategy=name, compute="bf16",
        strategy_options=OPTIONS.get(name, {}), learning_rate=1e-2, weight_decay=0.5, clip=0.1,
    )  # fmt: skip
    model = load_model(base)
    names, adapted = movable(model, name)
    if not adapted:
        sizes = {key: value.numel() for key, value in model.named_parameters()}
        assert made.facts["trained_parameters"] == sum(sizes[key] for key in names)
    else:
        names |= {f"{key}.weight" for key, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
        names -= {"lm_head.weight"} if tied else set()
    before, after = load_file(base / "model.safetensors"), load_file(made.path / "model.safetensors")
    assert before.keys() == after.keys()
    for key in before:
        assert after[key].dtype == before[key].dtype == torch.bfloat16
        same = torch.equal(before[key].view(torch.int16), after[key].view(torch.int16))
        assert same == (key not in names), key


def test_embeddings_names_the_tables_of_a_model_with_a_biased_head(tmp_path: Path) -> None:
    model = load_model(tiny_model(tmp_path / "phi", head_bias=True))
    assert movable(model, "embeddings") == ({"model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"}, False)
