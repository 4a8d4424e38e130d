"""Neurons of languages: LAPE against brute force, and its neighbours."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from langadapt.core.errors import ConfigError, DataError
from langadapt.select.lape import entropy, neuron_sets
from langadapt.steps._strategy import select_with
from tests.fixtures.measured import language
from tests.fixtures.tiny import tiny_model
from tests.unit.test_select_methods import choose, looked

LANGS = ("de", "en", "hu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("neurons") / "llama")


def by_hand(rates: Any, top_rate: float, quantile: float) -> tuple[list[int], list[list[int]]]:
    """LAPE neuron by neuron, in plain Python: (chosen, those of each language)."""
    count, layers, width = rates.shape
    every = sorted(float(value) for value in rates.ravel())
    threshold = every[round(quantile * len(every)) - 1]
    found = []
    for layer in range(layers):
        for neuron in range(width):
            own = [float(rates[lang, layer, neuron]) for lang in range(count)]
            if max(own) <= threshold:
                continue
            total = 0.0
            for value in sorted(own):
                total += value
            high = 0.0
            for value in sorted(own):
                share = value / total
                high -= share * math.log(share) if share else 0.0
            found.append((round(high, 12), layer, neuron))
    chosen = sorted(layer * width + neuron for _, layer, neuron in sorted(found)[: round(top_rate * layers * width)])
    flat = rates.reshape(count, -1)
    return chosen, [[place for place in chosen if flat[lang, place] > threshold] for lang in range(count)]


@pytest.mark.parametrize("seed", range(6))
def test_lape_is_what_brute_force_finds_ties_included(seed: int) -> None:
    """Rates in eighths: many neurons have the same entropy, and many rates lie on the threshold."""
    random = np.random.Generator(np.random.Philox(key=seed))
    rates = random.integers(0, 9, size=(3, 4, 25)) / 8
    for top_rate in (0.05, 0.2):
        sets = neuron_sets(rates, LANGS, top_rate, 0.8)
        chosen, by_lang = by_hand(rates, top_rate, 0.8)
        assert sets.chosen.tolist() == chosen
        assert [sets.by_lang[lang].tolist() for lang in LANGS] == by_lang


def test_as_many_neurons_are_chosen_as_the_rate_says_and_each_has_a_language() -> None:
    rates = np.random.Generator(np.random.Philox(key=1)).random((5, 8, 100))
    sets = neuron_sets(rates, "abcde", 0.01, 0.95)
    assert len(sets.chosen) == round(0.01 * 8 * 100) == 8
    assert np.union1d(np.concatenate(list(sets.by_lang.values())), []).tolist() == sets.chosen.tolist()


def test_entropy_is_0_for_one_language_and_ln_k_for_all() -> None:
    rates = np.array([[0.7, 0.2, 0.0, 0.5], [0.0, 0.2, 0.0, 0.25], [0.0, 0.2, 0.0, 0.25]])
    found = entropy(rates)
    assert found[0] == 0.0
    assert found[1] == pytest.approx(math.log(3), abs=1e-15)
    assert found[2] == 0.0  # active in none; no threshold lets it through
    assert found[3] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4), abs=1e-15)


def test_lape_moves_gate_and_up_rows_and_down_columns_of_the_language(llama: Path) -> None:
    look = looked(llama, *LANGS)
    found = choose(look, "lape", top_rate=0.1)
    rates = np.stack([look.statistics().of(lang).rates() for lang in LANGS])
    _, (_, _, hungarian) = by_hand(rates, 0.1, 0.95)
    assert hungarian and not found.names
    for layer in (0, 1):
        own = [place - 64 * layer for place in hungarian if 64 * layer <= place < 64 * layer + 64]
        for part, axis in (("gate", 0), ("up", 0), ("down", 1)):
            name = f"model.layers.{layer}.mlp.{part}_proj.weight"
            assert (name in found.slices) == bool(own)
            if own:
                assert (found.slices[name].axis, found.slices[name].ids.tolist()) == (axis, own)
    assert all(".mlp." in name for name in found.slices)
    told = look.found
    assert told["neurons"]["hu"][0] == [place for place in hungarian if place < 64]
    assert told["counts"] == {lang: sum(map(len, told["neurons"][lang])) for lang in LANGS}
    assert told["overlap"].keys() == {"de en", "de hu", "en hu"}
    assert told["chosen"] == round(0.1 * 128)


def test_subnetwork_is_lape_and_the_rows_of_new_tokens(llama: Path) -> None:
    look = looked(llama, *LANGS, old_rows=355)
    neurons, both = choose(look, "lape", top_rate=0.1), choose(look, "subnetwork", top_rate=0.1)
    assert both.slices["model.embed_tokens.weight"].ids.tolist() == list(range(355, look.rows))
    assert both.slices.keys() - neurons.slices.keys() == {"model.embed_tokens.weight"}


def test_the_gap_is_to_the_next_language(llama: Path) -> None:
    look = looked(llama, *LANGS)
    rates = [look.statistics().of(lang).rates().ravel() for lang in LANGS]
    gap = [rates[2][place] - max(rates[0][place], rates[1][place]) for place in range(128)]
    wanted = sorted(sorted(range(128), key=lambda place: (-gap[place], place))[:13])
    choose(look, "activation-gap", top_rate=0.1)
    assert [place + 64 * layer for layer, ids in enumerate(look.found["neurons"]["hu"]) for place in ids] == wanted


@pytest.mark.parametrize("score", ["own", "specific"])
def test_taylor_takes_the_largest_effects(llama: Path, score: str) -> None:
    look = looked(llama, *LANGS)
    effects = [look.statistics().of(lang).taylor_scores().ravel() for lang in LANGS]
    wanted = effects[2] if score == "own" else effects[2] / sum(effects)
    choose(look, "taylor", top_rate=0.1, score=score)
    places = [place + 64 * layer for layer, ids in enumerate(look.found["neurons"]["hu"]) for place in ids]
    assert places == sorted(np.argsort(-wanted, kind="stable")[:13].tolist())
    with pytest.raises(ConfigError, match="without gradients"):
        choose(looked(llama, *LANGS, taylor=False), "taylor")


def test_kappa_takes_the_best_conditioned(llama: Path) -> None:
    look = looked(llama)
    by_score = {}
    for score in ("kappa", "robust", "stable-rank"):
        found = choose(look, "kappa", tensors=3, score=score)
        values = {}
        for matrix in look.anatomy.matrices:
            singular = np.linalg.svd(look.read(matrix.weight).double().numpy(), compute_uv=False)
            values[matrix.weight] = {
                "kappa": singular[0] / singular[-1],
                "robust": singular[0] / singular[round(0.95 * (len(singular) - 1))],
                "stable-rank": singular[0] ** 2 / (singular**2).sum(),
            }[score]
        by_score[score] = set(sorted(values, key=lambda name: values[name])[:3])
        assert found.names == by_score[score]
    assert choose(look, "kappa", tensors=0).names == frozenset()
    assert len(choose(look, "kappa", tensors=1000).names) == 14


def test_condition_of_known_spectra() -> None:
    from langadapt.select.kappa import condition, singular_values

    wide = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    found = singular_values(wide)
    assert found.dtype == np.float64 and found.tobytes() == singular_values(wide.T).tobytes()
    assert found == pytest.approx(np.sqrt(np.linalg.eigvalsh((wide @ wide.T).double().numpy())[::-1]), rel=1e-5)
    assert condition(np.array([4.0, 2.0, 1.0]), "kappa") == 4
    assert condition(np.array([4.0, 2.0, 0.0]), "kappa") == math.inf
    assert condition(np.array([2.0, 2.0]), "stable-rank") == 0.5
    assert condition(np.array([0.0, 0.0]), "robust") == math.inf
    values = np.linspace(10, 1, 101)
    assert condition(values, "robust") == pytest.approx(10 / values[95])
    assert condition(values * 7, "kappa") == pytest.approx(condition(values, "kappa"))


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2"])
def test_hft_takes_half_of_each_layer(tmp_path: Path, arch: str) -> None:
    look = looked(tiny_model(tmp_path / arch, arch=arch, layers=4))
    found = choose(look, "hft", tables="freeze")
    assert not found.slices
    mlp = {name for layer in look.anatomy.neurons for name, _, _ in layer.parts}
    inner, outer = [], []
    for layer in range(4):
        own = {matrix.weight for matrix in look.anatomy.matrices if matrix.layer == layer} & found.names
        inner.append(len(own & mlp))
        outer.append(len(own - mlp))
        norms = [name for name in found.names if f".{layer}." in name and len(look.parameters[name]) == 1
                 and name.endswith("weight")]  # fmt: skip
        assert len(norms) == 1
    assert sorted(inner) == ([1, 1, 1, 1] if arch == "gpt2" else [1, 1, 2, 2])
    assert outer == ([1] * 4 if arch == "gpt2" else [2] * 4)
    for name in look.parameters:
        if name.endswith(".bias"):
            assert (name in found.names) == (name.replace(".bias", ".weight") in found.names)
    assert choose(looked(tmp_path / arch, seed=1), "hft", tables="freeze").names != found.names


def test_shielded_lora_names_the_free_columns_of_its_targets(llama: Path) -> None:
    look = looked(llama)
    whole, few = choose(look, "shielded-lora", rank=2), choose(look, "shielded-lora", targets=["q_proj"], ratio=0.25)
    columns = choose(look, "ssu").slices
    for matrix in look.anatomy.matrices:
        assert whole.slices[matrix.weight].ids.tolist() == columns[matrix.weight].ids.tolist()
        assert (matrix.weight in few.slices) == matrix.module.endswith("q_proj")
    assert whole.adapter is not None and whole.adapter["r"] == 2
    assert len(few.slices["model.layers.1.self_attn.q_proj.weight"].ids) == 24
    assert "model.embed_tokens.weight" in whole.slices  # but for special tokens
    assert "model.embed_tokens.weight" not in choose(look, "shielded-lora", train_tables=False).slices


def test_what_cannot_be_told_of_languages_is_an_error(llama: Path) -> None:
    look = looked(llama, *LANGS)
    with pytest.raises(ConfigError, match="hold nothing of `fi`"):
        choose(look, "lape", langs=["fi", "hu"])
    with pytest.raises(ConfigError, match="not among `langs`"):
        choose(look, "lape", langs=["de", "en"])
    with pytest.raises(ConfigError, match="there is only `hu`"):
        choose(looked(llama, "hu"), "lape")
    with pytest.raises(DataError, match="no neuron of `hu` was found"):
        choose(look, "lape", top_rate=0.0)
    same = np.full((2, 64), 0.5)
    with pytest.raises(DataError, match="no neuron is active on more than"):
        choose(looked(llama, *LANGS, rates=same), "lape")
    with pytest.raises(DataError, match="are of no text"):
        choose(looked(llama, *LANGS, tokens=0), "lape")


def test_statistics_of_another_shape_are_refused(tmp_path: Path, llama: Path) -> None:
    wider = looked(tiny_model(tmp_path / "wide", width=64), *LANGS)
    narrow = looked(llama, *LANGS)
    mixed = type(narrow)(**{**vars(narrow), "measured": wider.measured})
    with pytest.raises(DataError, match="neurons, the model has"):
        choose(mixed, "lape")


def test_stability_is_the_agreement_of_the_halves(llama: Path) -> None:
    """Halves that say the same agree fully; a language of one token has a half that says nothing."""
    look = looked(llama, *LANGS)
    assert select_with(look, "lape", {"top_rate": 0.1})[0].found["stability"] == 1.0
    assert select_with(look, "ssu", {})[0].found["stability"] < 1.0
    one = {lang: language(look.anatomy, lang, tokens=1 if lang == "hu" else 1000) for lang in LANGS}
    statistics = type(look.statistics())(one)
    thin = type(look)(**{**vars(look), "measured": lambda: statistics, "found": {}})
    assert select_with(thin, "lape", {"top_rate": 0.1, "quantile": 0.5})[0].found["stability"] == 0.0


def test_choices_do_not_depend_on_the_order_of_hashes(llama: Path) -> None:
    """This process has a random order of its own."""
    script = (
        "import sys; from tests.unit.test_select_neurons import every_choice\n"
        "sys.stdout.write(every_choice(sys.argv[1]))"
    )
    other = subprocess.run(
        [sys.executable, "-c", script, str(llama)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "1", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    ).stdout
    assert other == every_choice(str(llama))


def every_choice(folder: str) -> str:
    """What several methods choose of a model, as text."""
    look = looked(Path(folder), *LANGS)
    told = []
    options: dict[str, dict[str, Any]] = {"kappa": {"tensors": 5}, "hft": {}, "lape": {"top_rate": 0.1}, "ssu": {}}
    for name, given in options.items():
        found = choose(look, name, **given)
        parts = [(key, part.axis, part.ids.tolist()) for key, part in sorted(found.slices.items())]
        told.append([name, sorted(found.names), parts])
    return json.dumps([told, look.found])
