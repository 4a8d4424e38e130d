"""Methods beside each other: what is hidden, what is scored in memory, what the head loses, and what is picked."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import langadapt
from langadapt.core import interrupt, verb
from langadapt.core.artifact import Artifact
from langadapt.core.errors import ConfigError, DataError, Interrupted
from langadapt.core.host import peak_memory_bytes, spending
from langadapt.core.inputs import resolve_inputs
from langadapt.core.io import read_json_lines, read_json_object
from langadapt.core.progress import Event, Note, Progress
from langadapt.core.registry import load_method
from langadapt.core.validate import validate
from langadapt.embed.hiding import Hidden, hide, looked, recovery
from langadapt.embed.inputs import InitInputs
from langadapt.model.load import load_any_tokenizer, load_model
from langadapt.model.score import ScoredText, score_texts
from langadapt.model.token_table import TokenTable
from langadapt.model.without import table_without, tokenizer_without
from langadapt.steps._compare_bench import Bench
from tests.fixtures.encoders import tiny_encoder
from tests.fixtures.extended import extended_tokenizer
from tests.fixtures.families import FAMILIES, family_tokenizer
from tests.fixtures.given import World, permuted_tokenizer, some_table, world
from tests.fixtures.pieces import wordpiece_tokenizer
from tests.fixtures.tiny import tiny_corpus, tiny_model, tiny_text

SMALL = {"target_bytes": 900, "source_bytes": 600, "segment_bytes": 75, "bootstrap_samples": 200, "hidden_share": 0.1}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied model, one with head and bias of its own, a tokenizer that extends them, one with other ids, corpora."""
    folder = tmp_path_factory.mktemp("compare")
    tiny_model(folder / "tied", padded_rows=3)
    tiny_model(folder / "bias", head_bias=True, dtype="bfloat16")
    extended_tokenizer(folder / "tied", folder / "longer")
    permuted_tokenizer(folder / "longer", folder / "moved", 300)
    for lang in ("hu", "en"):
        step = verb.load("prepare")
        values = {"text": [str(tiny_corpus(folder / "raw", lang, 20))], "lang": lang, "held_out_share": 0.5}
        config = validate(step.config, values | {"documents": "line", "min_lang_probability": 0})
        verb.perform(step, config, folder / f"corpus-{lang}")
    return folder


def compared(work: Path, name: str, **changes: Any) -> Artifact:
    values = {"model": work / "tied", "tokenizer": work / "longer", "methods": ["mean", "subtoken-mean", "random"]}
    values |= {"corpus": work / "corpus-hu", "source_text": work / "corpus-en", **SMALL}
    return langadapt.compare_embeddings(out=work / name, **values | changes)


@pytest.fixture(scope="module")
def found(work: Path) -> Artifact:
    return compared(work, "found")


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tiny, tmp_path_factory.mktemp("world"))


def hidden_of(place: World, share: float = 0.3, **changes: Any) -> tuple[InitInputs, Hidden]:
    inputs = place.inputs(some_table(place.base.size), **changes)
    return inputs, hide(inputs, place.base, place.target, share)


# What is hidden


def test_hidden_tokens_are_new_for_the_method_and_nobody_else_changes(place: World) -> None:
    inputs, hidden = hidden_of(place)
    gone = set(hidden.old.tolist())
    assert len(gone) > 15
    seen = hidden.from_method(inputs, alone=False)
    assert not gone & (set(seen.kept) | set(seen.population.tolist()))
    assert set(inputs.kept) - gone == set(seen.kept)
    assert {token.id for token in seen.new_tokens} == {token.id for token in inputs.new_tokens} | set(hidden.new)
    assert [token.id for token in hidden.from_method(inputs, alone=True).new_tokens] == hidden.new.tolist()
    for old, token in zip(hidden.old.tolist(), hidden.tokens, strict=True):
        pieces = seen.base.spell(token.content)
        assert pieces and not gone & set(pieces)
        assert place.base.spell(token.content) == [old]
    running = seen.base_tokenizer().encode("the river and the old road", add_special_tokens=False).ids
    assert running and not gone & set(running)


