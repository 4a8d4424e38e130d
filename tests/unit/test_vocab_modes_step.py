"""Modes of extend-vocab from text to a model that transformers loads: same shape, only the rows of taken ids change."""

import json
from pathlib import Path

import pytest
import torch

import langadapt
from langadapt.core import verb as verbs
from langadapt.core.errors import DataError
from langadapt.core.inputs import resolve_inputs
from langadapt.core.io import read_json_lines
from langadapt.core.progress import Note
from langadapt.model.tables import open_tables
from tests.fixtures.fallback import tiny_gemma3
from tests.fixtures.tiny import tiny_model
from tests.unit.test_vocab_step import ENGLISH, LINES

GREEK = ["η παλιά πόλη είναι κοντά στο ποτάμι", "τα παιδιά πηγαίνουν στο σχολείο το πρωί", "ο λόφος είναι ψηλός"]
RESERVED = [f"<|reserved_special_token_{number}|>" for number in range(6)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("modes")
    for lang, lines, documents in (("hu", LINES, 300), ("en", ENGLISH, 200), ("el", GREEK, 120)):
        count = len(lines)
        text = "".join(f"{lines[n % count]} {lines[n * 7 % count]} {n}\n" for n in range(documents))
        (place / f"{lang}.txt").write_text(text, encoding="utf-8")
        plain = {"min_lang_probability": 0.0, "documents": "line", "near_duplicates": "off"}
        langadapt.prepare(out=place / lang, text=[place / f"{lang}.txt"], lang=lang, **plain)
    model = tiny_model(place / "model", tied=False, padded_rows=10)
    _reserve(model)
    tiny_gemma3(place / "gemma")
    return place


def _reserve(model: Path) -> None:
    """Six reserved tokens into the padded rows, four rows stay spare; two reserved ones get something to do."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model))
    tokenizer.add_special_tokens({"additional_special_tokens": RESERVED})
    tokenizer.chat_template = tokenizer.chat_template.replace("<s>", RESERVED[1])
    tokenizer.save_pretrained(str(model))
    settings = json.loads((model / "generation_config.json").read_text())
    number = tokenizer.convert_tokens_to_ids(RESERVED[0])
    (model / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [2, number]}))


def extend(place: Path, name: str, **more):
    notes = []
    artifact = langadapt.extend_vocab(
        out=place / name,
        **{"model": place / "model", "corpus": place / "hu", "guard": [place / "en"], "size": 8, **more},
        listener=lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    return artifact, notes


def initialised(place: Path, artifact, model="model"):
    """The model with its new rows: (base tables, new tables, ids that are new)."""
    made = langadapt.init_embeddings(
        out=place / f"{artifact.path.name}-init", model=place / model, tokenizer=artifact.path
    )
    lines = list(read_json_lines(artifact.file("vocab_map.jsonl")))[1:]
    return open_tables(place / model), open_tables(made.path), [line["id"] for line in lines], made


def insist_on_rows(base, new, ids):
    assert new.rows == base.rows and new.config["vocab_size"] == base.config["vocab_size"]
    kept = torch.ones(base.rows, dtype=torch.bool)
    kept[ids] = False
    tables = [(base.read_input(), new.read_input())] + ([] if base.tied else [(base.read_head(), new.read_head())])
    for before, after in tables:
        assert torch.equal(before[kept], after[kept])
        assert (before[ids] != after[ids]).any(dim=1).all()


def test_reserved_ids_become_rows_of_new_tokens_and_the_table_keeps_its_shape(place: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    artifact, notes = extend(place, "reserved", mode="reserved")
    facts = artifact.facts
    # 4 spare rows, then the 4 reserved tokens that no template and no generation config names
    assert facts["added"] == 8 and facts["given_up"] == 4 and facts["vocabulary_after"] == 368 == facts["old_rows"]
    assert any("2 reserved tokens stay" in note for note in notes)
    base, new, ids, made = initialised(place, artifact)
    assert ids == [364, 365, 366, 367, 360, 361, 362, 363]
    insist_on_rows(base, new, ids)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(str(made.path)),
        AutoModelForCausalLM.from_pretrained(str(made.path)),
    )
    assert model.get_input_embeddings().weight.shape[0] == 368 and len(tokenizer) == 368
    assert tokenizer.convert_tokens_to_ids(RESERVED[0]) == 358 and tokenizer.convert_tokens_to_ids(RESERVED[1]) == 359
    assert RESERVED[2] not in tokenizer.get_vocab()
    used = set(tokenizer(LINES[0])["input_ids"])
    assert used & set(ids) and max(used) < 368
    again = tokenizer(RESERVED[1] + "user")["input_ids"]
    assert again[0] == 359


def test_more_tokens_than_reserved_ids_stop_at_what_fits(place: Path):
    artifact, notes = extend(place, "fits", mode="reserved", size=30)
    assert artifact.facts["added"] == 8 and artifact.facts["missing"] == 22
    assert any("8 ids are free" in note and "--mode append" in note for note in notes)


@pytest.mark.parametrize("model", ["model", "gemma"])
def test_unused_tokens_are_replaced_and_the_table_keeps_its_shape(place: Path, model: str):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    artifact, notes = extend(place, f"same-{model}", mode="same-size", size=15, model=place / model)
    facts = artifact.facts
    assert facts["added"] == facts["given_up"] == 15 and facts["vocabulary_before"] == facts["vocabulary_after"]
    assert facts["guarded_types_changed"] == 0 and sum(facts["given_up_by_script"].values()) == 15
    assert facts["bytes_per_token"]["adapted"] > facts["bytes_per_token"]["base"]
    assert any("15 old tokens are given up (" in note and "more tokens from now on" in note for note in notes)
    base, new, ids, made = initialised(place, artifact, model)
    insist_on_rows(base, new, ids)
    loaded = AutoModelForCausalLM.from_pretrained(str(made.path))
    before, after = (AutoTokenizer.from_pretrained(str(path)) for path in (place / model, made.path))
    assert loaded.get_input_embeddings().weight.shape[0] == base.rows
    for line in ENGLISH:
        assert before(line)["input_ids"] == after(line)["input_ids"]
    header, *lines = read_json_lines(artifact.file("vocab_map.jsonl"))
    assert header["mode"] == "same-size"
    for line in lines:
        assert before.convert_ids_to_tokens(line["id"]) == line["old_piece"]
        assert after.convert_ids_to_tokens(line["id"]) == line["piece"]
    assert any("old tokens given up" in note for note in verbs.load("extend-vocab").table(artifact).notes)


def test_a_taken_id_that_the_map_does_not_tell_of_is_refused(place: Path):
    artifact, _ = extend(place, "told", mode="same-size", size=20)
    folder = place / "untold"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes(artifact.file(name).read_bytes())
    header, *lines = read_json_lines(artifact.file("vocab_map.jsonl"))
    lines[3]["old_piece"] = "elsewhere"
    del header["mode"]
    (folder / "vocab_map.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [header, *lines]))
    with pytest.raises(DataError, match="does not extend the vocabulary"):
        langadapt.init_embeddings(out=place / "untold-init", model=place / "model", tokenizer=folder)


def test_no_id_to_give_is_said(place: Path):
    tiny_model(place / "full")
    with pytest.raises(DataError, match="has no id to give") as caught:
        extend(place, "none", model=place / "full", mode="reserved")
    assert "--mode append" in str(caught.value.hint)


@pytest.mark.parametrize("mode", ["reserved", "same-size"])
def test_the_price_knows_the_mode(place: Path, mode: str):
    verb = verbs.load("extend-vocab")
    given = {"model": str(place / "model"), "corpus": str(place / "hu"), "guard": (str(place / "en"),), "size": 8}
    config = verb.config(**given, mode=mode)
    facts = verb.estimate(config, resolve_inputs(config)).facts
    artifact, _ = extend(place, f"price-{mode}", mode=mode)
    for key in ("mode", "vocabulary_before", "vocabulary_after", "added"):
        assert facts[key] == artifact.facts[key], key
    rows = verbs.load("init-embeddings")
    config = rows.config(model=str(place / "model"), tokenizer=str(artifact.path))
    assert rows.estimate(config, resolve_inputs(config)).facts["rows"] == 368


def test_several_languages_share_the_tokens(place: Path):
    artifact, _ = extend(place, "two", also=[place / "el"], size=60, temperature=5.0, min_count=5)
    languages = artifact.facts["languages"]
    assert list(languages) == ["hu", "el"] and artifact.facts["lang"] == "hu"
    assert languages["hu"]["share"] + languages["el"]["share"] == pytest.approx(1, abs=1e-3)
    for rates in languages.values():
        assert rates["bytes_per_token"]["adapted"] > 1.15 * rates["bytes_per_token"]["base"]
    rows = verbs.load("extend-vocab").table(artifact).rows
    assert [row[0] for row in rows[-2:]] == ["bytes per token, hu", "bytes per token, el"]


def test_a_script_of_its_own_is_offered_and_used(place: Path):
    _, notes = extend(place, "offered", corpus=place / "el", min_count=5)
    assert any("guard_rule=script" in note and "Greek" in note for note in notes)
    artifact, _ = extend(place, "script", corpus=place / "el", guard_rule="script", min_count=5)
    assert artifact.facts["guard_scripts"] == ["GREEK"]
    checks = json.loads(artifact.file("checks.json").read_text())["checks"]
    assert checks["holds_script"]["examined"] == 8 and checks["holds_script"]["broken"] == 0
    with pytest.raises(DataError, match="a script that protected text has too"):
        extend(place, "latin", guard_rule="script")


def test_the_text_by_which_llama_cpp_knows_a_tokenizer_keeps_its_ids(place: Path):
    # target text made of that text's own words: each pair in them is frequent, and none may be joined
    from langadapt.vocab.gguf_probe import PROBE

    words = ["нещо", "на", "Български", "multiple", "emojis", "concatenated", "កាន់តែពិសេសអាច"]
    text = "".join(f"{LINES[n % 4]} {' '.join(words)} {n}\n" for n in range(60))
    (place / "probe.txt").write_text(text, encoding="utf-8")
    langadapt.prepare(
        out=place / "probe",
        text=[place / "probe.txt"],
        lang="hu",
        documents="line",
        near_duplicates="off",
        min_lang_probability=0.0,
    )
    artifact, notes = extend(place, "probed", corpus=place / "probe", guard=[], min_count=5)
    hashes = json.loads(artifact.file("checks.json").read_text())["gguf_probe"]
    assert artifact.facts["gguf_probe_kept"] is True and hashes["base"] == hashes["adapted"]
    assert len(hashes["base"]) == 64 and not any("llama.cpp" in note for note in notes)
    assert set(words) <= set(PROBE.replace("(", "").replace(")", "").replace("😁", "").split())


def test_no_guard_is_called_unguarded(place: Path):
    artifact, _ = extend(place, "unguarded", guard=[])
    assert any(note.startswith("unguarded") for note in verbs.load("extend-vocab").table(artifact).notes)


def command(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    from langadapt.cli.app import main

    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    out, err = capfd.readouterr()
    assert end.value.code == 0, err
    return out


def test_the_command_and_the_recipe_take_the_same_fields(place: Path, capfd: pytest.CaptureFixture[str]):
    inputs = [str(place / "model"), str(place / "hu"), "--guard", str(place / "en"), "--also", str(place / "el")]
    flags = ["--mode", "same-size", "-n", "8", "-o", "temperature=3", "-o", "min_count=5", "-q", "--json"]
    said = json.loads(command(capfd, "extend-vocab", *inputs, "--out", str(place / "typed"), *flags))
    assert said["facts"]["mode"] == "same-size" and said["facts"]["given_up"] == 8
    recipe = place / "recipe.yaml"
    recipe.write_text(
        """
name: modes
steps:
  tokenizer:
    use: extend-vocab
    model: model
    corpus: hu
    also: [el]
    guard: [en]
    mode: same-size
    size: 8
    temperature: 3.0
    min_count: 5
""",
        encoding="utf-8",
    )
    assert command(capfd, "recipe", "check", str(recipe), "-q") is not None
    plan = command(capfd, "run", str(recipe), "--dry-run", "--json", "-q")
    assert "tokenizer" in plan
