"""The verb `select`: what it writes, what it shows, what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import langadapt
from langadapt.core.artifact import open_artifact
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input, digest_of
from langadapt.core.types import Portion
from langadapt.core.validate import validate
from langadapt.core.verb import load, price, resolved
from langadapt.model.anatomy import anatomy
from langadapt.model.empty import empty_model
from langadapt.model.load import load_model
from langadapt.select.selection import read_selection
from langadapt.steps._cpt_price import given_portion
from tests.fixtures.measured import given_statistics
from tests.fixtures.tiny import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("select") / "model", dtype="bfloat16")


@pytest.fixture(scope="module")
def statistics(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return given_statistics(tmp_path_factory.mktemp("statistics") / "stats", model)


def test_a_model_without_values_has_the_same_parts(model: Path) -> None:
    loaded, empty = load_model(model), empty_model(model)
    assert anatomy(loaded) == anatomy(empty)
    assert [(name, value.shape) for name, value in loaded.named_parameters()] == [
        (name, value.shape) for name, value in empty.named_parameters()
    ]
    assert all(value.is_meta for value in empty.parameters())


def test_ssu_by_the_verb_writes_what_the_method_chose(model: Path, statistics: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"method": "ssu", "method_options": {"ratio": 0.25}, "source": "en"}
    made = langadapt.select(model=model, statistics=statistics, out=tmp_path / "sel", **given)
    found = read_selection(made.path)
    down = found.slices["model.layers.0.mlp.down_proj.weight"]
    assert (down.axis, len(down.ids), down.ids.dtype) == (1, 48, np.int32)
    facts = made.facts
    assert facts["model_digest"] == digest_of(model)
    assert facts["statistics"] == open_artifact(statistics).digest
    assert (facts["method"], facts["options"]["ratio"]) == ("ssu", 0.25)
    assert (facts["moving"], facts["parameters"]) == (found.total, found.parameters)
    assert 0 < facts["stability"] < 1  # numbers drawn for the two halves alone
    again = langadapt.select(model=model, statistics=statistics, out=tmp_path / "two", **given)
    assert again.digest == made.digest
    layers, kinds = load("select").table(made)  # type: ignore[misc]
    assert [row[0] for row in layers.rows] == ["0 to 1, each", "outside"]  # the same number moves of both
    assert ("mlp.down_proj.weight", "3,072", "4,096", "75.00%") in kinds.rows


def test_selections_are_joined_cut_and_taken_away(model: Path, tmp_path: Path) -> None:
    def made(name: str, method: str | None, **more: Any) -> Path:
        return langadapt.select(model=model, method=method, out=tmp_path / name, **more).path

    half = made("half", "magnitude")
    low = made("low", "random", seed=3)
    layer = made("layer", "layers", method_options={"layers": "0", "tables": "freeze"})
    both = read_selection(made("both", None, union=(half, low)))
    cut = read_selection(made("cut", "full", intersection=(half,), minus=(layer,)))
    name = "model.layers.{}.self_attn.q_proj.weight"
    parts = [set(read_selection(place).slices[name.format(1)].ids.tolist()) for place in (half, low)]
    assert set(both.slices[name.format(1)].ids.tolist()) == parts[0] | parts[1]
    assert set(cut.slices[name.format(1)].ids.tolist()) == parts[0]
    assert name.format(0) not in cut.slices.keys() | cut.names
    rows = made("rows", "random", method_options={"unit": "rows"})
    with pytest.raises(DataError, match="is cut along axis"):
        made("never", None, union=(half, rows))
    assert read_selection(made("none", "full", minus=(made("all", "full"),))).total == 0
    said = open_artifact(tmp_path / "cut").facts["combined"]
    assert [(each["how"], each["method"]) for each in said] == [("intersection", "magnitude"), ("minus", "layers")]
    assert [each["digest"] for each in said] == [open_artifact(place).digest for place in (half, layer)]
    layers, kinds = load("select").table(open_artifact(tmp_path / "cut"))  # type: ignore[misc]
    assert [row[0] for row in layers.rows] == ["0", "1", "outside"]
    assert kinds.notes[-2:] == ("cut by `magnitude`", "less `layers`")


def test_what_is_of_another_model_is_refused_with_both_digests(model: Path, statistics: Path, tmp_path: Path) -> None:
    other = tiny_model(tmp_path / "other", seed=1, dtype="bfloat16")
    words = f"made of another model.*{digest_of(model)[:12]}.*{digest_of(other)[:12]}"
    with pytest.raises(DataError, match=words):
        langadapt.select(model=other, method="ssu", statistics=statistics, source="en", out=tmp_path / "sel")
    sel = langadapt.select(model=model, method="magnitude", out=tmp_path / "mine").path
    with pytest.raises(DataError, match=words):
        langadapt.select(model=other, method="full", minus=(sel,), out=tmp_path / "sel")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "nothing to choose by"),
        ({"method": "lora"}, "puts an adapter beside"),
        ({"method": "ssu", "source": "en"}, "needs statistics"),
        ({"method": "taylor"}, "`taylor` needs statistics"),
        ({"method": "sssu"}, "unknown method"),
        ({"method": "magnitude", "statistics": "stats"}, "looks at no statistics"),
        ({"method": "random", "method_options": {"ratio": 2.0}}, "ratio"),
        ({"method_options": {"ratio": 0.5}}, "nothing to choose by"),
        ({"intersection": ("one", "two")}, r"`--intersection one`: there is nothing to intersect it with"),
        (
            {"minus": ("one",)},
            r"`--minus one`: there is nothing to take it away from(?s:.*)`--union SELECTION --minus one`",
        ),
    ],
)
def test_what_cannot_be_chosen_is_said_first(model: Path, tmp_path: Path, given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        langadapt.select(model=model, out=tmp_path / "sel", **given)
    assert not (tmp_path / "sel").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "ssu", "source": "fi"}, "hold nothing of `fi`; they have de, en, hu"),
        ({"method": "ssu"}, "which language should stay is not known"),
        ({"method": "lape", "lang": "fi"}, "hold nothing of `fi`"),
        ({"method": "lape", "lang": "hu", "method_options": {"langs": ["hu", "fi"]}}, "hold nothing of `fi`"),
        ({"method": "lape", "lang": "hu", "method_options": {"langs": ["en"]}}, "`hu` is to be learned and not among"),
        ({"method": "lape"}, "which language is learned is not known"),
    ],
)
def test_a_language_that_the_statistics_lack_is_said_by_price_and_run_alike(
    model: Path, statistics: Path, tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    verb = load("select")
    config = validate(verb.config, {"model": str(model), "statistics": str(statistics), **given})
    with pytest.raises(ConfigError, match=words):
        price(verb, config, resolved(verb, config))
    with pytest.raises(ConfigError, match=words):
        langadapt.select(model=model, statistics=statistics, out=tmp_path / "sel", **given)


def test_a_language_that_changes_nothing_is_said_and_not_recorded(
    model: Path, statistics: Path, tmp_path: Path
) -> None:
    def made(name: str, **given: Any) -> tuple[dict[str, Any], list[str]]:
        notes: list[str] = []
        listener = lambda event: notes.append(getattr(event, "text", ""))  # noqa: E731
        found = langadapt.select(model=model, out=tmp_path / name, lang="hu", source="en", listener=listener, **given)
        return found.facts["languages"], [note for note in notes if "looks at no language" in note]

    warning = "`--lang hu` and `--source en`: nothing changes by it, {} looks at no language"
    neither: dict[str, Any] = {"lang": None, "source": None}
    assert made("random", method="random") == (neither, [warning.format("`random`")])
    assert made("union", union=(tmp_path / "random",)) == (neither, [warning.format("a union")])
    assert made("ssu", method="ssu", statistics=statistics) == (neither | {"source": "en"}, [])
    lape: dict[str, Any] = {"method": "lape", "method_options": {"top_rate": 0.1}, "statistics": statistics}
    assert made("lape", **lape) == (neither | {"lang": "hu"}, [])


def test_the_price_is_known_before(model: Path, statistics: Path, tmp_path: Path) -> None:
    verb = load("select")
    given = {"model": str(model), "method": "ssu", "statistics": str(statistics), "source": "en"}
    config = validate(verb.config, given)
    found = price(verb, config, resolved(verb, config))
    assert found.seconds is not None and found.memory_bytes is not None
    assert json.dumps(found.facts)
    # a run that waits for it in a recipe is priced by these
    assert (found.facts["body_share"], found.facts["tables_share"], found.facts["whole"]) == (0.5, 1.0, False)
    made = langadapt.select(model=model, method="ssu", statistics=statistics, source="en", out=tmp_path / "made")
    joined = validate(verb.config, given | {"union": [str(made.path)]})
    assert "body_share" not in price(verb, joined, resolved(verb, joined)).facts
    waiting = Input("sel", tmp_path / "sel", None, "", found.facts, exists=False)
    assert given_portion({"selection": waiting, "model": Input("m", model, None, "", {})}) == Portion(0.5, 1.0)
    # where names and shapes are all that is looked at, it is what will be made
    plain: dict[str, Any] = {"model": str(model), "method": "random", "seed": 5, "minus": [str(made.path)]}
    foreseen = price(verb, config := validate(verb.config, plain), resolved(verb, config))
    after = langadapt.select(model=model, out=tmp_path / "plain", method="random", seed=5, minus=[made.path]).facts
    for name in ("moving", "parameters", "tables_share", "whole"):
        assert foreseen.facts[name] == after[name]
    assert dict(foreseen.rows)["moves"] == f"{after['moving']:,} of {after['parameters']:,} numbers"
    rows = langadapt.select(model=model, method="random", method_options={"unit": "rows"}, out=tmp_path / "rows").path
    config = validate(verb.config, {"model": str(model), "union": [str(made.path), str(rows)]})
    with pytest.raises(DataError, match="is cut along axis"):
        price(verb, config, resolved(verb, config))
    # singular values are those of the body: rows of the tables cost nothing beyond being read
    seconds = []
    for folder in (model, tiny_model(tmp_path / "wide", padded_rows=50_000, dtype="bfloat16")):
        chosen = [price(verb, one, resolved(verb, one)) for method in ("kappa", "magnitude")
                  for one in [validate(verb.config, {"model": str(folder), "method": method})]]  # fmt: skip
        seconds.append((chosen[0].seconds or 0) - (chosen[1].seconds or 0))
        assert "singular values" in dict(chosen[0].rows) and "singular values" not in dict(chosen[1].rows)
    assert seconds[0] == pytest.approx(seconds[1], rel=1e-6) and seconds[0] > 0
    config = validate(verb.config, given | {"statistics": None})
    with pytest.raises(ConfigError, match="needs statistics"):
        price(verb, config, resolved(verb, config))
