"""init-embeddings on encoders and encoder-decoder models: tables, heads, biases, copies, ids; and who refuses them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import langadapt
from langadapt.core import verb as verbs
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import resolve_inputs
from langadapt.core.validate import validate
from langadapt.embed.rowmap import load_maps
from langadapt.model.kinds import kind_of, not_causal
from langadapt.model.tables import open_tables
from langadapt.model.weights import open_weights
from tests.fixtures.encoders import ENCODERS, HEADLESS, tiny_encoder
from tests.fixtures.tiny import tiny_corpus, tiny_model

AUTO = {"bert": "MaskedLM", "roberta": "MaskedLM", "xlmr": "MaskedLM"}
# (tied head, bias of the head)
HEADS = {"bert": (True, True), "roberta": (True, True), "xlmr": (True, True), "t5": (True, False)}
HEADS |= {"t5-untied": (False, False), "t5-v1.1": (False, False), "mbart": (True, True)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_corpus(tmp_path_factory.mktemp("text"), "hu", 60))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two with spare rows; two whose files hold tied tensors under all their names."""
    folder = tmp_path_factory.mktemp("encoders")
    return {
        arch: tiny_encoder(
            folder / arch, arch, padded_rows=3 if arch in ("t5", "xlmr") else 0, copies=arch in ("bert", "mbart", "t5")
        )
        for arch in ENCODERS
    }


def loaded(folder: Path, arch: str) -> Any:
    """As anyone would load it, and nothing may be missing."""
    import transformers

    made = getattr(transformers, f"AutoModelFor{AUTO.get(arch, 'Seq2SeqLM')}")
    model, info = made.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()


def outputs(model: Any, ids: list[int]) -> torch.Tensor:
    given = {"input_ids": torch.tensor([ids])}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = given["input_ids"]
    with torch.inference_mode():
        return model(**given).logits[0]


