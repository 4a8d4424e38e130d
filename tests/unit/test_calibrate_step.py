"""The verb calibrate: what it writes, languages added later, chats, what it refuses, its page."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import langadapt
from langadapt.core import verb as verbs
from langadapt.core.artifact import open_artifact, partial_folder
from langadapt.core.config import input_fields
from langadapt.core.errors import ConfigError, DataError, LangadaptError
from langadapt.core.inputs import Input, resolve_input, resolve_inputs
from langadapt.core.progress import Event, Note
from langadapt.core.validate import validate
from langadapt.model.load import load_tokenizer
from langadapt.select.statistics import read_language
from langadapt.steps import _calibrate_given
from langadapt.steps._strategy import statistics_of
from tests.fixtures.tiny import TEMPLATE, tiny_corpus, tiny_model, tiny_tokenizer

SETTINGS: dict[str, Any] = {"tokens": 1500, "window_tokens": 64, "compute": "fp32"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate")
    tiny_model(folder / "model")
    for lang in ("hu", "en", "sk"):
        tiny_corpus(folder / "text", lang)
    return folder


@pytest.fixture(scope="module")
def made(place: Path) -> Any:
    return measure(place, place / "made", "hu", "en")


def measure(place: Path, out: Path, *langs: str, **changes: Any) -> Any:
    values = {"model": place / "model", "corpora": texts(place, *langs), **SETTINGS, **changes}
    return langadapt.calibrate(out=out, **values)


def texts(place: Path, *langs: str) -> dict[str, Any]:
    return {lang: place / "text" / f"{lang}.jsonl" for lang in langs}


def given(path: Path, kind: str, name: str) -> Input:
    fields = {field.name: field for field in input_fields(verbs.load(kind).config)}
    return resolve_input(str(path), fields[name])


def test_what_is_written(place: Path, made: Any) -> None:
    facts = made.facts
    assert made.kind == "statistics" and facts["languages"].keys() == {"en", "hu"}
    entry = facts["languages"]["hu"]
    assert entry["tokens"] == 1500 and entry["documents"] >= 3
    assert entry["bytes"] >= 1500 and entry["stability"].keys() == {"neurons", "columns"}
    assert (facts["window_tokens"], facts["skip_first"], facts["chat"], facts["taylor"]) == (64, False, False, False)
    assert (facts["layers"], facts["neurons"], facts["opener"], facts["counted"]) == (2, 128, 1, True)
    assert sorted(facts["specific_layers"]) == ["en", "hu"]
    model = given(place / "model", "calibrate", "model")
    assert facts["model_digest"] == model.digest
    read = statistics_of(given(made.path, "calibrate", "add"), model)
    assert read is not None
    found = read()
    assert found.langs == ("en", "hu") and found.model_digest == model.digest
    assert found.of("hu").rates().shape == (2, 64) and int(found.of("hu").tokens.sum()) == 1500
    table = verbs.load("calibrate").table
    assert table is not None and [row[:2] for row in table(made).rows] == [("en", "1,500"), ("hu", "1,500")]


def test_a_language_that_is_added_is_as_one_measured_with_the_others(place: Path, made: Any, tmp_path: Path) -> None:
    first = measure(place, tmp_path / "first", "en")
    both = measure(place, tmp_path / "both", "hu", add=first.path)
    assert both.facts == made.facts
    for lang in ("en", "hu"):
        name = f"{lang}.safetensors"
        assert (both.path / name).read_bytes() == (made.path / name).read_bytes()
    # neither the order in which languages are given nor a longer code changes anything
    other = measure(
        place, tmp_path / "other", corpora={"eng": texts(place, "en")["en"], "hun": texts(place, "hu")["hu"]}
    )
    assert other.facts == made.facts


def test_what_cannot_be_added_is_refused(place: Path, made: Any, tmp_path: Path) -> None:
    def refuse(match: str, *langs: str, **changes: Any) -> LangadaptError:
        with pytest.raises(LangadaptError, match=match) as refused:
            measure(place, tmp_path / "o", *langs, add=made.path, **changes)
        assert not (tmp_path / "o").exists()
        return refused.value

    assert isinstance(refuse("has `en` already", "en", "sk"), ConfigError)
    assert isinstance(refuse("measured with `window_tokens` 64, this run has 32", "sk", window_tokens=32), ConfigError)
    refuse("measured with `skip_first` False", "sk", skip_first=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_calibrate_given, "SCHEMA", 3)
        refuse("was measured by another version", "sk")
    stranger = tiny_model(tmp_path / "stranger", seed=4)
    assert refuse(r"made of another model than .*stranger.* \(of \w{12}, not", "sk", model=stranger).exit_code == 3
    copy = Path(shutil.copytree(made.path, tmp_path / "copy"))
    with (copy / "hu.safetensors").open("r+b") as file:
        file.seek(-9, 2)
        file.write(b"x")
    with pytest.raises(DataError, match="was changed after it was written"):
        measure(place, tmp_path / "o", "sk", add=copy)


def test_a_damaged_file_is_named(made: Any, tmp_path: Path) -> None:
    shutil.copy(made.path / "hu.safetensors", tmp_path / "hu.safetensors")
    content = (tmp_path / "hu.safetensors").read_bytes()
    (tmp_path / "hu.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"hu\.safetensors` cannot be read"):
        read_language(tmp_path, "hu")
    tensors = load_file(made.path / "en.safetensors")
    del tensors["tokens"]
    save_file(tensors, tmp_path / "en.safetensors")
    with pytest.raises(DataError, match=r"en\.safetensors` cannot be read"):
        read_language(tmp_path, "en")


def test_names_and_texts_that_cannot_be_meant(place: Path, tmp_path: Path) -> None:
    def refuse(match: str, **changes: Any) -> LangadaptError:
        with pytest.raises(LangadaptError, match=match) as refused:
            measure(place, tmp_path / "o", "hu", **changes)
        return refused.value

    hu = place / "text" / "hu.jsonl"
    assert isinstance(refuse("is not a language code", corpora={"hungarian": hu}), ConfigError)
    assert isinstance(refuse("`hu` and `hun` are one language", corpora={"hu": hu, "hun": hu}), ConfigError)
    corpus = langadapt.prepare(out=tmp_path / "c", text=[str(hu)], lang="hu", min_lang_probability=0.0)
    said = refuse("a corpus in `hu` and was given as `en`", corpora={"en": corpus.path})
    assert said.exit_code == 3 and said.hint is not None and said.hint.startswith("write hu=")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    refuse("has no text", corpora={"hu": empty})
    refuse("has 512 positions", window_tokens=600)
    refuse("no token `<x>`", document_separator="<x>")


def test_special_tokens_do_not_count_and_first_ones_if_asked(place: Path, made: Any, tmp_path: Path) -> None:
    """Without skip_first the tokens of text count and the openers do not; with it one less a window and a document."""
    skipped = measure(place, tmp_path / "o", "hu", skip_first=True)
    entry, windows = skipped.facts["languages"]["hu"], -(-1500 // 62)
    assert 1500 - windows - entry["documents"] <= entry["tokens"] < 1500 - windows // 2
    # the text of the tokenizer's specials is text, as `mix` reads it
    marked = tmp_path / "marked.txt"
    marked.write_text("a house</s> by<pad> the river\n" * 60)
    found = measure(place, tmp_path / "m", corpora={"hu": marked}).facts["languages"]["hu"]
    tokenizer = load_tokenizer(place / "model")
    tokenizer.backend_tokenizer.encode_special_tokens = True
    one = len(tokenizer.backend_tokenizer.encode("a house</s> by<pad> the river", add_special_tokens=False).ids)
    assert found["tokens"] == min(1500, one * found["documents"])


def test_chat_puts_documents_into_the_template(place: Path, made: Any, tmp_path: Path) -> None:
    text = tmp_path / "talk.jsonl"
    text.write_text("".join(json.dumps({"text": f"the river {n}\nthe old house\nis {n}"}) + "\n" for n in range(30)))
    found = measure(place, tmp_path / "o", corpora={"en": text}, chat=True, tokens=100_000)
    backend = load_tokenizer(place / "model").backend_tokenizer
    kept = found.facts["languages"]["en"]["documents"]
    assert kept >= 25, "a few are held out"
    whole = 0
    for number in range(30):
        talk = f"<s>user\nthe river {number}</s>\n<s>assistant\nthe old house\nis {number}</s>\n"
        ids = backend.encode(talk, add_special_tokens=False).ids
        whole += sum(id not in (0, 1, 2, 3) for id in ids)
    assert kept * whole / 30 * 0.98 < found.facts["languages"]["en"]["tokens"] < kept * whole / 30 * 1.02
    plain = tiny_model(tmp_path / "plain")
    tokenizer = load_tokenizer(plain)
    assert tokenizer.chat_template == TEMPLATE
    for path in (*plain.glob("chat_template*"), plain / "tokenizer_config.json"):
        path.unlink()
    with pytest.raises(ConfigError, match="has no chat template"):
        measure(place, tmp_path / "p", corpora={"en": text}, chat=True, model=plain)


def test_a_mixture_of_experts_has_columns_only(place: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    model = tiny_model(tmp_path / "mixtral", arch="mixtral")
    made = measure(place, tmp_path / "o", "hu", "en", model=model, listener=heard.append)
    told = [event.text for event in heard if isinstance(event, Note) and event.level == "warning"]
    assert told == ["this model is a mixture of experts: neurons are not measured, columns are"]
    assert (made.facts["neurons"], made.facts["counted"], made.facts["specific_layers"]) == (0, False, {})
    found = read_language(made.path, "hu")
    assert any(name.endswith("q_proj.weight") for name in found.inputs)
    with pytest.raises(DataError, match="count no active neurons"):
        found.rates()
    table = verbs.load("calibrate").table
    assert table is not None and "not counted" in table(made).notes[-1]


def test_taylor_scores_are_there_if_asked_for(place: Path, made: Any, tmp_path: Path) -> None:
    found = read_language(measure(place, tmp_path / "o", "hu", taylor=True).path, "hu")
    assert found.taylor_scores().shape == (2, 64) and found.taylor_scores().min() > 0
    plain = read_language(made.path, "hu")
    np.testing.assert_allclose(found.rates(), plain.rates(), atol=2e-3)
    with pytest.raises(ConfigError, match="without gradients"):
        plain.taylor_scores()


def test_bf16_says_nearly_the_same(place: Path, made: Any, tmp_path: Path) -> None:
    found = read_language(measure(place, tmp_path / "o", "hu", compute="bf16").path, "hu")
    np.testing.assert_allclose(found.rates(), read_language(made.path, "hu").rates(), atol=0.03)


def test_the_price_before_the_run(place: Path, made: Any, tmp_path: Path) -> None:
    verb = verbs.load("calibrate")
    values = {"model": str(place / "model"), "corpora": {k: str(v) for k, v in texts(place, "hu", "en").items()}}
    (tmp_path / "empty.txt").write_text("\n")
    nothing = validate(verb.config, {**values, "corpora": {"hu": str(tmp_path / "empty.txt")}})
    with pytest.raises(DataError, match="corpus `hu` has no text"):
        verb.estimate(nothing, resolve_inputs(nothing))
    config = validate(verb.config, {**values, **SETTINGS, "tokens": 10_000_000})
    price = verb.estimate(config, resolve_inputs(config))
    rows = dict(price.rows)
    whole = measure(place, tmp_path / "o", "hu", tokens=10_000_000).facts["languages"]["hu"]["tokens"]
    assert int(rows["hu"].split()[0].replace(",", "")) == pytest.approx(whole, rel=0.25)
    assert price.facts["languages"].keys() == {"hu", "en"}  # type: ignore[attr-defined]
    assert price.seconds is not None and price.memory_bytes is not None and price.disk_bytes is not None
    assert sum(path.stat().st_size for path in made.path.glob("*.safetensors")) < price.disk_bytes


def test_the_examples_of_the_page_run(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from langadapt.cli.app import main
    from tests.e2e.test_docs_examples import ROOT, commands

    (tmp_path / "work").mkdir()
    shutil.copytree(place / "model", tmp_path / "work" / "init")
    for lang in ("hu", "en", "sk"):
        text = {"text": [str(place / "text" / f"{lang}.jsonl")], "lang": lang, "min_lang_probability": 0.0}
        langadapt.prepare(out=tmp_path / "work" / lang, **text)
    monkeypatch.chdir(tmp_path)
    said = []
    for text in commands(ROOT / "docs/calibrate.md"):
        with pytest.raises(SystemExit) as left:
            main(text.split()[1:])
        captured = capsys.readouterr()
        assert left.value.code in (0, None), captured.err
        said.append(captured.out)
    assert "tokens a second" in said[0] and "stability" in said[3]
    assert set(open_artifact(tmp_path / "work" / "stats3").facts["languages"]) == {"hu", "en", "sk"}
    assert not partial_folder(tmp_path / "work" / "stats").exists()


def test_a_recipe_measures_what_python_measures(
    tmp_path: Path, place: Path, made: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from langadapt.cli.app import main

    (tmp_path / "r.yaml").write_text(
        "vars: {base: null, hu: null, en: null}\n"
        "steps:\n"
        '  stats: {use: calibrate, model: "${base}", corpora: {hu: "${hu}", en: "${en}"}, tokens: 1500,\n'
        "          window_tokens: 64, compute: fp32}\n",
        encoding="utf-8",
    )
    words = ["run", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "run"), "-o", f"base={place / 'model'}"]
    for lang, path in texts(place, "hu", "en").items():
        words += ["-o", f"{lang}={path}"]
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code in (0, None), capsys.readouterr().err
    again = open_artifact((tmp_path / "run" / "steps" / "stats").resolve())
    assert again.facts == made.facts and again.fingerprint == made.fingerprint


def test_a_model_whose_tokenizer_has_no_opener(place: Path, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    tiny_tokenizer(model)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    for name in ("bos_token", "eos_token"):
        settings.pop(name, None)
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    (model / "special_tokens_map.json").unlink(missing_ok=True)
    content = json.loads((model / "tokenizer.json").read_text().replace("<|endoftext|>", "<|unk|>"))
    (model / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((model / "tokenizer_config.json").read_text().replace("<|endoftext|>", "<|unk|>"))
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    made = measure(place, tmp_path / "o", "hu", model=model)
    assert made.facts["opener"] is None and made.facts["languages"]["hu"]["tokens"] == 1500
