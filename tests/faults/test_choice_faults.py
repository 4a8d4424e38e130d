"""Choosing by statistics that are whole by their digests and wrong all the same; models without neurons."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import langadapt
from langadapt.core.artifact import partial_folder
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.progress import Event, Note
from langadapt.core.types import Estimate
from langadapt.core.validate import validate
from langadapt.core.verb import load, price, resolved
from langadapt.select.statistics import LanguageStatistics, Statistics, read_language, write_language
from tests.faults.test_data_faults import hashed
from tests.fixtures.measured import language
from tests.fixtures.tiny import tiny_corpus, tiny_model
from tests.unit.test_select_methods import choose, looked

Tensors = dict[str, Any]
CHOSEN: dict[str, dict[str, Any]] = {
    "activation-gap": {}, "hft": {}, "kappa": {"tensors": 5}, "lape": {"top_rate": 0.1}, "magnitude": {}, "random": {},
    "ssu": {}, "taylor": {},
}  # fmt: skip
MEASURED = frozenset({"activation-gap", "lape", "ssu", "taylor"})


def small() -> LanguageStatistics:
    """Two layers of three neurons, one matrix that reads two values."""
    layers = {layer: np.full((2, 3), 2.0) for layer in (0, 1)}
    return LanguageStatistics(
        "en", np.array([5, 4]), {layer: np.full((2, 3), 4) for layer in (0, 1)}, {0: -layers[0], 1: layers[1]}, layers,
        layers, {"q.weight": np.full((2, 2), 3.0)}, layers,
    )  # fmt: skip


HARMS: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "NaN": (lambda at: at["inputs/q.weight"].__setitem__((0, 1), np.nan), "`inputs/q.weight` holds numbers"),
    "infinity": (lambda at: at["active/1"].__setitem__((1, 2), np.inf), "`active/1` holds numbers"),
    "squares below 0": (lambda at: at["squares/0"].__setitem__((0, 0), -1e-9), "`squares/0` holds numbers"),
    "effects below 0": (lambda at: at["taylor/0"].__setitem__((0, 0), -1.0), "`taylor/0` holds numbers"),
    "counts below 0": (lambda at: at["positive/0"].__setitem__((0, 0), -1), "`positive/0` holds numbers"),
    "more than all": (lambda at: at["positive/0"].__setitem__((1, 0), 5), "`positive/0` counts more active tokens"),
    "one half": (lambda at: at.update({"sums/0": at["sums/0"][:1].copy()}), "`sums/0` is float64 .* not two rows"),
    "a list": (lambda at: at.update({"inputs/q.weight": np.ones(2)}), "`inputs/q.weight` is float64 .* not two rows"),
    "another type": (lambda at: at.update({"positive/0": np.ones((2, 3))}), "`positive/0` is float64 .* int64"),
    "tokens below 0": (lambda at: at.update(tokens=np.array([5, -4])), "`tokens` are not"),
    "tokens of one half": (lambda at: at.update(tokens=np.array([5])), "`tokens` are not"),
    "tokens that are no counts": (lambda at: at.update(tokens=np.array([5.0, np.nan])), "`tokens` are not"),
    "a number": (lambda at: at.update(tokens=np.array(9)), "`tokens` are not"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_numbers_that_no_text_gives_are_named(tmp_path: Path, harm: str) -> None:
    write_language(tmp_path, small())
    assert read_language(tmp_path, "en").tokens.tolist() == [5, 4]
    tensors = {name: value.copy() for name, value in load_file(tmp_path / "en.safetensors").items()}
    change, words = HARMS[harm]
    change(tensors)
    save_file(tensors, tmp_path / "en.safetensors")
    with pytest.raises(DataError, match=rf"en\.safetensors` is damaged: {words}"):
        read_language(tmp_path, "en")


def test_languages_of_two_models_are_no_statistics() -> None:
    """A layer fewer, or a wider one: what is compared would be other neurons."""
    one = small()
    Statistics({"en": one, "hu": one})
    for positive in ({0: one.positive[0]}, {0: one.positive[0], 1: np.full((2, 4), 4)}):
        with pytest.raises(DataError, match=r"`en` and `hu` are not of one model.*`positive/1`"):
            Statistics({"hu": replace(one, positive=positive), "en": one})


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("choice") / "llama")


def test_columns_are_not_chosen_by_statistics_of_others(llama: Path) -> None:
    look = looked(llama, "en")
    matrix, norm = look.anatomy.matrices[0], look.anatomy.norms[0]
    for length in (1, 5):
        found = language(look.anatomy, "en", squares={norm.weight: np.ones(length)})
        odd = replace(look, measured=lambda found=found: Statistics({"en": found}))
        with pytest.raises(DataError, match=rf"are of {length} values of `{norm.weight}`, which has 32"):
            choose(odd, "ssu")
        found = language(look.anatomy, "en", squares={matrix.weight: np.ones(length)})
        odd = replace(look, measured=lambda found=found: Statistics({"en": found}))
        with pytest.raises(DataError, match=rf"are of {length} columns of `{matrix.weight}`, which has 32"):
            choose(odd, "ssu")
    empty = language(look.anatomy, "en", tokens=0)
    with pytest.raises(DataError, match="the statistics of `en` are of no text"):
        choose(replace(look, measured=lambda: Statistics({"en": empty})), "ssu")


def test_languages_to_compare_go_by_any_of_their_codes(llama: Path) -> None:
    look = looked(llama, "de", "en", "hu")
    found = [choose(look, "lape", langs=langs, top_rate=0.3) for langs in (["hu", "en"], ["hun", "EN"])]
    assert str(found[0]) == str(found[1])


@pytest.mark.parametrize("arch", ["mixtral", "mamba"])
def test_neurons_that_are_not_there(tmp_path: Path, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before a model is loaded, by `calibrate` and by strategies that measure for themselves; by the price too."""
    model, text = tiny_model(tmp_path / "model", arch=arch), tiny_corpus(tmp_path / "text", "hu", 10)
    data = langadapt.mix(
        out=tmp_path / "data", model=model, corpora={"hu": str(text)}, block_tokens=32, document_separator="<s>"
    )
    monkeypatch.setattr("langadapt.model.load.load_model", None)  # whoever loads it is found out
    measure = {"model": str(model), "corpora": {"hu": str(text)}, "tokens": 400, "window_tokens": 32}
    words = "it has no neurons whose gradients could be measured"
    for refuse in (_priced, _made):
        with pytest.raises(DataError, match=words) as refused:
            refuse(tmp_path / "out", "calibrate", measure | {"taylor": True})
        assert refused.value.exit_code == 3 and "leave `--taylor` out" in str(refused.value)
        train = {"model": str(model), "data": str(data.path), "steps": 2, "batch_tokens": 64}
        for strategy in ("taylor", "lape", "subnetwork", "activation-gap"):
            with pytest.raises(DataError, match=r"chooses neurons, and of `.*model` there are none to choose from"):
                refuse(tmp_path / "out", "cpt", train | {"strategy": strategy})
    monkeypatch.undo()
    made = langadapt.calibrate(model, {"hu": text}, tokens=400, window_tokens=32, out=tmp_path / "st")
    rows = dict(_priced(tmp_path / "out", "calibrate", measure).rows)
    assert rows["neurons"].startswith("not measured: ") and made.facts["counted"] is False
    choose = {"model": str(model), "method": "lape", "statistics": str(made.path), "lang": "hu"}
    for refuse in (_priced, _made):
        with pytest.raises(DataError, match=r"chooses neurons, and of `.*model` there are none to choose from"):
            refuse(tmp_path / "out", "select", choose)
    assert not (tmp_path / "out").exists() and not partial_folder(tmp_path / "out").exists()