def drop_some(base: Path, out: Path) -> Path:
    """A tokenizer without every third text token; all others move, but for those that XLM-R counts positions from."""
    shutil.copytree(base, out, ignore=shutil.ignore_patterns("*.safetensors"))
    spec = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = spec["model"]["vocab"]
    added = {token["content"] for token in spec["added_tokens"]}
    pieces = (
        [entry[0] for entry in vocabulary] if isinstance(vocabulary, list) else sorted(vocabulary, key=vocabulary.get)
    )
    kept = [piece for at, piece in enumerate(pieces) if piece in added or at % 3]
    assert len(kept) < len(pieces) - 3
    kept = kept if base.name == "xlmr" else kept[::-1]
    moved = {piece: at for at, piece in enumerate(kept)}
    if isinstance(vocabulary, list):
        spec["model"]["vocab"] = sorted((entry for entry in vocabulary if entry[0] in moved), key=lambda e: moved[e[0]])
        spec["model"]["unk_id"] = moved["<unk>"]
    else:
        spec["model"]["vocab"] = moved
    for token in spec["added_tokens"]:
        token["id"] = moved[token["content"]]
    for name, entry in spec["post_processor"]["special_tokens"].items():
        entry["ids"] = [moved[name]]
    (out / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
    (out / "config.json").unlink()
    return out


@pytest.mark.parametrize("arch", ENCODERS)
def test_new_tokens_get_rows_in_every_table(arch: str, bases: dict[str, Path], corpus: str, tmp_path: Path) -> None:
    base = bases[arch]
    tokenizer = langadapt.extend_vocab(out=tmp_path / "tok", model=base, corpus=corpus, size=6, min_count=2)
    made = langadapt.init_embeddings(out=tmp_path / "out", model=base, tokenizer=tokenizer.path)
    before, after = open_tables(base), open_tables(made.path)
    tied, bias = HEADS[arch]
    assert made.facts["added"] == 6 and made.facts["tied"] is tied is after.tied
    new = [token for token in range(after.tokens.size) if token >= before.tokens.size]
    assert len(new) == 6 and after.rows == max(before.rows, after.tokens.size)
    maps = load_maps(made.path)
    tables = [("input", before.read_input(), after.read_input())]
    if not tied:
        tables.append(("head", before.read_head(), after.read_head()))
    for name, old, now in tables:
        assert torch.equal(now[: before.tokens.size], old[: before.tokens.size])
        np.testing.assert_array_equal(now[new].numpy(), maps[name].apply(old.numpy()))
    assert set(maps) == {name for name, _, _ in tables}
    assert (after.read_bias() is not None) is bias
    if bias:
        # b' = A b, by hand from the map: weights of old biases, the mean of all text tokens where nothing matched
        old, now = before.read_bias(), after.read_bias()
        assert old is not None and now is not None and torch.equal(now[: before.tokens.size], old[: before.tokens.size])
        rows = maps["input"]
        for line, id in enumerate(rows.new_ids.tolist()):
            part = slice(rows.indptr[line], rows.indptr[line + 1])
            values = [
                float(old[before.tokens.text_ids()].mean()) if column == before.rows else float(old[column])
                for column in rows.indices[part].tolist()
            ]
            assert float(now[id]) == pytest.approx(float(np.dot(rows.values[part], values)), abs=1e-6)
    # every copy in the files is the table, and the model that people load computes what it did
    stored = open_weights(made.path)
    for copy, main in after.copies.items():
        assert torch.equal(stored.read(copy), stored.read(main))
    models = loaded(base, arch), loaded(made.path, arch)
    shared = models[1].get_input_embeddings().weight.data_ptr() == models[1].get_output_embeddings().weight.data_ptr()
    assert shared is tied
    ids = before.tokens.text_ids().tolist()[:20]
    first, second = (outputs(model, ids) for model in models)
    assert torch.allclose(first[:, : before.tokens.size], second[:, : before.tokens.size], atol=1e-5)
    assert second.shape[1] == after.rows


@pytest.mark.parametrize("arch", ["bert", "xlmr", "t5-untied", "mbart"])
def test_a_smaller_tokenizer_moves_rows_biases_and_ids(arch: str, bases: dict[str, Path], tmp_path: Path) -> None:
    base = bases[arch]
    tokenizer = drop_some(base, tmp_path / "tok")
    made = langadapt.init_embeddings(out=tmp_path / "out", model=base, tokenizer=tokenizer)
    before, after = open_tables(base), open_tables(made.path)
    assert after.rows < before.rows and made.facts["added"] == 0
    ids = {before.tokens.piece(id): id for id in range(before.tokens.size)}
    moves = {ids[after.tokens.piece(id)]: id for id in range(after.tokens.size)}
    old, new = list(moves), list(moves.values())
    assert torch.equal(before.read_input()[old], after.read_input()[new])
    assert torch.equal(before.read_head()[old], after.read_head()[new])
    biases = before.read_bias(), after.read_bias()
    if biases[0] is not None and biases[1] is not None:
        assert torch.equal(biases[0][old], biases[1][new])
    settings = [json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in (base, made.path)]
    named = [key for key, value in settings[0].items() if key.endswith("_token_id") and value is not None]
    assert {"decoder_start_token_id"} <= set(named) or arch in AUTO
    for key in named:
        assert settings[1][key] == moves[settings[0][key]], key
    if arch == "mbart":
        generation = json.loads((made.path / "generation_config.json").read_text(encoding="utf-8"))
        for key in ("decoder_start_token_id", "forced_eos_token_id"):
            assert generation[key] == settings[1][key]
    text = [id for id in before.tokens.text_ids().tolist() if id in moves][:20]
    first = outputs(loaded(base, arch), text)[:, old]
    second = outputs(loaded(made.path, arch), [moves[id] for id in text])[:, new]
    assert torch.allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("how", ["trim", "same-size", "new"])
def test_tokenizers_that_renumber_or_replace(how: str, bases: dict[str, Path], corpus: str, tmp_path: Path) -> None:
    """RoBERTa: byte-level pieces, a bias, positions that are counted from the padding token."""
    base = bases["roberta"]
    if how == "trim":
        tokenizer = langadapt.trim_vocab(out=tmp_path / "tok", model=base, corpora=[corpus])
    elif how == "new":
        tokenizer = langadapt.train_tokenizer(out=tmp_path / "tok", model=base, corpora=[corpus], size=320, min_count=2)
    else:
        tokenizer = langadapt.extend_vocab(
            out=tmp_path / "tok", model=base, corpus=corpus, size=6, min_count=2, mode="same-size"
        )
    made = langadapt.init_embeddings(out=tmp_path / "out", model=base, tokenizer=tokenizer.path)
    assert made.facts["dropped"] > 0
    model = loaded(made.path, "roberta")
    assert model.config.vocab_size == made.facts["rows"] == model.get_input_embeddings().weight.shape[0]
    assert model.get_output_embeddings().bias.shape == (made.facts["rows"],)
    checks = json.loads((made.path / "checks.json").read_text(encoding="utf-8"))
    held = {check["name"] for check in checks if check["ok"] and check["must_hold"]}
    assert {"old text: hidden states are the same bits", "bias: old values are the same"} <= held


@pytest.mark.parametrize("arch", ["bert", "xlmr", "t5"])
def test_a_new_tokenizer_keeps_the_parts_that_its_class_knew(
    arch: str, bases: dict[str, Path], corpus: str, tmp_path: Path
) -> None:
    """Their settings name no special token; the class that did is replaced."""
    from transformers import AutoTokenizer

    base = bases[arch]
    made = langadapt.train_tokenizer(out=tmp_path / "tok", model=base, corpora=[corpus], size=320, min_count=2)
    before, after = AutoTokenizer.from_pretrained(base), AutoTokenizer.from_pretrained(made.path)
    roles = ("pad_token", "unk_token", "eos_token", "mask_token")
    assert [getattr(before, role) for role in roles] == [getattr(after, role) for role in roles]
    result = langadapt.init_embeddings(out=tmp_path / "out", model=base, tokenizer=made.path)
    assert loaded(result.path, arch).config.pad_token_id == after.pad_token_id


def test_a_padding_token_that_moves_is_refused_where_positions_count_from_it(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = tmp_path / "tok"
    shutil.copytree(bases["roberta"], tokenizer, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    spec = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    for table in (spec["model"]["vocab"],):
        table["<pad>"], table["</s>"] = table["</s>"], table["<pad>"]
    for token in spec["added_tokens"]:
        token["id"] = spec["model"]["vocab"][token["content"]]
    (tokenizer / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(DataError, match="the padding token would move from id 3 to 2"):
        langadapt.init_embeddings(out=tmp_path / "out", model=bases["roberta"], tokenizer=tokenizer)


@pytest.mark.parametrize("arch", sorted(HEADLESS))
def test_models_without_a_head_over_the_vocabulary(arch: str, corpus: str, tmp_path: Path) -> None:
    base = tiny_encoder(tmp_path / "base", arch, headless=True)
    tokenizer = langadapt.extend_vocab(out=tmp_path / "tok", model=base, corpus=corpus, size=6, min_count=2)
    made = langadapt.init_embeddings(out=tmp_path / "out", model=base, tokenizer=tokenizer.path)
    before, after = open_weights(base), open_weights(made.path)
    assert before.tensors.keys() == after.tensors.keys() and made.facts["head_mass_nats_mean"] is None
    changed = [n for n in before.tensors if before.tensors[n].shape != after.tensors[n].shape]
    assert len(changed) == 1 and after.tensors[changed[0]].shape[0] == before.tensors[changed[0]].shape[0] + 6
    assert all(torch.equal(before.read(n), after.read(n)) for n in before.tensors if n not in changed)
    table = verbs.load("init-embeddings").table
    assert table is not None and len(table(made).rows) > 4
    with pytest.raises(ConfigError, match="no head over its vocabulary"):
        langadapt.init_embeddings(out=tmp_path / "no", model=base, tokenizer=tokenizer.path, head_method="mean")


@pytest.mark.parametrize("verb", ["mix", "cpt", "evaluate"])
@pytest.mark.parametrize("arch", ["bert", "t5"])
def test_what_is_for_causal_models_says_so_at_once(
    verb: str, arch: str, bases: dict[str, Path], corpus: str, tmp_path: Path
) -> None:
    model, other = str(bases[arch]), tiny_model(tmp_path / "causal")
    given: dict[str, Any] = {"mix": {"model": model, "corpora": {"hu": corpus}}}
    given["evaluate"] = {"base": str(other), "adapted": model, "sets": {"hu": corpus}}
    if verb == "cpt":
        data = langadapt.mix(
            out=tmp_path / "data", model=other, corpora={"hu": corpus}, block_tokens=32, document_separator="<s>"
        )
        given["cpt"] = {"model": model, "data": str(data.path)}
    step = verbs.load(verb)
    config = validate(step.config, given[verb])
    for attempt in (
        lambda: step.estimate(config, resolve_inputs(config)),
        lambda: verbs.perform(step, config, tmp_path / "out"),
    ):
        with pytest.raises(DataError, match=f"`{verb}` is for causal language models") as caught:
            attempt()
        assert not_causal(Path(model)) in str(caught.value) and "init-embeddings" in (caught.value.hint or "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "causal"),
        ({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}, "causal"),
        ({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"}, "causal"),
        ({"architectures": ["LlamaModel"], "model_type": "llama"}, "causal"),
        ({"model_type": "qwen2"}, "causal"),
        ({"model_type": "no-such-family"}, "causal"),
        ({"architectures": ["RobertaForCausalLM"], "model_type": "roberta", "is_decoder": True}, "causal"),
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "masked"),
        ({"architectures": ["BertForPreTraining"], "model_type": "bert"}, "masked"),
        ({"model_type": "xlm-roberta"}, "masked"),
        ({"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta"}, "body"),
        ({"architectures": ["T5EncoderModel"], "model_type": "t5", "is_encoder_decoder": True}, "body"),
        (
            {"architectures": ["MT5ForConditionalGeneration"], "model_type": "mt5", "is_encoder_decoder": True},
            "seq2seq",
        ),
        ({"model_type": "t5"}, "seq2seq"),
    ],
)
def test_the_kind_of_a_model(config: dict[str, Any], kind: str) -> None:
    assert kind_of(config) == kind
