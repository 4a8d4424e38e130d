"""Training with an adapter of peft: merged by the formula, tied tables stay one, the rest stays bit for bit."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import langadapt
from langadapt.core import interrupt
from langadapt.core.artifact import MANIFEST, Artifact, partial_folder
from langadapt.core.errors import ConfigError, Interrupted, LangadaptError
from langadapt.core.progress import Advanced, Event
from langadapt.train import merge
from tests.fixtures.tiny import tiny_corpus, tiny_model

SMALL = {"rank": 4, "alpha": 8}
SHAPES: dict[str, dict[str, Any]] = {
    "tied llama": {},
    "untied llama": {"tied": False},
    "tied gpt2, transposed layers with biases": {"arch": "gpt2"},
    "untied qwen2 with biases": {"arch": "qwen2", "tied": False},
    "phi, head with a bias": {"head_bias": True},
    "gemma2, scaled and capped": {"arch": "gemma2"},
    "tied llama stored in bf16": {"dtype": "bfloat16"},
    "untied llama stored in fp16": {"dtype": "float16", "tied": False},
}


def train(folder: Path, base: Path, name: str = "out", **changes: Any) -> Artifact:
    data = folder / "data"
    if not data.exists():
        text = str(tiny_corpus(folder / "text", "hu", 20))
        langadapt.mix(out=data, model=base, corpora={"hu": text}, block_tokens=32, document_separator="<s>")
    values = {"strategy": "lora", "strategy_options": SMALL, "steps": 4, "batch_tokens": 64, "learning_rate": 5e-3}
    return langadapt.cpt(out=folder / name, model=base, data=data, compute="fp32", **(values | changes))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_merged_matrix_is_base_plus_scaled_product(tmp_path: Path, shape: str) -> None:
    """W' = W + (alpha / rank) B A, computed here from the adapter that was kept; every other tensor is unchanged."""
    base = tiny_model(tmp_path / "base", **SHAPES[shape])
    made = train(tmp_path, base, strategy_options=SMALL | {"keep_adapter": True}).path
    before, after = load_file(base / "model.safetensors"), load_file(made / "model.safetensors")
    adapter = load_file(made / "adapter" / "adapter_model.safetensors")
    assert before.keys() == after.keys() and not any("lora" in name for name in after)
    merged = set()
    for name, first in adapter.items():
        if not name.endswith("lora_A.weight"):
            continue
        target = name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
        stored = target if target in before else target.partition(".")[2]
        change = 2.0 * (adapter[name.replace("lora_A", "lora_B")].double() @ first.double())
        change = change if change.shape == before[stored].shape and "c_" not in stored else change.T
        assert change.abs().max() > 0
        wanted = (before[stored].double() + change).to(before[stored].dtype).double()
        gap = (wanted - after[stored].double()).abs().max()
        assert gap <= 1e-6 + 2 * torch.finfo(before[stored].dtype).eps * wanted.abs().max(), stored
        merged.add(stored)
    assert len(merged) >= 8
    tables = {name for name in after if name.endswith(("embed_tokens.weight", "lm_head.weight", "wte.weight"))}
    tables |= {name for name in after if name == "lm_head.bias"}
    for name in before:
        assert after[name].dtype == before[name].dtype
        assert torch.equal(before[name], after[name]) == (name not in merged | tables), name


@pytest.mark.parametrize("shape", SHAPES)
def test_a_plain_folder_with_the_same_ties(tmp_path: Path, shape: str) -> None:
    base = tiny_model(tmp_path / "base", **SHAPES[shape])
    made = train(tmp_path, base).path
    config = [json.loads((folder / "config.json").read_text()) for folder in (base, made)]
    assert config[0].get("tie_word_embeddings") == config[1].get("tie_word_embeddings")
    model, old = (AutoModelForCausalLM.from_pretrained(folder) for folder in (made, base))

    def is_tied(one: Any) -> bool:
        return one.get_input_embeddings().weight.data_ptr() == one.get_output_embeddings().weight.data_ptr()

    assert is_tied(model) == is_tied(old)
    assert not torch.equal(model.get_input_embeddings().weight, old.get_input_embeddings().weight)
    assert not list(made.glob("adapter*"))


