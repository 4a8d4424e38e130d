"""extend-vocab as a step on small files: artifact, facts, determinism, refusals, price; and the measures."""

import json
from pathlib import Path

import pytest

import langadapt
from langadapt.core import verb as verbs
from langadapt.core.errors import DataError
from langadapt.core.inputs import resolve_inputs
from langadapt.core.io import read_json_lines
from langadapt.core.progress import Advanced, Event, Finished, Note, Started
from langadapt.model.bytes_alphabet import to_bytes, to_piece
from langadapt.vocab import metrics, predict, tokenizer_file
from tests.fixtures.tiny import tiny_tokenizer

LINES = [
    "a ház a dombon áll és a folyó a házak alatt folyik",
    "a faluban minden ember ismerte a domb régi történeteit és meséit",
    "őrült kőművesek építették a gyönyörű erődöt a történelmi időkben",
    "elment a piacra, vett tizenkét almát, aztán hazament a gyerekekhez",
]
# the fixture asks for 360 and its text gives two fewer
OLD = 358
ENGLISH = ["the house stands on the hill", "she walked to the market and bought apples", "all the people knew the hill"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("vocab")
    model = tiny_tokenizer(place / "model", size=360)
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 368}), encoding="utf-8")
    # a number makes the documents differ, or all would be held out together or not at all
    text = "".join(f"{LINES[number % 4]} {LINES[number * 7 % 4]} {number}\n" for number in range(300))
    (place / "hu.txt").write_text(text, encoding="utf-8")
    text = "".join(f"{ENGLISH[number % 3]} {number}\n" for number in range(300))
    (place / "en.txt").write_text(text, encoding="utf-8")
    plain = {"min_lang_probability": 0.0, "documents": "line", "near_duplicates": "off"}
    langadapt.prepare(out=place / "hu", text=[place / "hu.txt"], lang="hu", **plain)
    langadapt.prepare(out=place / "en", text=[place / "en.txt"], lang="en", **plain)
    return place