def test_what_is_hidden_depends_on_seed_and_bytes_only(place: World, tiny: Path, tmp_path: Path) -> None:
    _, first = hidden_of(place)
    _, other = hidden_of(place, seed=4)
    assert first.old.tolist() != other.old.tolist()
    moved = permuted_tokenizer(place.target.folder, tmp_path / "t", 300)
    _, again = hidden_of(world(tiny, tmp_path / "w", moved))
    assert sorted(again.old.tolist()) == sorted(first.old.tolist())


@pytest.mark.parametrize("alone", [True, False])
def test_recovery_agrees_with_a_loop(place: World, alone: bool) -> None:
    inputs, hidden = hidden_of(place)
    table, method = some_table(place.base.size), load_method("embed", "subtoken-mean")
    rows = method(hidden.from_method(inputs, alone=alone), method.options())
    assert looked(rows, hidden) == 0
    population = place.base.text_ids()
    got = recovery(rows, hidden, table.copy(), population)
    cosines, ranks = [], []
    for old, token in zip(hidden.old.tolist(), hidden.tokens, strict=True):
        pieces = [id for id in hidden.base.spell(token.content) if hidden.base.bytes_of(id) != b" "]
        made = table[pieces].astype(np.float64).mean(axis=0)

        def cosine(id: int, made: Any = made) -> float:
            return float(table[id] @ made / np.linalg.norm(table[id]) / np.linalg.norm(made))

        cosines.append(cosine(old))
        ranks.append(1 + sum(cosine(id) > cosines[-1] for id in population.tolist() if id != old))
    assert got["tokens"] == len(hidden.old) and got["among"] == len(population)
    assert got["cosine"] == pytest.approx(np.mean(cosines), abs=1e-4)
    assert got["median_rank"] == np.median(ranks)
    assert got["top1"] == pytest.approx(np.mean(np.array(ranks) == 1), abs=1e-4)
    assert got["top10"] == pytest.approx(np.mean(np.array(ranks) <= 10), abs=1e-4)


def test_true_rows_are_found_and_rows_of_zeros_come_last(place: World) -> None:
    from langadapt.embed.builder import RowMapBuilder

    inputs, hidden = hidden_of(place)
    seen, table = hidden.from_method(inputs, alone=True), some_table(place.base.size)
    for made, rank in ((table[hidden.old], 1), (np.zeros((len(hidden.old), table.shape[1]), np.float32), 0)):
        rows = RowMapBuilder(seen, "test")
        rows.dense(seen.new_tokens, made, "from another space")
        got = recovery(rows.build(), hidden, table.copy(), place.base.text_ids())
        assert got["median_rank"] == (rank or got["among"]) and got["top1"] == rank


def test_a_method_that_looks_at_hidden_rows_is_caught(place: World) -> None:
    inputs, hidden = hidden_of(place)
    method = load_method("embed", "subtoken-mean")
    cheat = InitInputs(**{**vars(hidden.from_method(inputs, alone=True)), "base": place.base})
    assert looked(method(cheat, method.options()), hidden) == len(hidden.old)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tokenizer_does_without_some_of_its_tokens(family: str, tmp_path: Path) -> None:
    if family == "wordpiece":  # the small one of the families has letters only
        place = wordpiece_tokenizer(tmp_path / "t", tiny_text("hu", 40), size=200)
    else:
        place = family_tokenizer(tmp_path / "t", family)
    tokens = TokenTable.from_folder(place)
    words = {id: tokens.bytes_of(id).decode(errors="ignore").strip() for id in tokens.text_ids().tolist()}
    long = [id for id, word in words.items() if len(word) > 1][::2]
    assert len(long) > 5
    table, running = table_without(tokens, long), tokenizer_without(tokens, long)
    for id in long:
        pieces = table.spell(tokens.bytes_of(id))
        assert len(pieces) > 1 and not set(pieces) & set(long)
        assert b"".join(tokens.bytes_of(piece) for piece in pieces) == tokens.bytes_of(id)
    text = " ".join(words[id] for id in long)
    assert not set(running.encode(text, add_special_tokens=False).ids) & set(long)


