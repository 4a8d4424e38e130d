"""What `cpt` lets move: a selection that is given, a strategy with statistics, and what is kept of the choice."""

import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import langadapt
from langadapt.core import interrupt
from langadapt.core.artifact import partial_folder
from langadapt.core.errors import ConfigError, DataError, Interrupted
from langadapt.core.types import Movable, Slice
from langadapt.core.validate import validate
from langadapt.core.verb import load, price, resolved
from langadapt.model.facts import model_facts
from langadapt.model.row_origin import write_origin
from langadapt.select import ssu
from langadapt.select.measure import Meter
from langadapt.select.selection import read_selection
from langadapt.steps import cpt
from langadapt.steps._cpt_choice import Chooser
from tests.fixtures.measured import given_statistics
from tests.fixtures.moving import Given
from tests.fixtures.tiny import tiny_corpus, tiny_model

RUN: dict[str, Any] = {"steps": 3, "batch_tokens": 64, "compute": "fp32", "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return Given(tmp_path_factory.mktemp("choice"), RUN, tied=False)


def test_a_selection_in_place_of_a_strategy_gives_the_same_model(given: Given, tmp_path: Path) -> None:
    """The source language is that of the replayed text, where nobody names one."""
    made = given.train(tmp_path / "one", strategy="ssu", statistics=given.statistics)
    sel = langadapt.select(
        model=given.model, method="ssu", statistics=given.statistics, source="en", out=tmp_path / "sel"
    )
    other = given.train(tmp_path / "two", selection=sel.path, weight_decay=0.01)
    for file in ("model.safetensors", "selection/moves.safetensors", "metrics.jsonl"):
        assert (made.path / file).read_bytes() == (other.path / file).read_bytes()
    assert (made.path / "selection" / "selection.json").read_bytes() == (sel.path / "selection.json").read_bytes()
    assert made.facts["selection"] == {
        "method": "ssu", "moving": sel.facts["moving"], "parameters": sel.facts["parameters"],
        "stability": sel.facts["stability"],
    }  # fmt: skip
    assert (made.facts["strategy"], other.facts["strategy"]) == ("ssu", "selection")


def test_a_choice_survives_a_kill(given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = given.train(tmp_path / "whole", strategy="shielded-lora", strategy_options={"rank": 2}, **_stats(given))

    def killed(*args: Any) -> Any:
        raise Interrupted("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(cpt, "_train", killed)
        with pytest.raises(Interrupted):
            given.train(tmp_path / "out", strategy="shielded-lora", strategy_options={"rank": 2}, **_stats(given))
    kept = partial_folder(tmp_path / "out") / "choice"
    assert read_selection(kept).slices
    with monkeypatch.context() as patch:
        patch.setattr(ssu, "column_scores", None)  # whoever chooses again is found out
        again = given.train(tmp_path / "out", strategy="shielded-lora", strategy_options={"rank": 2}, **_stats(given))
    assert again.digest == whole.digest


@pytest.mark.parametrize(
    ("strategy", "options"), [("ssu", {}), ("taylor", {"top_rate": 0.1}), ("activation-gap", {"top_rate": 0.1})]
)
def test_what_a_strategy_looks_at_is_measured_on_the_data(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, options: dict[str, Any]
) -> None:
    """Stopped in the middle of measuring and after it, the run ends in the same bytes, and measures nothing twice."""
    wishes = {"strategy": strategy, "strategy_options": options, "calibration_tokens": 1500}
    whole = given.train(tmp_path / "whole", **wishes)
    # what the source needs; what the language itself would lose; what tells languages apart
    langs = {"ssu": ["en"], "taylor": ["hu"]}.get(strategy, ["en", "hu"])
    told = whole.facts["selection"]["calibrated"]
    assert sorted(told) == langs and all(1300 < tokens <= 1500 for tokens in told.values())
    read = {"windows": 0}
    add = Meter.add

    def counted(meter: Meter, batch: Any) -> int:
        read["windows"] += len(batch)
        if read["windows"] > 32 and "stopped" not in read:
            interrupt._seen.append(signal.SIGTERM)
            read["stopped"] = 1
        return add(meter, batch)

    monkeypatch.setattr(Meter, "add", counted)
    with pytest.raises(Interrupted):
        given.train(tmp_path / "out", **wishes)
    interrupt._seen.clear()
    with monkeypatch.context() as patch:
        patch.setattr(cpt, "_train", lambda *args: (_ for _ in ()).throw(Interrupted("stopped")))
        with pytest.raises(Interrupted):
            given.train(tmp_path / "out", **wishes)
    again = given.train(tmp_path / "out", **wishes)
    assert again.digest == whole.digest
    assert read["windows"] == len(langs) * 47  # ceil(1500 / 32)


def test_a_language_that_the_data_lack_cannot_be_measured(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langadapt.steps._cpt_choice.measured", None)  # nothing is measured first
    with pytest.raises(ConfigError, match="hold no text in `fi`"):
        given.train(tmp_path / "out", strategy="ssu", source="fi")
    alone = langadapt.mix(
        out=tmp_path / "data", model=given.model, corpora={"hu": str(tiny_corpus(tmp_path, "hu", 30))},
        block_tokens=32, document_separator="<s>",
    ).path  # fmt: skip
    for strategy, words in (("ssu", "the data replay nothing"), ("subnetwork", "there is only `hu`")):
        with pytest.raises(ConfigError, match=words):
            langadapt.cpt(out=tmp_path / "out", model=given.model, data=alone, strategy=strategy, **RUN)
    for strategy in ("lape", "taylor"):
        with pytest.raises(ConfigError, match="hold no text in `de`"):
            given.train(tmp_path / "out", strategy=strategy, lang="de")
    with pytest.raises(ConfigError, match="`hu` is to be learned and not among `langs`"):
        given.train(tmp_path / "out", strategy="lape", strategy_options={"langs": ["en"]})


@pytest.mark.parametrize(
    ("wishes", "warned"),
    [
        ({"strategy": "lape", "strategy_options": {"top_rate": 0.1}}, True),
        ({"strategy": "lape", "strategy_options": {"top_rate": 0.1, "tables": "new-rows"}}, False),
        ({"strategy": "subnetwork", "strategy_options": {"top_rate": 0.1}}, False),
        ({"strategy": "lora", "strategy_options": {"rank": 2, "train_tables": False}}, True),
        ({"strategy": "layers", "strategy_options": {"layers": "0", "tables": "freeze"}}, True),
        ({"strategy": "ssu"}, False),
        ({"strategy": "full"}, False),
    ],
)
def test_new_tokens_that_nothing_will_train_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wishes: dict[str, Any], warned: bool
) -> None:
    """Before the first step: how much may move, and that the rows of new tokens are not among it."""
    given, notes = Given(tmp_path / "given", RUN, tied=False), list[str]()
    rows = model_facts(given.model)["rows"]
    write_origin(given.model, np.where(np.arange(rows) % 8 == 5, -1, np.arange(rows)).astype(np.int32))
    statistics = given_statistics(tmp_path / "statistics", given.model)
    monkeypatch.setattr(cpt, "_train", lambda *args: (_ for _ in ()).throw(Interrupted("stopped")))
    more = {"statistics": statistics} if wishes["strategy"] in ("lape", "subnetwork", "ssu") else {}
    with pytest.raises(Interrupted):
        given.train(tmp_path / "out", **wishes, **more, listener=lambda event: notes.append(getattr(event, "text", "")))
    new = int((np.arange(rows) % 8 == 5).sum())
    assert any(note.startswith(f"none of the rows of {new:,} new tokens may move") for note in notes) == warned
    told = [note for note in notes if "numbers may move" in note]
    assert len(told) == (wishes["strategy"] != "full")
    assert all(re.match(r"[\d,]+ of [\d,]+ numbers may move \([\d.]+%\)", note) for note in told)


def test_a_damaged_choice_is_made_again(given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = given.train(tmp_path / "whole", strategy="ssu", **_stats(given))
    with monkeypatch.context() as patch:
        patch.setattr(cpt, "_train", lambda *args: (_ for _ in ()).throw(Interrupted("stopped")))
        with pytest.raises(Interrupted):
            given.train(tmp_path / "out", strategy="ssu", **_stats(given))
    moves = partial_folder(tmp_path / "out") / "choice" / "moves.safetensors"
    harmed = bytearray(moves.read_bytes())
    harmed[-4] ^= 1
    moves.write_bytes(bytes(harmed))
    assert given.train(tmp_path / "out", strategy="ssu", **_stats(given)).digest == whole.digest


def _stats(given: Given) -> dict[str, Any]:
    return {"statistics": given.statistics}


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"selection": "sel", "strategy": "ssu"}, "takes the place of a strategy"),
        (
            {"selection": "sel", "stages": [{"strategy": "full"}]},
            "takes the place of a strategy(?s:.*)leave `stages` out",
        ),
        ({"selection": "sel", "statistics": "stats"}, "was made with its statistics already"),
        ({"statistics": "stats"}, "`full` looks at no statistics"),
        ({"strategy": "ssu", "strategy_options": {"ratio": 3}}, "ratio"),
        ({"strategy": "lap"}, r"unknown strategy `lap`(?s:.*)did you mean `lape`"),
        ({"stages": [{"strategy": "embedings"}]}, r"unknown strategy `embedings`(?s:.*)did you mean `embeddings`"),
        ({"strategy": "lap", "data": "not-there"}, "unknown strategy"),
        ({"strategy": "clp"}, "unknown strategy `clp`(?s:.*)a method of `embed`"),
        ({"strategy_options": {"ratio": 1}}, "unknown key `ratio`(?s:.*)there is none to set here"),
        ({"strategy": "lora", "strategy_options": {"targets": []}}, "at least 1 item"),
    ],
)
def test_what_cannot_go_together_is_said_first(given: Given, tmp_path: Path, wishes: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        given.train(tmp_path / "out", **wishes)


def test_what_was_made_for_another_model_is_refused(given: Given, tmp_path: Path) -> None:
    other = tiny_model(tmp_path / "other", tied=False, seed=3)
    statistics = given_statistics(tmp_path / "stats", other)
    sel = langadapt.select(model=other, method="magnitude", out=tmp_path / "sel").path
    with pytest.raises(DataError, match=r"measurement `.*` was made of another model"):
        given.train(tmp_path / "out", strategy="ssu", statistics=statistics)
    with pytest.raises(DataError, match=r"selection `.*` was made of another model"):
        given.train(tmp_path / "out", selection=sel)
    assert not (tmp_path / "out").exists()


def test_training_nothing_is_refused_and_all_is_full(given: Given, tmp_path: Path) -> None:
    """Shields of 100 % and 0 %."""
    empty = langadapt.select(model=given.model, method="new-tokens", out=tmp_path / "none").path
    with pytest.raises(ConfigError, match="nothing would move: the selection"):
        given.train(tmp_path / "out", selection=empty)
    with pytest.raises(ConfigError, match="nothing would move: `new-tokens`"):
        given.train(tmp_path / "out", strategy="new-tokens")
    with pytest.raises(ConfigError, match="nothing would move: `ssu`"):
        given.train(
            tmp_path / "out", strategy="ssu", strategy_options={"ratio": 1.0, "tables": "freeze"}, **_stats(given)
        )
    every = langadapt.select(model=given.model, method="full", out=tmp_path / "all").path
    full, same = given.train(tmp_path / "full"), given.train(tmp_path / "same", selection=every)
    assert (full.path / "model.safetensors").read_bytes() == (same.path / "model.safetensors").read_bytes()
    assert not (same.path / "selection").exists()
    notes: list[str] = []
    listener = lambda event: notes.append(getattr(event, "text", ""))  # noqa: E731
    given.train(tmp_path / "named", selection=every, source="en", listener=listener)
    assert "`--source en` changes nothing: the selection says what may move" in notes


@pytest.mark.parametrize(("strategy", "options"), [("ssu", {}), ("subnetwork", {"top_rate": 0.1, "tables": "train"})])
def test_rates_are_tried_with_what_the_strategy_moves(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, options: dict[str, Any]
) -> None:
    """What they are tried with is measured and chosen once; the model is that of a plain run at the picked rate."""
    wishes = {"strategy": strategy, "strategy_options": options, "calibration_tokens": 1500, "learning_rate": 1e-3}
    asked = {"choices": 0}
    choose = Chooser._choose

    def counted(*args: Any) -> Any:
        asked["choices"] += 1
        return choose(*args)

    monkeypatch.setattr(Chooser, "_choose", counted)
    monkeypatch.setattr(given, "data", _with_held_out(given, tmp_path))
    tried = given.train(tmp_path / "tried", lr_probe=True, lr_probe_steps=2, max_forgetting=9, **wishes)
    assert asked["choices"] == 1 and [each["stopped"] for each in tried.facts["lr_probe"]["tried"]] == [None] * 3
    plain = given.train(
        tmp_path / "plain", **wishes | {"learning_rate": tried.facts["learning_rate"]}, max_forgetting=9
    )
    for file in ("model.safetensors", "selection/moves.safetensors", "metrics.jsonl"):
        assert (tried.path / file).read_bytes() == (plain.path / file).read_bytes()
    assert tried.facts["shield"]["broken"] == 0 and tried.facts["selection"] == plain.facts["selection"]


def _with_held_out(given: Given, folder: Path) -> Path:
    texts = {
        lang: str(langadapt.prepare(out=folder / f"text-{lang}", text=[path], lang=lang,
                                    min_lang_probability=0.0,
                                    held_out_share=0.2).path)
        for lang, path in given.texts.items()
    }  # fmt: skip
    made = langadapt.mix(
        out=folder / "data", model=given.model, corpora=texts, replay={"en": 0.5}, block_tokens=32,
        document_separator="<s>",
    )  # fmt: skip
    return Path(made.path)


def test_rates_that_cannot_be_compared_are_refused_before_anything_is_measured(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Meter, "add", None)
    with pytest.raises(ConfigError, match="the data have none"):
        given.train(tmp_path / "out", lr_probe=True, strategy="ssu", calibration_tokens=1500)
    config = validate(load("cpt").config, {"model": str(given.model), "data": str(given.data), "lr_probe": True})
    with pytest.raises(ConfigError, match="the data have none"):
        price(load("cpt"), config, resolved(load("cpt"), config))


def test_a_strategy_without_its_statistics_is_an_error(given: Given, tmp_path: Path) -> None:
    few = given_statistics(tmp_path / "statistics", given.model, "en", "hu")
    with pytest.raises(ConfigError, match="hold nothing of `de`"):
        given.train(tmp_path / "out", strategy="ssu", source="de", statistics=few)
    plain = given_statistics(tmp_path / "plain", given.model, taylor=False)
    wishes = {"strategy": "taylor", "statistics": str(plain)}
    words = r"looks at gradients, and .* was made without"
    with pytest.raises(DataError, match=words):
        given.train(tmp_path / "out", **wishes)
    verb = load("cpt")
    config = validate(verb.config, {"model": str(given.model), "data": str(given.data), **RUN, **wishes})
    with pytest.raises(DataError, match=words):
        price(verb, config, resolved(verb, config))


@pytest.mark.parametrize(
    ("strategy", "source", "said"),
    [("ssu", "hu", "which is also what is learned"), ("full", "en", "`full` shields no language"),
     ("ssu", "en", None), ("full", None, None)],
)  # fmt: skip
def test_a_source_that_is_learned_or_that_nothing_shields_is_told(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, source: str | None, said: str | None
) -> None:
    monkeypatch.setattr(cpt, "_train", lambda *args: (_ for _ in ()).throw(Interrupted("stopped")))
    notes: list[str] = []
    statistics = {"statistics": given.statistics} if strategy == "ssu" else {}
    with pytest.raises(Interrupted):
        given.train(
            tmp_path / "out", strategy=strategy, source=source, **statistics,
            listener=lambda event: notes.append(getattr(event, "text", "")),
        )  # fmt: skip
    assert [note for note in notes if "--source" in note] == [note for note in notes if said and said in note]
    assert said is None or any(said in note for note in notes)


def test_a_method_of_a_third_party_is_checked(given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = langadapt.core.registry.load_method("select", "hft")

    def forged(*args: Any) -> Movable:
        return Movable(frozenset(), {"lm_head.weight": Slice(0, np.array([5, 5], dtype=np.int32))})

    monkeypatch.setattr("langadapt.steps._strategy.load_method", lambda room, name: _with(method, forged))
    with pytest.raises(ConfigError, match="not ascending"):
        given.train(tmp_path / "out", strategy="hft")


def _with(method: Any, function: Any) -> Any:
    from dataclasses import replace

    return replace(method, function=function)
