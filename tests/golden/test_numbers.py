"""Numbers that must not drift: new tokens, their rows, the order of data, and the losses of a short run in fp32."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import langadapt
from langadapt.mixture.stream import Stream
from tests.fixtures.tiny import tiny_corpus
from tests.golden.golden import expected


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> dict[str, Any]:
    """The chain by its Python functions, from text to a trained model."""
    folder = tmp_path_factory.mktemp("golden")
    state = random.getstate(), np.random.get_state()[1].tolist()
    made = {}
    for lang, seed in (("hu", 0), ("en", 1)):
        text = tiny_corpus(folder / f"text-{lang}", lang, 120, seed)
        made[lang] = langadapt.prepare(text=[text], lang=lang, min_lang_probability=0.0, out=folder / lang)
    tokenizer = langadapt.extend_vocab(
        model=tiny, corpus=made["hu"], guard=[made["en"]], size=40, min_count=2, out=folder / "tokenizer"
    )
    model = langadapt.init_embeddings(model=tiny, tokenizer=tokenizer, out=folder / "init")
    data = langadapt.mix(model=model, corpora=made, replay={"en": 0.25}, block_tokens=64, out=folder / "data")
    trained = langadapt.cpt(
        model=model, data=data, steps=12, batch_tokens=256, learning_rate=2e-3, compute="fp32", threads=1,
        out=folder / "cpt",
    )  # fmt: skip
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state, "a step moved a global random stream"
    lines = (tokenizer.path / "vocab_map.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    rows = next(value for name, value in load_file(model.path / "model.safetensors").items() if "embed" in name)
    metrics = [json.loads(line) for line in (trained.path / "metrics.jsonl").read_text().splitlines()]
    stream = Stream.open(data.path)
    return {
        "pieces": [json.loads(line)["piece"] for line in lines],
        "row_norms": [float(value) for value in np.linalg.norm(rows[-40:], axis=1)],
        "blocks": [[block.source, block.epoch, block.index] for block in map(stream.block, range(40))],
        "losses": [line["loss"] for line in metrics if "loss" in line],
        "separator": trained.facts["document_separator"],
    }


@pytest.mark.parametrize("name", ["pieces", "blocks", "separator"])
def test_whole_numbers_and_names_are_the_same(numbers: dict[str, Any], name: str) -> None:
    assert numbers[name] == expected(name, numbers[name])


@pytest.mark.parametrize(("name", "tolerance"), [("row_norms", 1e-6), ("losses", 1e-4)])
def test_measured_numbers_are_the_same(numbers: dict[str, Any], name: str, tolerance: float) -> None:
    # other processors add in another order: 1e-4 is a hundred times that, and a tenth of the smallest real change
    assert numbers[name] == pytest.approx(expected(name, numbers[name]), rel=tolerance)


def test_training_lowers_the_loss(numbers: dict[str, Any]) -> None:
    assert np.mean(numbers["losses"][-3:]) < 0.9 * np.mean(numbers["losses"][:3])