def extend(place: Path, name: str, **more):
    notes = []
    artifact = langadapt.extend_vocab(
        out=place / name,
        **{"model": place / "model", "corpus": place / "hu", "guard": [place / "en"], "size": 40, **more},
        listener=lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    return artifact, notes


def test_every_long_part_reports(place: Path) -> None:
    """Text, protected words, target words, merges, checks, measures: with real text each of them takes seconds."""
    events: list[Event] = []
    langadapt.extend_vocab(
        place / "model", place / "hu", guard=[place / "en"], size=40, out=place / "heard", listener=events.append
    )
    said = [event.task for event in events if isinstance(event, Started)]
    assert [task.split(" of ")[0] for task in said] == [
        "counting words",
        "counting protected words",
        "cutting protected words",
        "cutting words",
        "learning merges",
        "checking the new tokenizer",
        "measuring base on held-out text",
        "measuring adapted on held-out text",
    ]
    ends = {event.task: event.done for event in events if isinstance(event, Finished)}
    assert all(ends[task] > 0 for task in said)
    # each check as it ends, not all at the end
    checks = json.loads((place / "heard" / "checks.json").read_text())["checks"]
    heard = [event.detail for event in events if isinstance(event, Advanced) and event.task.startswith("checking")]
    assert len(set(heard)) == len(heard) > 7 and set(heard) <= set(checks)
    assert ends["checking the new tokenizer"] == len(checks)
    assert "counting what is used" in [event.detail for event in events if isinstance(event, Advanced)]
    first = next(event for event in events if isinstance(event, Note))
    assert first.text == f"reading the tokenizer of {place / 'model'}"


def test_the_artifact_holds_what_later_steps_read(place: Path):
    artifact, _ = extend(place, "one")
    facts = artifact.facts
    assert (facts["vocabulary_before"], facts["vocabulary_after"], facts["added"], facts["old_rows"]) == (
        OLD,
        OLD + 40,
        40,
        368,
    )
    assert facts["guarded_types_changed"] == 0 and facts["unreachable"] == 0
    assert facts["held_out_lines_same_ids"] == 1.0 and facts["held_out_lines"] > 0
    assert facts["guard_langs"] == ["en"] and facts["lang"] == "hu" and facts["family"] == "byte-bpe"
    assert facts["tokens_per_word"]["adapted"] < 0.8 * facts["tokens_per_word"]["base"]
    header, *lines = read_json_lines(artifact.file("vocab_map.jsonl"))
    assert header == {"old_rows": 368, "vocabulary_before": OLD, "vocabulary_after": OLD + 40, "family": "byte-bpe"}
    assert [line["id"] for line in lines] == list(range(OLD, OLD + 40))
    for line in lines:
        assert bytes.fromhex(line["hex"]) == to_bytes(line["piece"]) and line["piece"] == "".join(line["parts"])
    checks = json.loads(artifact.file("checks.json").read_text())
    assert all(check["broken"] == 0 and check["examined"] > 0 for check in checks["checks"].values())
    assert {"roles_kept", "chat_kept", "loads_as_written", "guarded_words_kept"} <= checks["checks"].keys()
    table = verbs.load("extend-vocab").table(artifact)
    assert table.rows[0] == ("tokens in the vocabulary", str(OLD), str(OLD + 40)) and any(
        "after:" in note for note in table.notes
    )


def test_transformers_loads_it_with_template_and_roles(place: Path):
    from transformers import AutoTokenizer

    artifact, _ = extend(place, "one")
    base, new = (AutoTokenizer.from_pretrained(str(path)) for path in (place / "model", artifact.path))
    assert len(new) == OLD + 40 and new.chat_template == base.chat_template
    assert (new.bos_token_id, new.eos_token_id, new.pad_token_id) == (base.bos_token_id, base.eos_token_id, 3)
    talk = [{"role": "user", "content": "the hill"}]
    assert new.apply_chat_template(talk)["input_ids"] == base.apply_chat_template(talk)["input_ids"]


def test_two_runs_give_the_same_bytes(place: Path):
    one, _ = extend(place, "one")
    two, _ = extend(place, "two")
    assert (one.path / "artifact.json").read_bytes() == (two.path / "artifact.json").read_bytes()


def test_no_guard_and_too_little_text_are_said(place: Path):
    artifact, notes = extend(place, "few", guard=[], size=20_000)
    assert artifact.facts["missing"] > 0 and artifact.facts["held_out_lines_same_ids"] is None
    assert any("no guard text" in note for note in notes) and any("of 20,000 tokens" in note for note in notes)


def test_text_without_frequent_pairs_is_refused(place: Path):
    with pytest.raises(DataError, match="gives no new token") as caught:
        extend(place, "none", min_count=1_000_000)
    assert "min_count" in str(caught.value.hint)
    assert not (place / "none").exists()


def test_a_guard_that_is_the_target_text_is_said_to_be_the_reason(place: Path):
    with pytest.raises(DataError, match="gives no new token") as caught:
        extend(place, "guarded", guard=[place / "hu"], min_count=2)
    assert "is the guard text in the target language?" in str(caught.value.hint)


def test_a_table_smaller_than_the_vocabulary_is_refused(place: Path):
    model = tiny_tokenizer(place / "small", size=360)
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 300}), encoding="utf-8")
    with pytest.raises(DataError, match="ids up to 357, its table 300 rows"):
        extend(place, "small-out", model=model)


def test_a_class_that_replaces_the_pipeline_of_the_file_is_refused(place: Path):
    model = tiny_tokenizer(place / "qwen", size=360, split_digits=False)
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 368}), encoding="utf-8")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "Qwen2Tokenizer"}))
    with pytest.raises(DataError, match="in another way than this file says") as caught:
        extend(place, "qwen-out", model=model)
    assert "save_pretrained" in str(caught.value.hint)