def test_tables_that_are_not_trained_stay(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    made = train(tmp_path, base, strategy_options=SMALL | {"train_tables": False})
    before, after = load_file(base / "model.safetensors"), load_file(made.path / "model.safetensors")
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])
    linear = [value.shape for name, value in before.items() if value.ndim == 2 and "embed" not in name]
    assert made.facts["trained_parameters"] == sum(4 * (rows + columns) for rows, columns in linear)


@pytest.mark.parametrize("kind", ["LOHA", "LOKR", "IA3", "OFT", "VERA", "RANDLORA", "HRA", "FOURIERFT"])
def test_other_adapters_of_peft(tmp_path: Path, kind: str) -> None:
    """Passed through by their own keys; what comes out is a plain model or a refusal that says why."""
    base = tiny_model(tmp_path / "base")
    keys = {"LOHA": {"r": 4}, "LOKR": {"r": 4}, "OFT": {"r": 2, "oft_block_size": 0}, "VERA": {"r": 4},
            "RANDLORA": {"r": 4}, "HRA": {"r": 4}, "FOURIERFT": {"n_frequency": 50}}.get(kind, {})  # fmt: skip
    if kind == "IA3":
        keys = {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    made = train(tmp_path, base, strategy="peft", strategy_options={"config": {"peft_type": kind, **keys}})
    before, after = load_file(base / "model.safetensors"), load_file(made.path / "model.safetensors")
    assert before.keys() == after.keys()
    assert not torch.equal(
        before["model.layers.1.self_attn.k_proj.weight"], after["model.layers.1.self_attn.k_proj.weight"]
    )


@pytest.mark.parametrize("bias", ["none", "lora_only", "all"])
def test_biases_that_the_adapter_trains_are_no_broken_shield(tmp_path: Path, bias: str) -> None:
    """With `all` those of norms move too, which the adapter does not wrap."""
    base = tiny_model(tmp_path / "base", arch="gpt2")
    config = {"peft_type": "LORA", "r": 4, "bias": bias}
    made = train(tmp_path, base, strategy="peft", strategy_options={"config": config})
    before, after = load_file(base / "model.safetensors"), load_file(made.path / "model.safetensors")
    moved = {name for name, value in before.items() if name.endswith(".bias") and not torch.equal(value, after[name])}
    assert moved == {
        name for name in before if name.endswith(".bias") and bias != "none" and (bias == "all" or "ln_" not in name)
    }
    assert made.facts["shield"]["broken"] == 0


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "prompt tuning": ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}, "in front of the text"),
    "prefix tuning": ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}, "in front of the text"),
    "adalora": ({"peft_type": "ADALORA", "total_step": 10}, "moves its ranks"),
    "two copies of a table": ({"peft_type": "LORA", "modules_to_save": ["embed_tokens"]}, "two copies"),
    "an unknown type": ({"peft_type": "LORO"}, "no adapter `LORO`"),
    "an unknown key": ({"peft_type": "LORA", "rang": 4}, "no key `rang`"),
    "a layer that is not there": ({"peft_type": "LORA", "target_modules": ["q_proj", "query"]}, "no layer `query`"),
    "a table": ({"peft_type": "LORA", "target_modules": ["lm_head"]}, "is a table"),
    "no type": ({"r": 4}, "no `peft_type`"),
    "weights of the base": ({"peft_type": "LORA", "r": 4, "init_lora_weights": "pissa"}, "changes weights of the base"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_merged_or_found_is_refused_before_training(tmp_path: Path, what: str) -> None:
    config, words = REFUSED[what]
    base = tiny_model(tmp_path / "base")
    with pytest.raises(ConfigError, match=words):
        train(tmp_path, base, strategy="peft", strategy_options={"config": config})
    assert not (tmp_path / "out").exists() and not partial_folder(tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes", [{"moments": "8bit"}, {"weights": "bf16"}, {"stages": [{"share": 0.5, "strategy": "embeddings"}, {}]}]
)
def test_combinations_that_make_no_sense(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        train(tmp_path, tiny_model(tmp_path / "base"), **changes)


def test_the_start_is_a_function_of_the_seed_alone(tmp_path: Path) -> None:
    """torch's own stream of random numbers neither decides the adapter nor is it moved."""
    base = tiny_model(tmp_path / "base")
    torch.manual_seed(1)
    first = train(tmp_path, base, "first")
    torch.manual_seed(2)
    here = torch.random.get_rng_state()
    second = train(tmp_path, base, "second")
    other = train(tmp_path, base, "other", seed=7)
    assert torch.equal(torch.random.get_rng_state(), here)
    assert (first.path / MANIFEST).read_bytes() == (second.path / MANIFEST).read_bytes()
    assert (first.path / "model.safetensors").read_bytes() != (other.path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("more", [{}, {"schedule": "wsd", "keep_branch": True, "gradient_checkpointing": "on"}])
def test_stopped_after_any_step_it_ends_in_the_same_bytes(tmp_path: Path, more: dict[str, Any]) -> None:
    base = tiny_model(tmp_path / "base")
    whole = train(tmp_path, base, "whole", **more)

    class Stop:
        seen = 0

        def __call__(self, event: Event) -> None:
            if isinstance(event, Advanced) and event.task == "training" and event.done < 4:
                interrupt.request(signal.SIGTERM)

    with interrupt.signals_as_flag():
        stops = 0
        while not (tmp_path / "parts").exists():
            interrupt._seen.clear()
            try:
                train(tmp_path, base, "parts", listener=Stop(), **more)
            except Interrupted:
                stops += 1
                saved = sorted((partial_folder(tmp_path / "parts") / "checkpoints").glob("step-*"))
                held = load_file(saved[-1] / "state.safetensors") if (saved[-1] / "state.safetensors").exists() else {}
                assert not any("norm" in name for name in held), "a checkpoint holds what moves, nothing else"
        assert stops >= 3
    assert (tmp_path / "parts" / MANIFEST).read_bytes() == (whole.path / MANIFEST).read_bytes()


def test_a_folder_that_is_not_what_was_trained_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One matrix forgotten, or the head of a tied model left as it was: both are found by reading the folder again."""
    base = tiny_model(tmp_path / "base")
    write = merge.write_model

    def forget(folder: Path, out: Path, replace: dict[str, torch.Tensor], **more: Any) -> None:
        write(folder, out, {name: value for name, value in replace.items() if "up_proj" not in name}, **more)

    monkeypatch.setattr(merge, "write_model", forget)
    with pytest.raises(LangadaptError, match="is not the one that was trained"):
        train(tmp_path, base)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    train(tmp_path, base)


def test_rows_of_new_tokens_move_faster(tmp_path: Path) -> None:
    """`new_rows_factor` counts beside an adapter too: with factor 1 the new rows move less than with 20."""
    base = tiny_model(tmp_path / "base")
    text = str(tiny_corpus(tmp_path / "words", "hu", 60))
    prepared = langadapt.prepare(out=tmp_path / "corpus", text=[text], lang="hu", min_lang_probability=0.0)
    vocabulary = langadapt.extend_vocab(
        out=tmp_path / "vocabulary", model=base, corpus=prepared.path, lang="hu", size=20, min_count=2
    )
    begun = langadapt.init_embeddings(out=tmp_path / "begun", model=base, tokenizer=vocabulary.path)
    start = load_file(begun.path / "model.safetensors")["model.embed_tokens.weight"]
    moved = {}
    for factor in (1.0, 20.0):
        made = train(tmp_path, begun.path, f"out-{factor:.0f}", new_rows_factor=factor)
        rows = load_file(made.path / "model.safetensors")["model.embed_tokens.weight"]
        old = begun.facts["old_rows"]
        moved[factor] = float((rows - start)[old:].abs().mean() / (rows - start)[:old].abs().mean())
    assert moved[20.0] > 5 * moved[1.0]
