"""Statistics and selections whose digests are right and whose manifests lack what is read of them, or say it wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import langadapt
from langadapt.core.artifact import open_artifact
from langadapt.core.errors import DataError
from langadapt.core.io import pretty_json
from langadapt.core.manifest import checksum
from langadapt.core.validate import validate
from langadapt.core.verb import load, price, resolved
from langadapt.steps.verify_shield import verify_shield
from tests.fixtures.measured import given_statistics
from tests.fixtures.tiny import tiny_corpus, tiny_model

Facts = dict[str, Any]
STATISTICS: dict[str, tuple[Callable[[Facts], object], str]] = {
    "no languages": (lambda facts: facts.pop("languages"), "lacks `languages`"),
    "a list of languages": (lambda facts: facts.update(languages=["en", "hu"]), "has a wrong `languages`"),
    "a language without tokens": (lambda facts: facts["languages"]["en"].pop("tokens"), "lacks `languages.en.tokens`"),
    "no window": (lambda facts: facts.pop("window_tokens"), "lacks `window_tokens`"),
    "no model": (lambda facts: facts.pop("model_digest"), "lacks `model_digest`"),
}  # fmt: skip
SELECTION: dict[str, tuple[Callable[[Facts], object], str]] = {
    "no count": (lambda facts: facts.pop("moving"), "lacks `moving`"),
    "a count in words": (lambda facts: facts.update(moving="some"), "has a wrong `moving`: input should be"),
    "no share": (lambda facts: facts.pop("body_share"), "lacks `body_share`"),
    "no model": (lambda facts: facts.update(model_digest=None), "has a wrong `model_digest`"),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, text, data, statistics, a selection. Read only."""
    folder = tmp_path_factory.mktemp("given")
    model = tiny_model(folder / "model")
    text = tiny_corpus(folder / "text", "hu", 20)
    langadapt.mix(
        out=folder / "data", model=model, corpora={"hu": str(text)}, block_tokens=32, document_separator="<s>"
    )
    given_statistics(folder / "statistics", model)
    langadapt.select(model, method="random", out=folder / "selection")
    return folder


def sealed_again(made: Path, place: Path, change: Callable[[Facts], object]) -> Path:
    """A copy with other facts and a checksum that fits."""
    shutil.copytree(made, place)
    manifest = json.loads((place / "artifact.json").read_text())
    change(manifest["facts"])
    manifest["checksum"] = checksum(manifest)
    (place / "artifact.json").write_text(pretty_json(manifest))
    return place


def refused(words: str, verb: str, out: Path, **given: Any) -> None:
    """By the run, and by its price."""
    loaded = load(verb)
    config = validate(loaded.config, {name: str(value) if isinstance(value, Path) else value
                                      for name, value in given.items()})  # fmt: skip
    for job in (lambda: price(loaded, config, resolved(loaded, config)), lambda: _run(verb, out, given)):
        with pytest.raises(DataError, match=rf"the manifest of the \w+ `.*` {words}") as error:
            job()
        assert error.value.exit_code == 3 and error.value.hint is not None and "make it again" in error.value.hint
    assert not out.exists()


def _run(verb: str, out: Path, given: Facts) -> None:
    getattr(langadapt, verb)(out=out, **given)


@pytest.mark.parametrize("harm", STATISTICS)
def test_statistics(place: Path, tmp_path: Path, harm: str) -> None:
    change, words = STATISTICS[harm]
    odd = sealed_again(place / "statistics", tmp_path / "odd", change)
    model, out = place / "model", tmp_path / "out"
    text = {"sk": str(place / "text" / "hu.jsonl")}
    settings = {"window_tokens": 64, "tokens": 100, "compute": "fp32"}
    refused(words, "calibrate", out, model=model, corpora=text, add=odd, **settings)
    refused(words, "select", out, model=model, method="lape", statistics=odd, lang="hu")
    run = {"steps": 2, "batch_tokens": 64, "strategy": "lape", "lang": "hu"}
    refused(words, "cpt", out, model=model, data=place / "data", statistics=odd, **run)


@pytest.mark.parametrize("harm", SELECTION)
def test_a_selection(place: Path, tmp_path: Path, harm: str) -> None:
    change, words = SELECTION[harm]
    odd = sealed_again(place / "selection", tmp_path / "odd", change)
    model, out = place / "model", tmp_path / "out"
    refused(words, "select", out, model=model, union=[str(odd)])
    refused(words, "cpt", out, model=model, data=place / "data", selection=odd, steps=2, batch_tokens=64)
    with pytest.raises(DataError, match=words):
        verify_shield(str(model), str(model), odd)


def test_any_other_artifact(place: Path, tmp_path: Path) -> None:
    """A fact that a step takes for granted is named with the artifact that lacks it."""
    odd = sealed_again(place / "data", tmp_path / "odd", lambda facts: facts.pop("document_separator"))
    facts = open_artifact(odd).facts
    assert facts.get("document_separator") is None and "document_separator" not in facts and facts["block_tokens"] == 32
    with pytest.raises(DataError, match=r"the manifest of `.*odd` lacks the fact `document_separator`"):
        langadapt.cpt(place / "model", odd, steps=2, batch_tokens=64, out=tmp_path / "out")
