"""Right artifacts in the wrong place: a branch of other weights, models in each other's place."""

from pathlib import Path
from typing import Any

import pytest

import langadapt
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.progress import Note
from tests.fixtures.extended import extended_tokenizer
from tests.fixtures.tiny import tiny_corpus


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A model with new rows, data for it, and two short wsd runs that kept their branches."""
    place = tmp_path_factory.mktemp("order")
    text = tiny_corpus(place / "text", "hu", 150)
    langadapt.init_embeddings(out=place / "begun", model=tiny, tokenizer=extended_tokenizer(tiny, place / "tokenizer"))
    langadapt.mix(
        out=place / "data", model=place / "begun", corpora={"hu": text}, block_tokens=32, document_separator="<s>"
    )
    for strategy in ("full", "embeddings"):
        train(place, place / strategy, strategy=strategy, keep_branch=True)
    return place


def train(work: Path, out: Path, **more: Any) -> Any:
    values: dict[str, Any] = {"steps": 5, "batch_tokens": 128, "learning_rate": 1e-3, "compute": "fp32"}
    values |= {"model": work / "begun", "data": work / "data", "schedule": "wsd", "warmup_steps": 1}
    return langadapt.cpt(out=out, **values | more)


@pytest.mark.parametrize(
    ("branch", "more"),
    [("full", {"strategy": "embeddings"}), ("embeddings", {"strategy": "full"}), ("full", {"strategy": "lora"})],
)
def test_a_branch_of_other_weights_is_refused(work: Path, tmp_path: Path, branch: str, more: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="was not written by a run that trains what this one does") as refused:
        train(work, tmp_path / "out", branch_from=str(work / branch), steps=8, warmup_steps=None, **more)
    assert "strategy" in str(refused.value.hint)
    assert not (tmp_path / "out").exists()


def test_a_branch_goes_on_with_its_own_batch_only(work: Path, tmp_path: Path) -> None:
    again = {"branch_from": str(work / "full"), "warmup_steps": None}
    with pytest.raises(ConfigError, match="`batch_tokens` is 256, the branch was trained with 128"):
        train(work, tmp_path / "other", steps=8, batch_tokens=256, **again)
    assert train(work, tmp_path / "same", steps=8, **again).facts["steps"] == 8


@pytest.mark.parametrize(
    ("base", "adapted", "swapped"),
    [("tiny", "full", False), ("full", "tiny", True), ("begun", "tiny", True), ("full", "full", False)],
)
def test_base_and_adapted_in_each_others_place(
    base: str, adapted: str, swapped: bool, work: Path, tiny: Path, tmp_path: Path
) -> None:
    """A gain would be read as a loss, so it is said."""
    said: list[str] = []
    scores = langadapt.evaluate(
        out=tmp_path / "scores", base=tiny if base == "tiny" else work / base,
        adapted=tiny if adapted == "tiny" else work / adapted, sets={"hu": work / "text" / "hu.jsonl"}, set_bytes=400,
        segment_bytes=100, context_bytes=100, bootstrap_samples=100, continuations=0, document_separator="<s>",
        listener=lambda event: said.append(event.text) if isinstance(event, Note) else None,
    )  # fmt: skip
    for lines in (said, scores.facts["warnings"]):
        assert any("are the two swapped?" in line for line in lines) == swapped
