"""What `cpt` says before a run of what it will let move, and what it refuses then already."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import langadapt
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.types import Estimate
from langadapt.core.validate import validate
from langadapt.core.verb import load, price, resolved
from langadapt.train import combine
from tests.fixtures.measured import given_statistics
from tests.fixtures.moving import Given
from tests.fixtures.tiny import tiny_model

RUN: dict[str, Any] = {"steps": 3, "batch_tokens": 64, "compute": "fp32", "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return Given(tmp_path_factory.mktemp("choice"), RUN, tied=False)


def priced_run(given: Given, **wishes: Any) -> Estimate:
    verb = load("cpt")
    config = validate(verb.config, {"model": str(given.model), "data": str(given.data), **RUN, **wishes})
    return price(verb, config, resolved(verb, config))


def test_the_price_says_what_moves_and_what_measuring_costs(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("langadapt.model.compute.busy_with", "langadapt.train.price.busy_with"):
        monkeypatch.setattr(place, lambda _: "load 9.0 on 2 core(s)")

    facts: dict[str, Any] = {}

    def priced(**more: Any) -> tuple[float, dict[str, str]]:
        found = priced_run(given, **more)
        assert found.seconds is not None
        assert sum(name == "timed while busy" for name, _ in found.rows) == 1
        facts.update(found.facts)
        return found.seconds, dict(found.rows)

    seconds, rows = priced(strategy="ssu")
    assert rows["moves"] == "about 50 % of the body, the tables" and rows["shielded for"] == "en"
    assert re.match(r"[\d,]+ tokens of en: ", rows["measured first"])
    measured, rows = priced(strategy="ssu", statistics=str(given.statistics))
    assert "measured first" not in rows and measured < seconds
    assert priced(strategy="subnetwork")[1]["neurons of"] == "hu"
    sel = langadapt.select(model=given.model, method="layers", out=tmp_path / "sel")
    rows = priced(selection=str(sel.path))[1]
    assert rows["moves"].endswith(f": {sel.facts['moving']:,} of {sel.facts['parameters']:,} numbers")
    assert (facts["strategy"], facts["trained_parameters"]) == ("selection", sel.facts["moving"])
    assert "moves" not in priced()[1]
    assert priced(steps=1)[1]["learning rate"].startswith("0.001 after 1 step, ")
    facts_of = combine.facts_of
    with monkeypatch.context() as patch:
        patch.setattr(combine, "facts_of", lambda model: {**facts_of(model), "added": 40})
        assert priced(strategy="lape")[1]["new tokens"] == "none of the rows of 40 moves"
        assert "new tokens" not in priced(strategy="subnetwork")[1]
    other = given_statistics(tmp_path / "stats", tiny_model(tmp_path / "other", tied=False, seed=3))
    with pytest.raises(DataError, match="made of another model"):
        priced(strategy="ssu", statistics=str(other))
    with pytest.raises(ConfigError, match="hold no text in `fi`"):
        priced(strategy="ssu", source="fi")
    with pytest.raises(ConfigError, match="statistics hold nothing of `fi`; they have de, en, hu"):
        priced(strategy="ssu", source="fi", statistics=str(given.statistics))


def test_what_names_and_shapes_tell_is_exact_before_the_run(given: Given, tmp_path: Path) -> None:
    for strategy in ("layers", "hft", "random", "special-tokens"):
        said = priced_run(given, strategy=strategy).facts["trained_parameters"]
        assert said == given.train(tmp_path / strategy, strategy=strategy).facts["selection"]["moving"]


def test_what_stages_move_is_told_as_exactly(given: Given, tmp_path: Path) -> None:
    alone = dict(priced_run(given, strategy="layers", strategy_options={"layers": "-1:"}).rows)["moves"]
    stage = {"share": 0.5, "strategy": "layers", "strategy_options": {"layers": "-1:"}}
    rows = dict(priced_run(given, stages=[stage, {"strategy": "full"}]).rows)
    assert rows["stage 1 moves"] == alone
    with pytest.raises(ConfigError, match="nothing would move: `new-tokens`"):
        priced_run(given, stages=[{"share": 0.5, "strategy": "new-tokens"}, {"strategy": "full"}])


def test_a_branch_of_another_choice_is_refused_by_the_price_too(given: Given, tmp_path: Path) -> None:
    half = langadapt.select(model=given.model, method="random", seed=1, out=tmp_path / "half").path
    other = langadapt.select(model=given.model, method="random", seed=2, out=tmp_path / "other").path
    more = {"schedule": "wsd", "steps": 6}
    one = given.train(tmp_path / "one", selection=half, keep_branch=True, **more).path
    every = given.train(tmp_path / "every", keep_branch=True, **more).path

    def priced(branch: Path, **wishes: Any) -> None:
        priced_run(given, **{**more, "steps": 8, "branch_from": str(branch), **wishes})

    priced(one, selection=str(half))
    priced(every)
    for branch, wishes in ((one, {"selection": str(other)}), (one, {}), (every, {"selection": str(half)}),
                           (every, {"strategy": "layers"})):  # fmt: skip
        with pytest.raises(DataError, match="in which other rows, columns or values may move"):
            priced(branch, **wishes)


def test_measuring_is_priced_with_the_threads_of_the_run(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def timed(*args: Any, **more: Any) -> tuple[float, float]:
        seen.append(torch.get_num_threads())
        return 0.001, 0.0

    monkeypatch.setattr("langadapt.steps._cpt_measure.token_seconds", timed)
    for threads in (1, 3):
        priced_run(given, strategy="ssu", threads=threads)
    assert seen == [1, 3]


@pytest.mark.parametrize(
    ("wishes", "who"),
    [
        ({"selection": "empty"}, "the selection"),
        ({"strategy": "new-tokens"}, "`new-tokens`"),
        ({"strategy": "ssu", "strategy_options": {"ratio": 1.0, "tables": "freeze"}}, "`ssu`"),
    ],
)
def test_training_nothing_is_refused_by_the_price_too(
    given: Given, tmp_path: Path, wishes: dict[str, Any], who: str
) -> None:
    if "selection" in wishes:
        empty = langadapt.select(model=given.model, method="new-tokens", out=tmp_path / "none")
        wishes = {"selection": str(empty.path)}
    with pytest.raises(ConfigError, match=f"nothing would move: {who}"):
        priced_run(given, **wishes)