# What is measured


@pytest.mark.parametrize(("model", "tokenizer"), [("tied", "longer"), ("bias", "longer"), ("tied", "moved")])
def test_scores_in_memory_are_those_of_the_saved_model(work: Path, model: str, tokenizer: str) -> None:
    name = f"{model}-{tokenizer}"
    got = compared(
        work, f"{name}-scores", model=work / model, tokenizer=work / tokenizer, methods=["position-weighted"]
    )
    saved = langadapt.init_embeddings(out=work / name, model=work / model, tokenizer=work / tokenizer)
    summary = read_json_object(got.file("comparison.json"))
    loaded, cutter = load_model(saved.path), load_any_tokenizer(saved.path)
    prefix = cutter.get_vocab()[summary["settings"]["document_separator"]]
    texts = {json.loads(line)["text"] for lang in ("hu", "en") for line in documents(work, lang)}
    for line in read_json_lines(got.file("segments.jsonl")):
        [text] = [text for text in texts if line["document"] == ids(work)[text]]
        whole = ScoredText("x", text, 0, (line["start"] + line["bytes"],), line["start"])
        [score] = score_texts(loaded, cutter, [whole], prefix_id=prefix)
        assert line["nll"]["position-weighted"] == pytest.approx(score.nll, abs=2e-4)
    mass = summary["methods"]["position-weighted"]["head_mass"]
    assert mass["mean"] == pytest.approx(saved.facts["head_mass_nats_mean"], abs=2e-3 if model == "bias" else 2e-4)
    assert 0 < mass["mean"] <= mass["bound_mean"] and mass["highest"] <= mass["bound_highest"]


def documents(work: Path, lang: str) -> list[str]:
    import gzip

    with gzip.open(work / f"corpus-{lang}" / "held-out.jsonl.gz", "rt", encoding="utf-8") as file:
        return list(file)


def ids(work: Path) -> dict[str, str]:
    lines = [json.loads(line) for lang in ("hu", "en") for line in documents(work, lang)]
    return {line["text"]: line["id"] for line in lines}


def test_figures_follow_from_the_segments(found: Artifact) -> None:
    summary = read_json_object(found.file("comparison.json"))
    lines = list(read_json_lines(found.file("segments.jsonl")))
    for name in ("target", "source"):
        mine = [line for line in lines if line["set"] == name]
        size = sum(line["bytes"] for line in mine)
        assert len(mine) >= 8 and size >= SMALL[f"{name}_bytes"]
        for method, entry in summary["methods"].items():
            scores = entry["scores"][name]
            bits = sum(line["nll"][method] for line in mine) / math.log(2) / size
            assert scores["bits_per_byte"] == pytest.approx(bits, abs=1e-6) and scores["low"] < bits < scores["high"]
            guess = math.log2(summary["rows"]) * sum(line["tokens"][method] for line in mine) / size
            assert scores["uniform"] == pytest.approx(guess, abs=1e-6)
    pick = summary["pick"]["method"]
    assert found.facts["pick"] == pick and summary["methods"][pick]["scores"]["target"]["delta"] is None
    assert summary["methods"]["random"]["head_mass"]["bound_mean"] is None, "noise is no average"
    assert {
        line["method"] for line in read_json_lines(found.path / "timings.jsonl") if line["name"] == "method"
    } == set(summary["methods"])
    assert summary["methods"]["subtoken-mean"]["hidden"]["input"]["tokens"] > 5


