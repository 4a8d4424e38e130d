"""Stages of `cpt` by any strategy: each moves what it chose, what others move stands still, and all of it is kept."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import langadapt
from langadapt.core import interrupt
from langadapt.core.errors import ConfigError, Interrupted
from langadapt.core.types import Movable, Slice
from langadapt.core.validate import validate
from langadapt.core.verb import load, price, resolved
from langadapt.select.selection import read_selection
from langadapt.train.optimiser import Optimiser
from langadapt.train.stages import joined
from tests.fixtures.moving import Given

# so small a rate that no number in fp32 moves by it
STILL = 1e-30

RUN: dict[str, Any] = {"steps": 4, "batch_tokens": 64, "compute": "fp32", "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return Given(tmp_path_factory.mktemp("stages"), RUN)


PAIRS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # columns within columns, rows of a table that the other stage holds
    ({"strategy": "special-tokens"}, {"strategy": "ssu"}),
    # parts of what the other moves whole
    ({"strategy": "magnitude", "strategy_options": {"ratio": 0.7}}, {"strategy": "full"}),
    # neurons and whole layers; nothing in common but a table
    ({"strategy": "lape", "strategy_options": {"top_rate": 0.5, "tables": "train"}},
     {"strategy": "layers", "strategy_options": {"layers": "-1:", "tables": "freeze"}}),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize("moves", [0, 1])
def test_a_stage_moves_what_its_strategy_chose_and_nothing_else(
    given: Given, tmp_path: Path, first: dict[str, Any], second: dict[str, Any], moves: int
) -> None:
    """The other stage runs at a rate of nothing, so what moved was moved by this one."""
    stages = [{"share": 0.5, **first}, {"warmup_steps": 0, **second}]
    stages[1 - moves]["learning_rate_factor"] = STILL
    looks = any(each["strategy"] in ("ssu", "lape") for each in (first, second))
    made = given.train(tmp_path / "out", stages=stages, **({"statistics": given.statistics} if looks else {}))
    one = (first, second)[moves]
    chosen = langadapt.select(
        model=given.model, method=one["strategy"], method_options=one.get("strategy_options", {}), source="en",
        lang="hu", out=tmp_path / "chosen",
        **({"statistics": given.statistics} if one["strategy"] in ("ssu", "lape") else {}),
    )  # fmt: skip
    selection = read_selection(chosen.path)
    base, after = (load_file(place / "model.safetensors") for place in (given.model, made.path))
    assert base.keys() <= after.keys()
    for name in base:
        apart = (base[name] != after[name]).numpy()
        part = selection.slices.get(name)
        if part is None:
            assert apart.any() == (name in selection.names), name
        else:
            where = np.unique(np.nonzero(apart)[part.axis])
            assert len(where) and np.isin(where, part.ids).all(), name


def test_two_stages_of_one_strategy_are_that_strategy(given: Given, tmp_path: Path) -> None:
    whole = given.train(tmp_path / "whole", strategy="ssu", statistics=given.statistics, weight_decay=0.1)
    half = {"strategy": "ssu", "warmup_steps": 0}
    staged = given.train(tmp_path / "out", stages=[{"share": 0.5, **half}, half], statistics=given.statistics)
    for file in ("model.safetensors", "selection/moves.safetensors", "metrics.jsonl"):
        assert (whole.path / file).read_bytes() == (staged.path / file).read_bytes()
    assert staged.facts["shield"] == whole.facts["shield"]


@pytest.mark.parametrize("ema", [{}, {"ema": 0.5}, {"ema": 0.5, "ema_every": 2, "ema_mode": "live"}])
def test_stopped_after_any_step_it_ends_in_the_same_bytes(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: dict[str, Any]
) -> None:
    """Also where what stands still in the second stage was moved by the first, and an average remembers that."""
    wishes = ema | {"stages": [{"share": 0.5, "strategy": "random"}, {"strategy": "magnitude"}], "steps": 6}
    whole = given.train(tmp_path / "whole", **wishes)
    step = Optimiser.step

    def stopping(*args: Any) -> None:
        step(*args)
        interrupt._seen.append(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Optimiser, "step", stopping)
        for _ in range(5):
            with pytest.raises(Interrupted):
                given.train(tmp_path / "out", **wishes)
            interrupt._seen.clear()
    assert given.train(tmp_path / "out", **wishes).digest == whole.digest


def test_what_a_stage_looks_at_is_measured_on_the_data(given: Given, tmp_path: Path) -> None:
    wishes = {"stages": [{"share": 0.5, "strategy": "special-tokens"}, {"strategy": "ssu"}], "calibration_tokens": 1500}
    config = validate(load("cpt").config, {"model": str(given.model), "data": str(given.data), "steps": 4, **wishes})
    rows = dict(price(load("cpt"), config, resolved(load("cpt"), config)).rows)
    assert rows["stage 1 moves"] == "some rows of the tables" and rows["shielded for"] == "en"
    assert rows["stage 2 moves"] == "about 50 % of the body, the tables"
    assert rows["measured first"].startswith("1,500 tokens of en: ")
    made = given.train(tmp_path / "out", **wishes)
    assert made.facts["shield"]["broken"] == 0 and made.facts["selection"]["method"] == "stages"


def test_gradients_are_measured_where_one_stage_needs_them(given: Given, tmp_path: Path) -> None:
    taylor = {"share": 0.5, "strategy": "taylor", "strategy_options": {"top_rate": 0.1}}
    made = given.train(tmp_path / "out", stages=[taylor, {"strategy": "full"}], calibration_tokens=1500)
    assert "selection" not in made.facts and made.facts["trained_parameters"] == made.facts["parameters"]


def test_what_stands_still_has_no_part_in_the_gradient_norm(given: Given, tmp_path: Path) -> None:
    alone = given.train(tmp_path / "alone", strategy="special-tokens")
    stages = [{"share": 0.5, "strategy": "special-tokens"}, {"strategy": "full"}]
    staged = given.train(tmp_path / "out", stages=stages)
    one, other = ([json.loads(line) for line in (made.path / "metrics.jsonl").read_text().splitlines()]
                  for made in (alone, staged))  # fmt: skip
    norms = [[line["grad_norm"] for line in lines if "loss" in line] for lines in (one, other)]
    assert norms[0][:2] == pytest.approx(norms[1][:2], rel=1e-5) and norms[1][2] > 2 * norms[0][2]


@pytest.mark.parametrize(
    ("stages", "more", "words"),
    [
        ([{"share": 0.5, "strategy": "shielded-lora"}, {}], {}, "an adapter is there from the first step"),
        ([{"share": 0.5, "strategy": "layers", "strategy_options": {"layer": 1}}, {}], {}, "unknown key `layer`"),
        ([{"share": 0.5, "strategy": "new-tokens"}, {}], {}, "nothing would move: `new-tokens`"),
        ([{"share": 0.5, "strategy": "random", "strategy_options": {"unit": "rows"}}, {"strategy": "random"}], {},
         "along different axes"),
        ([{"share": 0.5, "strategy": "layers"}, {}], {"strategy_options": {"layers": "-1:"}}, "strategies are theirs"),
        ([{"share": 0.01, "strategy": "embeddings"}, {}], {}, "would have no step"),
        ([{"share": 0.5, "strategy": "embeddings"}, {}], {"statistics": "here"}, "looks at no statistics"),
        ([{"share": 0.5, "strategy": "ssu"}, {}], {"source": "fi"}, "hold no text in `fi`"),
    ],
)  # fmt: skip
def test_stages_that_cannot_be_are_refused(
    given: Given, tmp_path: Path, stages: Any, more: dict[str, Any], words: str
) -> None:
    more = {key: given.statistics if value == "here" else value for key, value in more.items()}
    with pytest.raises(ConfigError, match=words):
        given.train(tmp_path / "out", stages=stages, **more)
    assert not (tmp_path / "out").exists()


def test_parts_are_joined_and_a_whole_takes_its_parts_in() -> None:
    def part(*ids: int, axis: int = 0) -> Slice:
        return Slice(axis, np.array(ids, dtype=np.int32))

    found = joined([
        Movable(frozenset({"a"}), {"b": part(1, 4), "c": part(2)}),
        Movable(frozenset({"c"}), {"a": part(3, axis=1), "b": part(0, 4)}),
    ])  # fmt: skip
    assert found.names == {"a", "c"} and list(found.slices) == ["b"]
    assert found.slices["b"].ids.tolist() == [0, 1, 4] and found.slices["b"].ids.dtype == np.int32