def test_active_neurons_that_are_not_counted(llama: Path, tmp_path: Path) -> None:
    """The config names the activation function. Gradients of such neurons can be measured."""
    model = Path(shutil.copytree(llama, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text()) | {"hidden_act": "sigmoid"}
    (model / "config.json").write_text(json.dumps(config))
    text = {"hu": str(tiny_corpus(tmp_path / "text", "hu", 10))}
    data = langadapt.mix(out=tmp_path / "data", model=model, corpora=text, block_tokens=32, document_separator="<s>")
    train = {"model": str(model), "data": str(data.path), "steps": 2, "batch_tokens": 64}
    for refuse in (_priced, _made):
        with pytest.raises(DataError, match=r"none to choose from: .* above 0 for some values below 0"):
            refuse(tmp_path / "out", "cpt", train | {"strategy": "lape"})
    assert "measured first" in dict(_priced(tmp_path / "out", "cpt", train | {"strategy": "taylor"}).rows)


def _priced(out: Path, verb: str, values: dict[str, Any]) -> Estimate:
    loaded = load(verb)
    config = validate(loaded.config, values)
    return price(loaded, config, resolved(loaded, config))


def _made(out: Path, verb: str, values: dict[str, Any]) -> None:
    getattr(langadapt, verb)(out=out, **values)


_PROGRAM = """
import json, sys
import torch
import langadapt
threads, given = int(sys.argv[1]), json.loads(sys.argv[2])
for step, config in given:
    torch.set_num_threads(threads if step == "select" else 1)
    getattr(langadapt, step)(**config)
"""


def test_place_threads_locale_hash_seed_and_order_do_not_matter(tmp_path: Path) -> None:
    """Rows 44 and 45: whole artifacts of two processes in different surroundings. Sums over text have one thread."""
    model = str(tiny_model(tmp_path / "model", width=128))
    corpora = {lang: str(tiny_corpus(tmp_path / "text", lang, 30)) for lang in ("hu", "en")}
    langadapt.mix(
        out=tmp_path / "data", model=model, corpora=corpora, replay={"en": 0.25}, block_tokens=32,
        document_separator="<s>",
    )  # fmt: skip
    common = {"compute": "fp32", "threads": 1}
    running = []
    for number, (threads, zone, locale) in enumerate([(1, "UTC", "C"), (2, "Asia/Tokyo", "C.UTF-8")]):
        place = tmp_path / f"place {number}"
        place.mkdir()
        ordered = dict(sorted(corpora.items(), reverse=bool(number)))
        measure = {"model": model, "corpora": ordered, "tokens": 2000, "window_tokens": 64, "taylor": True, "out": "st"}
        steps: list[tuple[str, dict[str, Any]]] = [("calibrate", measure | common)]
        for name in sorted(CHOSEN):
            looks = {"statistics": "st", "lang": "hu", "source": "en"} if name in MEASURED else {}
            steps.append(
                ("select", {"model": model, "method": name, "out": name, "method_options": CHOSEN[name], **looks})
            )
        train = {"model": model, "data": str(tmp_path / "data"), "strategy": "ssu", "steps": 2, "batch_tokens": 64}
        steps.append(("cpt", train | common | {"calibration_tokens": 1000, "out": "trained"}))
        environment = os.environ | {
            "PYTHONHASHSEED": str(number + 1), "TZ": zone, "LC_ALL": locale, "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }  # fmt: skip
        command = [sys.executable, "-c", _PROGRAM, str(threads), json.dumps(steps)]
        running.append((place, subprocess.Popen(command, env=environment, cwd=place)))
    assert [process.wait(180) for _, process in running] == [0, 0]
    one, other = (hashed(place) for place, _ in running)
    assert [name for name in one if one[name] != other.get(name)] == [] and one.keys() == other.keys()
    assert {f"{name}/artifact.json" for name in (*CHOSEN, "st", "trained")} <= one.keys()


def test_no_text_and_next_to_none(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no text to measure on"):
        langadapt.calibrate(llama, {}, out=tmp_path / "out")
    (tmp_path / "hu.txt").write_text("a\n")
    heard: list[Event] = []
    made = langadapt.calibrate(
        llama, {"hu": tmp_path / "hu.txt"}, compute="fp32", out=tmp_path / "one", listener=heard.append
    )
    assert made.facts["languages"]["hu"]["tokens"] == 1
    warned = [event.text for event in heard if isinstance(event, Note) and event.level == "warning"]
    assert len(warned) == 1 and warned[0].startswith("hu: 1 tokens are too few for two halves")