def test_the_table_names_the_pick_and_guessing(found: Artifact) -> None:
    step = verb.load("compare-embeddings")
    assert step.table is not None
    table = step.table(found)
    assert [len(row) for row in table.rows] == [len(table.columns)] * 4
    assert table.notes[0].startswith(f"Pick: {found.facts['pick']}.") and table.notes[1].startswith("Guessing")
    values = [float(row[1].split()[0]) for row in table.rows[:3]]
    assert values == sorted(values)


def test_the_same_bytes_again_also_after_an_interruption(
    work: Path, found: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Note) and event.text == "`random`":
            monkeypatch.setattr(interrupt, "_seen", [15])

    step = verb.load("compare-embeddings")
    values = {key: str(work / item) for key, item in (("model", "tied"), ("tokenizer", "longer"))}
    values |= {"corpus": str(work / "corpus-hu"), "source_text": str(work / "corpus-en")}
    config = validate(step.config, {**values, **SMALL, "methods": ["mean", "subtoken-mean", "random"]})
    with pytest.raises(Interrupted):
        verb.perform(step, config, work / "again", progress=Progress(stop))
    monkeypatch.undo()
    measured: list[str] = []
    measure = Bench._measure

    def watched(bench: Bench, candidate: Any) -> None:
        measured.append(candidate.name)
        measure(bench, candidate)

    monkeypatch.setattr(Bench, "_measure", watched)
    result = verb.perform(step, config, work / "again")
    assert result.state == "continue" and measured == ["random"]
    for name in ("artifact.json", "comparison.json", "segments.jsonl"):
        assert (result.artifact.path / name).read_bytes() == (found.path / name).read_bytes()
    assert not (work / "again.partial").exists()


def test_memory_of_a_stretch_is_what_it_took_and_the_peak_is_not_forgotten() -> None:
    with spending() as much:
        block = b"x" * 60_000_000
    highest = peak_memory_bytes()
    assert len(block) == 60_000_000 and highest > 60_000_000
    del block
    with spending() as little:
        pass
    assert peak_memory_bytes() >= highest - 1_000_000  # the kernel counts in batches
    if much.memory_bytes is not None and little.memory_bytes is not None:  # Linux
        assert much.memory_bytes > 50_000_000 and little.memory_bytes < 20_000_000


# What is picked


def test_methods_whose_needs_are_not_given_are_left_out(work: Path) -> None:
    loaded = verb.load("compare-embeddings")
    values = SMALL | {"methods": ["wechsel", "mean"], "target_bytes": 300, "corpus": str(work / "corpus-hu")}
    values |= {"model": str(work / "tied"), "tokenizer": str(work / "longer")}
    done = verb.perform(loaded, validate(loaded.config, values), work / "left")
    got = done.artifact
    # a pipe shows no table, and the method was named
    assert [text for text in done.warnings if "`wechsel` is left out: needs `base_vectors`" in text]
    [left] = read_json_object(got.file("comparison.json"))["left_out"]
    assert left["name"] == "wechsel" and left["why"] == "needs `base_vectors`" and "--base-vectors" in left["hint"]
    assert got.facts["pick"] == "mean"
    with pytest.raises(ConfigError, match="no method is left") as caught:
        compared(work, "none", methods=["wechsel"])
    assert "--base-vectors" in str(caught.value.hint)


def test_what_cannot_be_compared_is_refused(work: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="text in the new language"):
        compared(work, "x", corpus=None)
    with pytest.raises(ConfigError, match="unknown method"):
        compared(work, "x", methods=["meen"])
    with pytest.raises(ConfigError, match="options of `focus`, which is not compared"):
        compared(work, "x", method_options={"focus": {}})
    with pytest.raises(DataError, match=r"left to right|causal"):
        compared(work, "x", model=tiny_encoder(tmp_path / "bert", "bert"))
    (tmp_path / "one.txt").write_text("egyetlen sor\n", encoding="utf-8")
    with pytest.raises(DataError, match="is held out, so there is no target text") as caught:
        compared(work, "x", corpus=tmp_path / "one.txt")
    assert "--held-out-share" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="do not both have the token `xyz`"):
        compared(work, "x", document_separator="xyz")


