"""What a step of a recipe refuses whatever its inputs are is refused before the first step, with the line."""

from pathlib import Path

import pytest

from langadapt.core.errors import ConfigError
from langadapt.recipe.document import Setting
from langadapt.recipe.graph import build

# Inputs of each verb; nothing is opened.
INPUTS = {
    "cpt": "model: in, data: in",
    "select": "model: in",
    "mix": "model: in, corpora: {hu: in, en: in}",
    "evaluate": "base: in, adapted: in",
    "init-embeddings": "model: in, tokenizer: in",
    "compare-embeddings": "model: in, tokenizer: in, corpus: in",
    "extend-vocab": "model: in, corpus: in",
    "calibrate": "model: in",
}
REFUSED = [
    ("cpt", "strategy: activation_gap", "unknown strategy `activation_gap`"),
    ("cpt", "strategy: ssu, strategy_options: {ration: 1}", "unknown key `ration`"),
    ("cpt", "stages: [{share: 0.5, strategy: embedings}, {}]", "`embedings`"),
    ("cpt", "stages: [{share: 0.5, strategy: layers, strategy_options: {layer: 1}}, {}]", "unknown key `layer`"),
    ("cpt", "stages: [{share: 0.5, strategy: lora}, {}]", "an adapter is there from the first step"),
    ("cpt", "stages: [{share: 0.5}, {share: 0.2}]", "should add up to 1"),
    ("cpt", "lr_probe: true, stages: [{share: 0.5}, {}]", "not with `stages`"),
    ("cpt", "strategy: lora, moments: 8bit", "an adapter is small"),
    ("cpt", "max_icl_loss: 0.5", "limits what the probe finds"),
    ("select", "method: layers, method_options: {layer: 3}", "unknown key `layer`"),
    ("select", "method: lora", "no choice among them"),
    ("mix", "replay: {fi: 0.2}", "`fi`"),
    ("mix", "max_bytes: {fi: 3}", "`fi`, which is not among the corpora"),
    ("evaluate", "sets: {a/b: in}", "cannot name a set"),
    ("init-embeddings", "method: maen", "`maen`"),
    ("init-embeddings", "method: auto, head_method: mean, corpus: in", "`head_method` goes with a method"),
    ("init-embeddings", "undo: true, overlap: special", "an undo makes no rows"),
    ("compare-embeddings", "methods: [maen]", "`maen`"),
    ("compare-embeddings", "methods: [mean], method_options: {focus: {epochs: 1}}", "which is not compared"),
    ("extend-vocab", "mode: reserved, size: auto", "does not go with mode `reserved`"),
    ("calibrate", "corpora: {xx-yy-zz-1: in}", "xx-yy-zz-1"),
]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.txt").write_text("text")


@pytest.mark.parametrize(("verb", "fields", "words"), REFUSED)
def test_a_recipe_is_refused_before_its_first_step(verb: str, fields: str, words: str) -> None:
    Path("r.yaml").write_text(f"steps:\n  a: {{use: {verb}, {INPUTS[verb]}, {fields}}}\n")
    with pytest.raises(ConfigError, match=words) as caught:
        build(Path("r.yaml"))
    assert "step `a`" in caught.value.message and caught.value.where == "r.yaml:2"
    assert "problems" not in caught.value.message


@pytest.mark.parametrize("verb", sorted(INPUTS.keys() - {"select", "evaluate", "calibrate"}))
def test_the_usual_settings_of_each_verb_pass(verb: str) -> None:
    Path("r.yaml").write_text(f"steps:\n  a: {{use: {verb}, {INPUTS[verb]}}}\n")
    assert list(build(Path("r.yaml")).steps) == ["a"]


def test_corpora_that_are_still_to_be_given_are_not_judged() -> None:
    """Their names are not known yet, or one of them is not there yet."""
    for corpora in ("'${texts}'", "{hu: in, en: '${texts}'}"):
        text = f"steps:\n  a: {{use: mix, model: in, corpora: {corpora}, replay: {{en: 0.2}}}}\n"
        Path("r.yaml").write_text("vars: {texts: null}\n" + text)
        assert build(Path("r.yaml"), lenient=True).steps
    with pytest.raises(ConfigError, match="`en`"):
        build(Path("r.yaml"))
    assert build(Path("r.yaml"), (Setting.parse("texts=in"),)).steps