def test_the_price_predicts_the_facts(place: Path):
    verb = verbs.load("extend-vocab")
    config = verb.config(model=str(place / "model"), corpus=str(place / "hu"), guard=(str(place / "en"),), size=40)
    price = verb.estimate(config, resolve_inputs(config))
    artifact, _ = extend(place, "one")
    for key in ("lang", "family", "vocabulary_before", "vocabulary_after", "added", "guard_langs", "unreachable"):
        assert price.facts[key] == artifact.facts[key]
    measured = artifact.facts["tokens_per_word"]["base"]
    assert price.facts["tokens_per_word"]["base"] == pytest.approx(measured, rel=0.3), (
        "a sample of train against a small held-out part"
    )


@pytest.mark.parametrize(
    ("base", "size", "measured"),
    [(4.00, 1000, 2.40), (4.00, 4000, 1.87), (4.23, 4000, 2.20), (5.76, 4000, 1.63), (4.00, 8000, 1.68)],
)
def test_the_rule_is_within_a_fifth_of_what_was_measured(base, size, measured):
    expected = predict.adapted(predict.Rates(base, 2.15), size)
    assert expected.tokens_per_word == pytest.approx(measured, rel=0.2)
    assert expected.bytes_per_token == pytest.approx(2.15 * base / expected.tokens_per_word, rel=1e-3)


# MB of target and guard, tokens afterwards, and what the run then took (MB)
@pytest.mark.parametrize(
    ("target", "guard", "tokens", "measured"),
    [(4.85, 9.43, 53_152, 671), (5.92, 9.43, 53_152, 673), (3.58, 5.62, 53_152, 673), (5.92, 9.43, 4_358, 571),
     (9.43, 5.92, 53_152, 681), (5.92, 9.43, 69_152, 715)],
)  # fmt: skip
def test_the_price_of_memory_is_what_was_measured(target, guard, tokens, measured):
    expected = predict.memory_bytes(round(target * 1e6), round(guard * 1e6), tokens, spaced=True)
    assert expected == pytest.approx(measured * 1e6, rel=0.02)
    assert predict.memory_bytes(32_000_000, 0, tokens, spaced=False) > 840e6, "texts without spaces have no few words"


def test_rates_are_ratios_of_sums(place: Path):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(place / "model" / "tokenizer.json"))
    texts = ["the old house", "river"]
    tokens = sum(len(tokenizer.encode(text).ids) for text in texts)
    assert metrics.tokens_per_word(tokenizer, texts) == tokens / 4
    assert metrics.bytes_per_token(tokenizer, texts) == 18 / tokens
    assert metrics.tokens_per_word(tokenizer, []) is None and metrics.bytes_per_token(tokenizer, []) is None
    assert metrics.same_ids_share(tokenizer, tokenizer, texts) == 1.0
    assert metrics.show_split(tokenizer, "the ő").endswith("·|·")


def test_scripts_without_spaces_have_no_words():
    assert metrics.unspaced_script(["ภาษาไทย is Thai"]) == "Thai or Lao"
    assert metrics.unspaced_script(["ok, 中文"]) is not None
    assert metrics.unspaced_script(["한국어 문장", "magyar szöveg"]) is None
    assert metrics.tokens_per_word(None, ["ภาษาไทย"]) is None


def test_the_byte_alphabet_is_the_one_of_the_library():
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(to_piece(bytes(range(256)))) == set(ByteLevel.alphabet())
    assert to_bytes(to_piece(bytes(range(256)))) == bytes(range(256))
    text = " Ünit\té\n"
    assert ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0] == to_piece(text.encode())
    with pytest.raises(DataError, match="not a byte-level piece"):
        to_bytes("▁a")


@pytest.mark.parametrize("content", ["{}", '{"a": 1}', '{"model": null}', '{"model": {}}'])
def test_a_tokenizer_without_a_model_is_named(tmp_path: Path, content: str):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match="it has no vocabulary"):
        tokenizer_file.read(tmp_path)
