"""Modes of WordPiece and Unigram tokenizers from text to a folder that transformers loads and init-embeddings reads."""

import json
from functools import partial
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import langadapt
from langadapt.core.artifact import Artifact
from langadapt.core.errors import DataError
from langadapt.core.io import read_json_lines
from langadapt.core.progress import Note
from langadapt.model.matching import match
from langadapt.model.token_table import TokenTable
from langadapt.steps.extend_vocab import table
from langadapt.vocab.tokenizer_file import read
from tests.contract.test_vocab_modes import GERMAN, GREEK, RUSSIAN
from tests.contract.test_vocab_surgery import ENGLISH, HUNGARIAN
from tests.fixtures.growing import prepared_lines
from tests.fixtures.pieces import unigram_tokenizer, wordpiece_tokenizer

TEXT = (ENGLISH + GERMAN + RUSSIAN).splitlines()
FOLDERS = {
    "wordpiece": partial(wordpiece_tokenizer, size=330),
    "xlmr": partial(unigram_tokenizer, size=260),
    "t5": partial(unigram_tokenizer, style="t5", size=260),
}
each_family = pytest.mark.parametrize("family", FOLDERS)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("set-steps")
    for lang, text in (("hu", HUNGARIAN), ("en", ENGLISH), ("el", GREEK)):
        prepared_lines(place, lang, text)
    for name, make in FOLDERS.items():
        make(place / name, TEXT)
    return place


def extend(place: Path, family: str, name: str, **more):
    notes: list[str] = []
    artifact = langadapt.extend_vocab(
        out=place / f"{family}-{name}",
        **{"model": place / family, "corpus": place / "hu", "guard": [place / "en"], "size": 20, **more},
        listener=lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    return artifact, notes


@each_family
def test_unused_pieces_are_replaced_and_init_embeddings_knows_which(place: Path, family: str) -> None:
    artifact, notes = extend(place, family, "same", mode="same-size")
    facts = artifact.facts
    assert facts["added"] == facts["given_up"] == 20 and facts["vocabulary_before"] == facts["vocabulary_after"]
    assert facts["guarded_types_changed"] == facts["unreachable"] == 0
    assert sum(facts["given_up_by_script"].values()) == 20 and facts["held_out_lines_same_ids"] == 1.0
    assert any("20 old tokens are given up (" in note for note in notes)
    for same, advised in ((1.0, False), (0.99, True)):
        shown = table(
            Artifact(artifact.path, {**artifact.manifest, "facts": {**facts, "held_out_lines_same_ids": same}})
        )
        assert any("more guard text" in note for note in shown.notes) == advised
    before, after = (AutoTokenizer.from_pretrained(str(path)) for path in (place / family, artifact.path))
    assert len(before) == len(after)
    for line in ENGLISH.splitlines()[:3]:
        assert before(line)["input_ids"] == after(line)["input_ids"]
    header, *lines = read_json_lines(artifact.file("vocab_map.jsonl"))
    assert header["mode"] == "same-size"
    for line in lines:
        assert before.convert_ids_to_tokens(line["id"]) == line["old_piece"]
        assert after.convert_ids_to_tokens(line["id"]) == line["piece"] and line["old_splits"]
    base, new = TokenTable.from_folder(place / family), TokenTable.from_folder(artifact.path)
    found = match(base, new, base_rows=base.size)
    assert {token.id for token in found.new_tokens} == {line["id"] for line in lines} and found.new_rows == base.size
    if family == "xlmr":
        again, _ = extend(place, family, "again", mode="same-size")
        assert (again.path / "artifact.json").read_bytes() == (artifact.path / "artifact.json").read_bytes()


def test_reserved_rows_of_a_t5_are_taken_and_its_sentinels_if_they_are_named(place: Path) -> None:
    size = len(read(place / "t5").pieces)
    (place / "t5" / "config.json").write_text(json.dumps({"model_type": "t5", "vocab_size": size + 4}))
    artifact, _ = extend(place, "t5", "spare", mode="reserved", size=10)
    assert artifact.facts["added"] == 4 and artifact.facts["given_up"] == 0
    artifact, _ = extend(place, "t5", "sentinels", mode="reserved", size=6, reserved_pattern=r"<extra_id_\d+>")
    assert artifact.facts["added"] == 6 and artifact.facts["given_up"] == 2
    before, after = (AutoTokenizer.from_pretrained(str(path)) for path in (place / "t5", artifact.path))
    assert len(after) == len(before) + 4 == size + 4
    gone = {"<extra_id_4>", "<extra_id_3>"}
    assert set(before.all_special_tokens) - set(after.all_special_tokens) == gone
    for piece in ("<extra_id_0>", "<extra_id_2>"):
        assert after.convert_tokens_to_ids(piece) == before.convert_tokens_to_ids(piece)
    assert before("the <extra_id_1> hill")["input_ids"] == after("the <extra_id_1> hill")["input_ids"]


@each_family
def test_a_script_of_its_own_several_languages_and_no_guard(place: Path, family: str) -> None:
    artifact, _ = extend(place, family, "script", corpus=place / "el", guard_rule="script")
    assert artifact.facts["guard_scripts"] == ["GREEK"] and artifact.facts["added"] == 20
    artifact, notes = extend(place, family, "also", also=[place / "el"], guard=[], size=40)
    assert set(artifact.facts["languages"]) == {"hu", "el"} and artifact.facts["held_out_lines_same_ids"] is None
    new = [line["piece"] for line in list(read_json_lines(artifact.file("vocab_map.jsonl")))[1:]]
    greek = sum(any("α" <= letter <= "ω" for letter in piece) for piece in new)
    assert len(new) == 40 and 5 < greek < 35
    assert any("no guard text" in note for note in notes)


def test_an_automatic_size_is_refused_with_what_to_do(place: Path) -> None:
    with pytest.raises(DataError, match="in BPE tokenizers only, and this is wordpiece") as caught:
        extend(place, "wordpiece", "auto", size="auto")
    assert "--size 4k" in str(caught.value.hint)