def test_a_method_that_fails_is_left_out_with_its_reason(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.embed import mean

    def fails(inputs: Any, options: Any) -> Any:
        raise DataError("no such luck", hint="try another day")

    fails.__module__ = mean.__name__
    fails.__dict__["langadapt_method"] = load_method("embed", "mean").facts
    monkeypatch.setattr(mean, "mean", fails)
    got = compared(work, "fails", methods=["mean", "random"], target_bytes=300, source_text=None)
    [left] = read_json_object(got.file("comparison.json"))["left_out"]
    assert left == {"name": "mean", "why": "it cannot do this: no such luck", "hint": "try another day"}
    assert got.facts["pick"] == "random"


# auto


def test_auto_takes_the_pick_and_keeps_the_table(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.steps import _compare_candidates, _init_auto
    from langadapt.steps._compare_text import Manner

    monkeypatch.setattr(_compare_candidates, "method_names", lambda room: ["mean", "subtoken-mean"])
    monkeypatch.setattr(_init_auto, "MANNER", Manner(900, 600, 75, 0, 0.1, 200))
    values: dict[str, Any] = {"model": work / "tied", "tokenizer": work / "longer", "corpus": work / "corpus-hu"}
    values |= {"source_text": work / "corpus-en", "method": "auto"}
    made = langadapt.init_embeddings(out=work / "auto", **values)
    same = compared(work, "as-auto", methods=["mean", "subtoken-mean"])
    assert made.facts["method"] == made.facts["auto"]["pick"] == same.facts["pick"]
    assert read_json_object(made.file("comparison.json")) == read_json_object(same.file("comparison.json"))
    named = langadapt.init_embeddings(
        out=work / "named", model=values["model"], tokenizer=values["tokenizer"], method=same.facts["pick"]
    )
    assert made.file("model.safetensors").read_bytes() == named.file("model.safetensors").read_bytes()
    again = langadapt.init_embeddings(out=work / "auto-again", **values)
    assert (again.path / "artifact.json").read_bytes() == (made.path / "artifact.json").read_bytes()


def test_auto_is_priced_and_refuses_settings_of_one_method(work: Path) -> None:
    step = verb.load("init-embeddings")

    def price(**changes: Any) -> Any:
        values = {"model": str(work / "tied"), "tokenizer": str(work / "longer"), "corpus": str(work / "corpus-hu")}
        config = validate(step.config, values | changes)
        return step.estimate(config, verb.resolved(step, config))

    named, auto = price(method="focus"), price(method="auto")
    assert auto.seconds > named.seconds + 15
    assert {"focus", "mean"} <= set(dict(auto.rows)["methods"].split(", ")) and "left out" in dict(auto.rows)
    with pytest.raises(ConfigError, match="`head_method` goes with a method that is named"):
        price(method="auto", head_method="mean")
    with pytest.raises(ConfigError, match="text in the new language"):
        config = validate(
            step.config, {"model": str(work / "tied"), "tokenizer": str(work / "longer"), "method": "auto"}
        )
        step.estimate(config, verb.resolved(step, config))


def test_the_dry_run_reads_the_size_of_the_text(work: Path) -> None:
    step = verb.load("compare-embeddings")
    values = {"model": str(work / "tied"), "tokenizer": str(work / "longer"), "corpus": str(work / "corpus-hu")}
    config = validate(step.config, {**values, "methods": ["mean", "random"], "target_bytes": 900, "segment_bytes": 75})
    price = step.estimate(config, resolve_inputs(config))
    assert dict(price.rows)["methods"] == "mean, random"
    assert dict(price.rows)["text scored"].endswith("by the base and with each of 2 methods")
    assert price.seconds is not None and price.seconds > 15
