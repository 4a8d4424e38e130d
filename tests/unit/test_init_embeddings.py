"""The verb itself: same bytes twice, its price, what it says and what it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import langadapt
from langadapt.core import verb as verbs
from langadapt.core.artifact import Artifact
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input, resolve_inputs
from langadapt.core.progress import Note
from langadapt.core.validate import validate
from langadapt.embed.rowmap import load_maps
from langadapt.model.tables import open_tables
from tests.fixtures.extended import MERGES, extended_tokenizer
from tests.fixtures.tiny import tiny_model


def config_of(**values: Any) -> Any:
    verb = verbs.load("init-embeddings")
    return verb, validate(verb.config, values, what="test")


@pytest.fixture(scope="module")
def tokenizer(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extended_tokenizer(tiny, tmp_path_factory.mktemp("tok") / "t")


@pytest.fixture(scope="module")
def made(tiny: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return langadapt.init_embeddings(out=tmp_path_factory.mktemp("init") / "a", model=tiny, tokenizer=tokenizer)


def test_twice_gives_the_same_bytes(made: Artifact, tiny: Path, tokenizer: Path, tmp_path: Path) -> None:
    again = langadapt.init_embeddings(out=tmp_path / "b", model=tiny, tokenizer=tokenizer)
    assert again.manifest == made.manifest
    assert (again.path / "artifact.json").read_bytes() == (made.path / "artifact.json").read_bytes()


def test_facts_and_table(made: Artifact) -> None:
    facts = made.facts
    assert facts["rows"] == 363 and facts["old_rows"] == 358 and facts["added"] == len(MERGES)
    assert facts["method"] == "position-weighted" and facts["tied"] is True and facts["dtype"] == "float32"
    assert facts["parameters"] == 30048 + len(MERGES) * 32
    table = verbs.load("init-embeddings").table
    assert table is not None
    shown = table(made)
    assert ("rows", "358 -> 363") in shown.rows and all(len(row) == len(shown.columns) for row in shown.rows)


def test_the_stored_map_gives_the_stored_rows(made: Artifact, tiny: Path) -> None:
    """The map is enough to explain a row, and to make it again for this model or a sibling."""
    rows = load_maps(made.path)["input"]
    stored = open_tables(made.path).read_input()[torch.from_numpy(rows.new_ids)].numpy()
    np.testing.assert_array_equal(rows.apply(open_tables(tiny).read_input().numpy()), stored)


@pytest.mark.parametrize("how", [{}, {"tied": False}, {"padded_rows": 3}])
def test_the_estimate_predicts_the_facts(how: dict[str, Any], tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", **how)
    tokenizer = extended_tokenizer(base, tmp_path / "tok")
    verb, config = config_of(model=str(base), tokenizer=str(tokenizer), pad_to_multiple_of=8)
    estimate = verb.estimate(config, resolve_inputs(config))
    result = verbs.perform(verb, config, tmp_path / "out")
    assert estimate.facts.items() <= result.artifact.facts.items()
    written = sum(path.stat().st_size for path in result.artifact.path.iterdir())
    assert estimate.disk_bytes is not None and estimate.disk_bytes > written


def test_the_estimate_works_on_what_does_not_exist_yet(tmp_path: Path) -> None:
    verb, config = config_of(model="m", tokenizer="t")
    model = {"parameters": 1000, "rows": 100, "hidden_size": 4, "layers": 1, "tied": True, "dtype": "bfloat16"}
    soon = {
        "model": Input("m", tmp_path / "m", None, "", model, exists=False),
        "tokenizer": Input("t", tmp_path / "t", None, "", {"added": 20}, exists=False),
    }
    facts = verb.estimate(config, soon).facts
    assert facts["rows"] == 120 and facts["parameters"] == 1080 and facts["added"] == 20
    known = {"added": 20, "lang": "hu", "bytes_per_token": {"base": 2.0, "adapted": 4.5}}
    soon["tokenizer"] = Input("t", tmp_path / "t", None, "", known, exists=False)
    assert verb.estimate(config, soon).facts["expected_bytes_per_token"] == {"hu": 4.5}
    nothing = {name: Input(name, tmp_path / name, None, "", {}, exists=False) for name in soon}
    assert verb.estimate(config, nothing).seconds is None


def test_head_method_needs_a_head(tiny: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one table for input and head"):
        langadapt.init_embeddings(out=tmp_path / "o", model=tiny, tokenizer=tokenizer, head_method="mean")


def test_two_methods_on_two_tables(tiny_untied: Path, tmp_path: Path) -> None:
    tokenizer = extended_tokenizer(tiny_untied, tmp_path / "t")
    made = langadapt.init_embeddings(
        out=tmp_path / "o", model=tiny_untied, tokenizer=tokenizer, method="random", head_method="mean"
    )
    notes = [json.loads(line) for line in (made.path / "provenance.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(note["table"], note["method"]) for note in notes} == {("input", "random"), ("head", "mean")}
    tables = open_tables(made.path)
    assert len(torch.unique(tables.read_input()[358:], dim=0)) == len(MERGES)
    assert len(torch.unique(tables.read_head()[358:], dim=0)) == 1


def test_a_tokenizer_without_new_tokens_is_a_copy_with_a_warning(tiny: Path, tmp_path: Path) -> None:
    heard: list[Any] = []
    made = langadapt.init_embeddings(out=tmp_path / "o", model=tiny, tokenizer=tiny, listener=heard.append)
    assert any(isinstance(event, Note) and "no new tokens" in event.text for event in heard)
    assert made.facts["added"] == 0
    assert (made.path / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()


def test_unknown_method_names_the_nearest(tiny: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="subtoken-meen") as caught:
        langadapt.init_embeddings(out=tmp_path / "o", model=tiny, tokenizer=tokenizer, method="subtoken-meen")
    assert "subtoken-mean" in (caught.value.hint or "")


def test_tokenizer_made_for_another_model(tiny: Path, tokenizer: Path, tmp_path: Path) -> None:
    content = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"] = {piece: id + (id > 200) for piece, id in content["model"]["vocab"].items()}
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "t" / "vocab_map.jsonl").write_text('{"vocabulary_before": 358}\n', encoding="utf-8")
    with pytest.raises(DataError, match="does not extend the vocabulary"):
        langadapt.init_embeddings(out=tmp_path / "o", model=tiny, tokenizer=tmp_path / "t")


def test_a_model_that_computes_nan_is_named(tiny: Path, tokenizer: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(tiny, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.weight"][0, 0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"`.*broken` computes NaN or infinity"):
        langadapt.init_embeddings(out=tmp_path / "out", model=broken, tokenizer=tokenizer)
