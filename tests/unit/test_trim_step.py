"""From a trimmed tokenizer to a trained model: rows at their new ids, the same text, the same numbers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import langadapt
from langadapt.core import verb as verbs
from langadapt.core.artifact import Artifact
from langadapt.core.errors import LangadaptError
from langadapt.core.inputs import resolve_inputs
from langadapt.core.validate import validate
from langadapt.embed import assemble, identity
from langadapt.model import matching
from langadapt.model.load import load_model, load_tokenizer
from langadapt.model.row_origin import new_rows_of
from langadapt.model.tables import open_tables
from tests.fixtures.tiny import tiny_corpus, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus(tmp_path_factory.mktemp("text"), "hu", 60)


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untied model whose special tokens stand behind all others (as in Llama 3): trimming moves them."""
    folder = tiny_model(tmp_path_factory.mktemp("late") / "m", tied=False, head_bias=True)
    file = folder / "tokenizer.json"
    spec = json.loads(file.read_text(encoding="utf-8"))
    vocab, special = spec["model"]["vocab"], [entry["content"] for entry in spec["added_tokens"]]
    order = [*(piece for piece in sorted(vocab, key=vocab.__getitem__) if piece not in special), *special]
    spec["model"]["vocab"] = {piece: id for id, piece in enumerate(order)}
    for entry in spec["added_tokens"]:
        entry["id"] = spec["model"]["vocab"][entry["content"]]
    file.write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
    ids = {"bos_token_id": "<s>", "eos_token_id": "</s>", "pad_token_id": "<pad>"}
    for name in ("config.json", "generation_config.json"):
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        content |= {key: spec["model"]["vocab"][piece] for key, piece in ids.items()}
        if name == "generation_config.json":
            content |= {"eos_token_id": [content["eos_token_id"], content["bos_token_id"]], "suppress_tokens": [357]}
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings.pop("added_tokens_decoder", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trimmed(late: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return langadapt.trim_vocab(model=late, corpora=[corpus], out=tmp_path_factory.mktemp("trim") / "t")


@pytest.fixture(scope="module")
def made(late: Path, trimmed: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return langadapt.init_embeddings(out=tmp_path_factory.mktemp("init") / "a", model=late, tokenizer=trimmed)


def test_the_step_reports_what_it_did_and_repeats_itself(
    trimmed: Artifact, late: Path, corpus: Path, tmp_path: Path
) -> None:
    facts = trimmed.facts
    assert facts["vocabulary_before"] == 358 and facts["words_changed"] == 0 and facts["added"] == 0
    assert facts["dropped"] == 358 - facts["vocabulary_after"] > 30
    assert facts["parameters_saved"] == 2 * 32 * facts["dropped"] and facts["bytes_saved"] == 8 * 32 * facts["dropped"]
    assert facts["held_out_lines_same_ids"] == 1.0
    again = langadapt.trim_vocab(model=late, corpora=[corpus], out=tmp_path / "b")
    assert (again.path / "artifact.json").read_bytes() == (trimmed.path / "artifact.json").read_bytes()
    table = verbs.load("trim-vocab").table
    assert table is not None and all(len(row) == 3 for row in table(trimmed).rows)


def test_rows_config_and_generation_config_follow(made: Artifact, trimmed: Artifact, late: Path) -> None:
    old, new = open_tables(late), open_tables(made.path)
    lines = [json.loads(line) for line in (trimmed.path / "vocab_map.jsonl").read_text("utf-8").splitlines()[1:]]
    for line in lines:
        assert old.tokens.bytes_of(line["old_id"]) == new.tokens.bytes_of(line["id"])
        for read in ("read_input", "read_head", "read_bias"):
            assert torch.equal(getattr(old, read)()[line["old_id"]], getattr(new, read)()[line["id"]])
    assert new.rows == len(lines) == trimmed.facts["vocabulary_after"]
    tokenizer = load_tokenizer(made.path)
    generation = json.loads((made.path / "generation_config.json").read_text(encoding="utf-8"))
    end, begin, pad = (tokenizer.convert_tokens_to_ids(piece) for piece in ("</s>", "<s>", "<pad>"))
    assert end < 358 - 4, "the layout that this test is about"
    assert (new.config["bos_token_id"], new.config["eos_token_id"], new.config["pad_token_id"]) == (begin, end, pad)
    assert generation["eos_token_id"] == [end, begin] and generation["pad_token_id"] == pad
    assert generation["suppress_tokens"] == [pad]


def test_the_smaller_model_says_the_same(made: Artifact, late: Path, corpus: Path) -> None:
    text = json.loads(corpus.read_text(encoding="utf-8").splitlines()[0])["text"][:200]
    results = []
    for folder in (late, made.path):
        tokenizer, model = load_tokenizer(folder), load_model(folder)
        ids = tokenizer("<s>" + text, return_tensors="pt").input_ids
        written = model.generate(ids, max_new_tokens=8, do_sample=False, suppress_tokens=None)
        with torch.inference_mode():
            states = model.base_model(ids).last_hidden_state
        results.append((tokenizer.convert_ids_to_tokens(ids[0]), states, tokenizer.decode(written[0])))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("options", [{}, {"size": 300}])
def test_the_estimate_of_what_follows_knows_the_rows(
    options: dict[str, Any], late: Path, corpus: Path, tmp_path: Path
) -> None:
    tokenizer = langadapt.trim_vocab(model=late, corpora=[corpus], out=tmp_path / "t", **options)
    verb = verbs.load("init-embeddings")
    config = validate(verb.config, {"model": str(late), "tokenizer": str(tokenizer.path)}, what="test")
    estimate = verb.estimate(config, resolve_inputs(config))
    result = verbs.perform(verb, config, tmp_path / "out")
    # the bias of the head is not priced
    expected = {key: value for key, value in estimate.facts.items() if key != "parameters"}
    assert expected.items() <= result.artifact.facts.items()


# Faults: what would give a model that loads and is wrong


def initialise(late: Path, trimmed: Artifact, tmp_path: Path) -> None:
    langadapt.init_embeddings(out=tmp_path / "out", model=late, tokenizer=trimmed)


def test_a_row_at_a_wrong_id_is_caught(
    late: Path, trimmed: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = assemble._put_kept

    def exchanged(longer: torch.Tensor, old: torch.Tensor, plan: Any) -> None:
        good(longer, old, plan)
        longer[[20, 21]] = longer[[21, 20]]

    monkeypatch.setattr(assemble, "_put_kept", exchanged)
    with pytest.raises(LangadaptError, match="old rows are the same bits"):
        initialise(late, trimmed, tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_plan_that_pairs_wrong_tokens_is_caught(
    late: Path, trimmed: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = matching.pair

    def crossed(*tables: Any) -> Any:
        pairs = good(*tables)
        pairs.kept[20], pairs.kept[21] = pairs.kept[21], pairs.kept[20]
        return pairs

    monkeypatch.setattr(matching, "pair", crossed)
    monkeypatch.setattr(matching, "_agree", lambda *given: None)
    with pytest.raises(LangadaptError, match="every kept row belongs to the same token"):
        initialise(late, trimmed, tmp_path)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_stale_special_id_in_the_settings_is_caught(
    name: str, late: Path, trimmed: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = assemble.remapped

    def stale(content: Any, kept: Any, roles: Any, what: str) -> dict[str, Any]:
        found = good(content, kept, roles, what)
        return found | {"bos_token_id": 7} if what == name else found

    monkeypatch.setattr(assemble, "remapped", stale)
    with pytest.raises(LangadaptError, match="settings name the tokens that they named"):
        initialise(late, trimmed, tmp_path)


def test_special_strings_of_the_chat_template_are_looked_for(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "t"))
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    spec["added_tokens"] = [entry for entry in spec["added_tokens"] if entry["content"] != "<s>"]
    spec["model"]["vocab"] = {piece: id for piece, id in spec["model"]["vocab"].items() if piece != "<s>"}
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
    tables = open_tables(tiny)
    assert identity.lost_strings(tables.tokens, type(tables.tokens).from_folder(folder)) == ["<s>"]
    assert identity.lost_strings(tables.tokens, tables.tokens) == []


# The whole chain


def chain(model: Path, tokenizer: Any, folder: Path) -> tuple[Artifact, Artifact, Artifact]:
    hu = langadapt.prepare(
        text=[tiny_corpus(folder / "hu", "hu", 120)], lang="hu", min_lang_probability=0.0, out=folder / "prepared"
    )
    begun = langadapt.init_embeddings(model=model, tokenizer=tokenizer, out=folder / "init")
    data = langadapt.mix(model=begun, corpora={"hu": hu}, block_tokens=64, out=folder / "data")
    trained = langadapt.cpt(
        model=begun, data=data, steps=3, batch_tokens=128, learning_rate=2e-3, compute="fp32", threads=1,
        out=folder / "cpt",
    )  # fmt: skip
    verb = verbs.load("evaluate")
    values = {"base": str(model), "adapted": str(trained.path), "sets": {"hu": str(hu.path)}, "compute": "fp32"}
    values |= {"bootstrap_samples": 100, "segment_bytes": 120, "context_bytes": 120, "continuations": 1}
    scores = verbs.perform(verb, validate(verb.config, values, what="test"), folder / "scores").artifact
    return begun, trained, scores


def test_a_replaced_tokenizer_is_trained_and_scored(tiny: Path, tmp_path: Path) -> None:
    """Another tokenizer of the same kind: new rows stand among old ones, and only they move faster."""
    other = tiny_tokenizer(tmp_path / "t", size=330, split_digits=False)
    spec = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = spec["model"]["vocab"]
    # a new token in the middle
    vocab |= {"sz": vocab["Ġt"], "Ġt": len(vocab)}
    spec["model"]["merges"].append(["s", "z"])
    (other / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
    begun, trained, scores = chain(tiny, other, tmp_path)
    assert begun.facts["added"] >= 1 and begun.facts["dropped"] > 10
    rows = new_rows_of(begun.path)
    assert rows is not None and vocab["sz"] in rows.tolist()
    assert (trained.path / "row_origin.safetensors").read_bytes() == (
        begun.path / "row_origin.safetensors"
    ).read_bytes()
    assert scores.path.is_dir()
    before, after = (open_tables(folder).read_input().numpy() for folder in (begun.path, trained.path))
    moved = np.abs(after - before).max(axis=1)
    old = np.setdiff1d(np.arange(len(moved)), rows)
    assert moved[rows].max() > 3 * np.median(moved[old][moved[old] > 0])


def test_a_new_tokenizer_goes_through_the_chain(tiny: Path, corpus: Path, tmp_path: Path) -> None:
    tokenizer = langadapt.train_tokenizer(model=tiny, corpora=[corpus], size=420, out=tmp_path / "t")
    begun, trained, scores = chain(tiny, tokenizer, tmp_path)
    rows = new_rows_of(trained.path)
    assert rows is not None and len(rows) == begun.facts["added"] > 100
    assert trained.facts["rows"] == 420 and scores.path.is_dir()


def test_a_trimmed_model_goes_through_the_chain(late: Path, trimmed: Artifact, tmp_path: Path) -> None:
    begun, trained, scores = chain(late, trimmed, tmp_path)
    rows = new_rows_of(trained.path)
    assert rows is not None and not len(rows)
    assert trained.facts["rows"] == begun.facts["rows"] < 358 and scores.path.is_dir()
