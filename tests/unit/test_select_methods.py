"""What selectors choose, against slow and obvious oracles."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.sources import build, merge
from langadapt.core.types import Movable
from langadapt.model.load import load_model
from langadapt.select.inputs import SelectInputs
from langadapt.select.statistics import Statistics
from langadapt.steps._strategy import look_at, named
from langadapt.steps.select import Config as Select
from tests.fixtures.measured import measured
from tests.fixtures.tiny import tiny_model


def looked(folder: Path, *langs: str, seed: int = 0, old_rows: int | None = None, **more: Any) -> SelectInputs:
    model = load_model(folder)
    look = look_at(model, folder, seed=seed, old_rows=old_rows, source="en", targets=frozenset({"hu"}))
    statistics = measured(look.anatomy, *(langs or ("en", "hu")), **more)
    return look_at(
        model, folder, seed=seed, old_rows=old_rows, source="en", targets=frozenset({"hu"}), statistics=statistics
    )


def choose(look: SelectInputs, name: str, **options: Any) -> Movable:
    method, settings = named(name, options)
    found: Movable = method(look, settings)
    return found


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "llama", tied=False)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "gpt2", arch="gpt2")


@pytest.mark.parametrize("score", ["ssu", "wanda"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_ssu_shields_the_columns_that_the_formula_says(family: str, score: str, request: pytest.FixtureRequest) -> None:
    """The oracle goes column by column through the loaded model, where a Conv1D is a Linear the other way round."""
    folder = request.getfixturevalue(family)
    look, ratio = looked(folder), 0.3
    found = choose(look, "ssu", ratio=ratio, score=score)
    source = look.statistics().of("en")
    modules = dict(load_model(folder).named_modules())
    assert len(look.anatomy.matrices) == (14 if family == "llama" else 8)
    for matrix in look.anatomy.matrices:
        weight = modules[matrix.module].weight.detach().double()
        columns = list(weight) if family == "gpt2" else list(weight.T)
        squares = source.inputs[matrix.weight].sum(0) / 1000
        scores = [
            float(column.pow(2).sum() ** 0.5) * square
            if score == "ssu"
            else float(column.abs().sum()) * square**0.5
            for column, square in zip(columns, squares, strict=True)
        ]  # fmt: skip
        ranked = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
        moves = sorted(ranked[int(len(scores) * ratio) :])
        part = found.slices[matrix.weight]
        assert part.axis == (0 if family == "gpt2" else 1)
        assert part.ids.tolist() == moves
        assert len(scores) - len(moves) == int(len(scores) * ratio)


def test_conv1d_and_linear_give_the_same_logical_choice(tmp_path: Path, gpt2: Path) -> None:
    """The same numbers in a Linear: the axis differs, the places do not."""
    look = looked(gpt2)
    matrix = look.anatomy.matrices[0]
    turned = type(matrix)(matrix.module, matrix.weight, matrix.bias, matrix.inputs, matrix.outputs, False, matrix.layer)
    values = look.read(matrix.weight)

    class Turned(SelectInputs):
        def read(self, name: str) -> torch.Tensor:
            return values.T if name == matrix.weight else super().read(name)

    other = Turned(**{**vars(look), "memory": {}})
    from langadapt.select.ssu import column_scores

    statistics = look.statistics().of("en")
    for score in ("ssu", "wanda"):
        a, b = (column_scores(view, statistics, each, score) for view, each in ((look, matrix), (other, turned)))
        assert np.array_equal(a, b)


def test_ssu_trains_tables_but_for_special_rows(llama: Path) -> None:
    look = looked(llama)
    found = choose(look, "ssu")
    specials = look.special_rows.tolist()
    assert specials == [0, 1, 2, 3]
    for table in ("model.embed_tokens.weight", "lm_head.weight"):
        assert found.slices[table].ids.tolist() == list(range(4, look.rows))
    assert not {"model.embed_tokens.weight", "lm_head.weight"} & (
        choose(look, "ssu", tables="freeze").slices.keys() | choose(look, "ssu", tables="new-rows").slices.keys()
    )
    grown = looked(llama, old_rows=look.rows - 3)
    rows = choose(grown, "ssu", tables="new-rows").slices["lm_head.weight"].ids
    assert rows.tolist() == [look.rows - 3, look.rows - 2, look.rows - 1]


@pytest.mark.parametrize("name", ["ssu", "magnitude", "random"])
def test_a_shield_of_nothing_and_of_all(llama: Path, name: str) -> None:
    look = looked(llama)
    open = choose(look, name, ratio=0.0)
    assert open.names == look.parameters.keys() - {"model.embed_tokens.weight", "lm_head.weight"}
    shut = choose(look, name, ratio=1.0)
    assert not shut.names and shut.slices.keys() == {"model.embed_tokens.weight", "lm_head.weight"}


def test_norms_are_shielded_by_what_they_read_and_biases_by_their_size(gpt2: Path) -> None:
    """A norm's shifts go by what the norm reads, as its factors do; what a matrix's bias is multiplied by is 1."""
    read = np.random.Generator(np.random.Philox(key=7)).random(32) * 4
    look = looked(gpt2, squares={f"transformer.{name}.weight": read for name in ("h.0.ln_1", "ln_f")})
    found = choose(look, "ssu", ratio=0.4)
    for name, scale in (
        ("h.0.ln_1.weight", 1 + read),
        ("h.0.ln_1.bias", 1 + read),
        ("ln_f.weight", 1 + read),
        ("h.0.attn.c_proj.bias", 1),
        ("h.0.mlp.c_fc.bias", 1),
    ):
        scores = look.read(f"transformer.{name}").abs().double().numpy() * scale
        moves = np.argsort(-scores, kind="stable")[int(len(scores) * 0.4) :]
        assert found.slices[f"transformer.{name}"].ids.tolist() == sorted(moves.tolist()), name


def test_statistics_without_what_norms_read_are_refused(llama: Path) -> None:
    """An older version did not measure it; a score without it would be another one."""
    look = looked(llama)
    old = look.statistics().of("en")
    stale = Statistics({"en": dataclasses.replace(old, norms={})})
    look = dataclasses.replace(look, measured=lambda: stale)
    with pytest.raises(DataError, match=r"norm `model.layers.0.input_layernorm.weight` reads") as refused:
        choose(look, "ssu")
    assert refused.value.hint is not None and "calibrate" in refused.value.hint
    assert choose(look, "magnitude").slices


def test_equal_scores_are_taken_in_their_order(llama: Path) -> None:
    from langadapt.select.choice import all_but_highest, lowest

    scores = np.array([1.0, 2.0, 2.0, 1.0, 2.0])
    assert all_but_highest(scores, 0.4).tolist() == [0, 3, 4]
    assert lowest(scores, 3).tolist() == [0, 1, 3]
    many = np.tile([1.0, 2.0], 200)  # more than a sort of few values by insertion would keep in order
    assert all_but_highest(many, 0.25).tolist() == [*range(0, 200, 2), *range(200, 400)]
    assert lowest(many, 100).tolist() == list(range(0, 200, 2))
    assert [len(all_but_highest(np.zeros(100), share)) for share in (0.29, 0.57, 1 / 3)] == [71, 43, 67]


@pytest.mark.parametrize(
    ("text", "wanted"), [("-2:", {2, 3}), (":1,-1:", {0, 3}), ("0,2", {0, 2}), ("-1", {3}), (":", {0, 1, 2, 3})]
)
def test_layers_are_counted_as_python_counts(text: str, wanted: set[int]) -> None:
    from langadapt.select.layers import picked

    assert picked(text, 4) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"), [(":2,-2:", ":2,-2:"), ("-4:", "-4:"), ("3", "3"), ("[0, -1]", "0,-1"), ("'-4:'", "-4:")]
)
def test_layers_can_be_written_as_the_page_shows_them(text: str, wanted: str) -> None:
    config = build(Select, merge(Select, assignments=["model=m", f"method_options.layers={text}"]))
    assert named("layers", config.method_options)[1].model_dump()["layers"] == wanted


@pytest.mark.parametrize("value", [True, [True], {"a": "b"}, {"a": None, "b": None}, 1.5, None])
def test_layers_that_are_no_text_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="layers"):
        named("layers", {"layers": value})


@pytest.mark.parametrize("text", ["4", "x", "", "9:", "1-2", "0,,1"])
def test_layers_that_are_not_there_are_refused(text: str) -> None:
    from langadapt.select.layers import picked

    with pytest.raises(ConfigError):
        picked(text, 4)


def test_layers_move_whole(gpt2: Path) -> None:
    look = looked(gpt2)
    found = choose(look, "layers", layers="-1")
    assert found.names == {name for name in look.parameters if name.startswith("transformer.h.1.")}
    assert len(found.names) == 12 and not found.slices


def test_tokens_by_kind(llama: Path) -> None:
    look = looked(llama, old_rows=350)
    assert choose(look, "new-tokens").slices["lm_head.weight"].ids.tolist() == list(range(350, look.rows))
    assert choose(look, "special-tokens").slices["lm_head.weight"].ids.tolist() == [0, 1, 2, 3]
    assert choose(looked(llama), "new-tokens") == Movable(frozenset())


def test_random_choices_depend_on_the_seed_alone(llama: Path) -> None:
    one, same, other = (choose(looked(llama, seed=seed), "random") for seed in (1, 1, 2))
    name = "model.layers.1.mlp.up_proj.weight"
    assert one.slices[name].ids.tolist() == same.slices[name].ids.tolist() != other.slices[name].ids.tolist()
    rows = choose(looked(llama), "random", unit="rows").slices[name]
    assert (rows.axis, len(rows.ids)) == (0, 32)


@pytest.mark.parametrize("neurons", [0, 1, 17])
def test_random_neurons_are_as_many_as_asked_for(llama: Path, neurons: int) -> None:
    found = choose(looked(llama), "random", unit="neurons", neurons=neurons, tables="freeze")
    down = [part for name, part in found.slices.items() if name.endswith("down_proj.weight")]
    assert sum(len(part.ids) for part in down) == neurons


def test_without_statistics_there_is_no_choice(llama: Path) -> None:
    look = look_at(load_model(llama), llama, seed=0, source="en")
    with pytest.raises(ConfigError, match="needs statistics"):
        choose(look, "ssu")
    with pytest.raises(ConfigError, match="hold nothing of `de`"):
        choose(look_at(load_model(llama), llama, seed=0, source="de", statistics=looked(llama).measured), "ssu")
    with pytest.raises(ConfigError, match="which language should stay"):
        choose(look_at(load_model(llama), llama, seed=0, statistics=looked(llama).measured), "ssu")
