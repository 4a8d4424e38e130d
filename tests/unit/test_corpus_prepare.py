"""The prepare step: what is in the artifact, and that file order, packing and repetition do not matter."""

import gzip
import json
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langadapt.core import verb
from langadapt.core.artifact import Artifact, open_artifact
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import resolve_inputs
from langadapt.core.io import canonical_json
from langadapt.core.progress import Note, Progress
from langadapt.core.units import show_bytes
from langadapt.core.validate import validate
from langadapt.corpus import lid_model
from langadapt.corpus.langid import Judge, Verdict, accepted_labels, windows
from langadapt.corpus.numbers import Numbers
from langadapt.corpus.spool import KEPT, Spool, text_of
from langadapt.corpus.store import documents, lang_of, to_line
from langadapt.corpus.tally import Tally

WORDS = ["alma", "fa", "ház", "kutya", "macska", "szék", "asztal", "ablak", "ajtó", "könyv", "levél", "virág"]


def sentences(count: int, seed: int = 0) -> list[str]:
    chosen = random.Random(seed)
    return [f"{number} " + " ".join(chosen.choices(WORDS, k=12)) for number in range(count)]


def prepare(out: Path, *text: Path, **values: Any) -> tuple[Artifact, list[str]]:
    said: list[str] = []
    step = verb.load("prepare")
    given = {"lang": "qaa", "min_lang_probability": 0.0, **values, "text": [str(path) for path in text]}
    progress = Progress(lambda event: said.append(event.text) if isinstance(event, Note) else None)
    return verb.perform(step, validate(step.config, given), out, progress=progress).artifact, said


def lines_of(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress((artifact.path / name).read_bytes()).splitlines()]


def test_counts_balance(tmp_path: Path) -> None:
    texts = sentences(500)
    (tmp_path / "t.txt").write_text("\n".join([*texts, texts[0], "rövid"]), encoding="utf-8")
    artifact, said = prepare(tmp_path / "out", tmp_path / "t.txt", held_out_share=0.1)
    facts = artifact.facts
    train, held = list(documents(artifact.path, "train")), list(documents(artifact.path, "held-out"))
    assert sorted(document.text for document in train + held) == sorted(texts)
    assert (len(train), len(held)) == (facts["documents"], facts["held_out_documents"])
    assert sum(len(document.text.encode()) for document in train) == facts["bytes"]
    assert sum(len(document.text.encode()) for document in held) == facts["held_out_bytes"]
    assert sum(len(document.text.split()) for document in train) == facts["words"]
    assert facts["dropped"] == {
        "duplicate": {"documents": 1, "bytes": len(texts[0].encode())},
        "too-short": {"documents": 1, "bytes": 6},
    }
    assert {line["reason"] for line in lines_of(artifact, "dropped.jsonl.gz")} == {"duplicate", "too-short"}
    assert facts["first_place"] == {"duplicate": "t.txt", "too-short": "t.txt:502"}
    size = facts["bytes"] + facts["held_out_bytes"]
    assert f"kept 500 documents with {show_bytes(size)}; dropped: duplicate" in said[-1] and "too-short 6 B" in said[-1]
    shown = {row[0]: row[1:] for row in verb.load("prepare").table(artifact).rows}
    assert list(shown)[:3] == ["kept: train", "kept: held out", "dropped: duplicate"]
    assert shown["kept: train"][0] == f"{len(train)}" and shown["dropped: too-short"][:2] == ("1", "6 B")
    assert sum(float(cells[2].rstrip("%")) for cells in shown.values()) == pytest.approx(100, abs=0.2)
    assert lang_of(artifact.path) == "qaa"
    assert any("every line is a document" in sentence for sentence in said)
    assert any("are held out" in sentence for sentence in said)
    assert [document.id for document in train] == sorted(document.id for document in train)


def test_same_documents_whatever_the_order_of_files_and_packing(tmp_path: Path) -> None:
    texts = sentences(300)
    (tmp_path / "a.txt").write_text("\n".join(texts[:200]), encoding="utf-8")
    (tmp_path / "b.txt").write_text("\n".join(texts[150:]), encoding="utf-8")
    packed = tmp_path / "packed"
    packed.mkdir()
    for name in ("a.txt", "b.txt"):
        (packed / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    runs = [
        prepare(tmp_path / "one", tmp_path / "a.txt", tmp_path / "b.txt")[0],
        prepare(tmp_path / "two", tmp_path / "b.txt", tmp_path / "a.txt")[0],
        prepare(tmp_path / "three", packed)[0],
    ]
    for run in runs[1:]:
        assert run.manifest["files"] == runs[0].manifest["files"]
        assert run.facts == runs[0].facts


def test_repeating_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(sentences(100)), encoding="utf-8")
    first, _ = prepare(tmp_path / "one", tmp_path / "t.txt")
    second, _ = prepare(tmp_path / "two", tmp_path / "t.txt")
    assert (first.path / "artifact.json").read_bytes() == (second.path / "artifact.json").read_bytes()


def test_cap_takes_the_same_texts_beside_others(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(sentences(400)), encoding="utf-8")
    small, _ = prepare(tmp_path / "small", tmp_path / "t.txt", max_bytes=5000)
    large, _ = prepare(tmp_path / "large", tmp_path / "t.txt", max_bytes=10_000)
    few = {document.text for document in documents(small.path, "all")}
    many = {document.text for document in documents(large.path, "all")}
    assert few < many
    assert 4800 < small.facts["bytes"] + small.facts["held_out_bytes"] <= 5000
    assert small.facts["dropped"]["over-max-bytes"]["documents"] == 400 - len(few)


def test_evaluation_only_corpus(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(sentences(50)), encoding="utf-8")
    artifact, _ = prepare(tmp_path / "out", tmp_path / "t.txt", held_out_share=1.0)
    assert artifact.facts["documents"] == 0
    assert artifact.facts["held_out_documents"] == 50
    assert list(documents(artifact.path, "train")) == []


def test_estimate_is_close(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(sentences(5000)), encoding="utf-8")
    step = verb.load("prepare")
    config = validate(step.config, {"text": [str(tmp_path / "t.txt")], "lang": "qaa", "min_lang_probability": 0.0})
    predicted = step.estimate(config, resolve_inputs(config)).facts
    facts = prepare(tmp_path / "out", tmp_path / "t.txt")[0].facts
    for key in ("bytes", "documents", "words"):
        assert predicted[key] == pytest.approx(facts[key], rel=0.03)


def test_a_corpus_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(sentences(50)), encoding="utf-8")
    artifact, _ = prepare(tmp_path / "out", tmp_path / "t.txt")
    with pytest.raises(DataError, match="artifact already"):
        prepare(tmp_path / "again", artifact.path)


def test_damaged_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(sentences(50)), encoding="utf-8")
    artifact, _ = prepare(tmp_path / "out", tmp_path / "t.txt")
    path = artifact.path / "documents.jsonl.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"damaged|SHA-256"):
        list(documents(artifact.path))
        open_artifact(artifact.path).verify()


@pytest.mark.parametrize(
    ("code", "stored"), [("no", "no"), ("nan", "nan"), ("na", "na"), ("HUN", "hu"), ("zh-Hant", "zh-Hant")]
)
def test_language_codes_stay_text(tmp_path: Path, code: str, stored: str) -> None:
    (tmp_path / "t.txt").write_text("\n".join(sentences(60)), encoding="utf-8")
    artifact, _ = prepare(tmp_path / "out", tmp_path / "t.txt", lang=code)
    assert open_artifact(artifact.path).facts["lang"] == stored
    assert {document.lang for document in documents(artifact.path, "all")} == {stored}


@pytest.mark.parametrize("code", ["null", "xx", "hungarian", ""])
def test_unknown_codes_are_refused(tmp_path: Path, code: str) -> None:
    (tmp_path / "t.txt").write_text("a\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a language code"):
        prepare(tmp_path / "out", tmp_path / "t.txt", lang=code)


class FakeDetector(Judge):
    """Says `en` for lines with ENGLISH in them, else `hu`; counts as a detector for the declared language."""

    def __init__(self, path: Path, lang: str, also: Sequence[str] = ()) -> None:
        self.name, self.digest = "fake", "0" * 64
        self._accepted = accepted_labels(lang, also)
        self.knows = lang in ("hu", "en")

    def judge(self, text: str, limit: int = 400) -> Verdict:
        label = "en" if text.count("ENGLISH") * 30 > len(text[:limit]) else "hu"
        return Verdict(label, 0.99 if label in self._accepted else 0.005, 0.99)


@pytest.fixture
def fake_detector(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("langadapt.corpus.detector.Detector", FakeDetector)
    monkeypatch.setattr("langadapt.corpus.detector.find_model", lambda given: tmp_path)


ENGLISH = "ENGLISH this is ENGLISH and nothing ENGLISH but ENGLISH it goes ENGLISH on"


@pytest.mark.usefixtures("fake_detector")
def test_foreign_lines_and_documents_go(tmp_path: Path) -> None:
    good = [f"{line}\n{line} még egyszer" for line in sentences(40)]
    mixed = f"{sentences(1, 7)[0]}\n{ENGLISH}\n{sentences(1, 8)[0]}"
    (tmp_path / "t.txt").write_text("\n\n".join([*good, mixed, ENGLISH, "ENGLISH ok, 20 letters"]), encoding="utf-8")
    artifact, said = prepare(tmp_path / "out", tmp_path / "t.txt", lang="hu", min_lang_probability=0.5)
    texts = [document.text for document in documents(artifact.path, "all")]
    assert mixed.replace(ENGLISH + "\n", "") in texts
    assert ENGLISH not in "\n".join(texts)
    assert "ENGLISH ok, 20 letters" in texts  # too short to be judged
    assert artifact.facts["dropped"]["other-language"] == {"documents": 1, "bytes": len(ENGLISH)}
    assert artifact.facts["dropped"]["foreign-lines"] == {"documents": 0, "bytes": len(ENGLISH) + 1}
    assert set(artifact.facts["detected"]) == {"hu", "en"}
    assert not any("does not look like" in sentence for sentence in said)


@pytest.mark.usefixtures("fake_detector")
def test_unknown_to_the_detector_keeps_everything(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join([*sentences(40), ENGLISH]), encoding="utf-8")
    artifact, said = prepare(tmp_path / "out", tmp_path / "t.txt", lang="vep", min_lang_probability=0.5)
    assert artifact.facts["documents"] + artifact.facts["held_out_documents"] == 41
    assert artifact.facts["detector"] is None
    assert any("does not know `vep`" in sentence for sentence in said)


def test_no_detector_keeps_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langadapt.corpus.detector.find_model", lambda given: None)
    (tmp_path / "t.txt").write_text("\n".join(sentences(40)), encoding="utf-8")
    artifact, said = prepare(tmp_path / "out", tmp_path / "t.txt", lang="hu", min_lang_probability=0.5)
    assert artifact.facts["documents"] + artifact.facts["held_out_documents"] == 40
    assert any("--lid-model" in sentence for sentence in said)


@pytest.mark.usefixtures("fake_detector")
def test_almost_no_text_in_the_language_stops(tmp_path: Path) -> None:
    """Fault row 38: a file in another language is not made into a corpus; it can be asked for."""
    english = [f"{ENGLISH} {number}" for number in range(60)]
    (tmp_path / "t.txt").write_text("\n".join([*sentences(3), *english]), encoding="utf-8")
    with pytest.raises(DataError, match=r"only .* of the text is in `hu`.*looks like en") as refused:
        prepare(tmp_path / "out", tmp_path / "t.txt", lang="hu", min_lang_probability=0.5)
    assert refused.value.exit_code == 3 and not (tmp_path / "out").exists()
    prepare(tmp_path / "out", tmp_path / "t.txt", lang="hu", min_lang_probability=0.5, min_lang_share=0.0)


@pytest.mark.usefixtures("fake_detector")
def test_accepted_siblings_stay(tmp_path: Path) -> None:
    english = [f"{ENGLISH} {number}" for number in range(60)]
    (tmp_path / "t.txt").write_text("\n".join([*sentences(3), *english]), encoding="utf-8")
    artifact, _ = prepare(
        tmp_path / "out", tmp_path / "t.txt", lang="hu", min_lang_probability=0.5, accept_langs=["en"],
        near_duplicates="off",
    )  # fmt: skip
    assert artifact.facts["documents"] + artifact.facts["held_out_documents"] == 63


@pytest.mark.usefixtures("fake_detector")
def test_mostly_another_language_warns(tmp_path: Path) -> None:
    english = [f"{ENGLISH} {number}" for number in range(60)]
    (tmp_path / "t.txt").write_text("\n".join([*sentences(20), *english]), encoding="utf-8")
    _, said = prepare(tmp_path / "out", tmp_path / "t.txt", lang="hu", min_lang_probability=0.5)
    assert any("does not look like `hu`; it looks like en" in sentence for sentence in said)


@pytest.mark.usefixtures("fake_detector")
def test_what_the_detector_cannot_tell_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeDetector, "judge", lambda self, text, limit=400: Verdict("pl", 0.1, 0.4))
    (tmp_path / "t.txt").write_text("\n".join(sentences(40)), encoding="utf-8")
    artifact, said = prepare(tmp_path / "out", tmp_path / "t.txt", lang="hu", min_lang_probability=0.5)
    assert artifact.facts["documents"] + artifact.facts["held_out_documents"] == 40
    assert artifact.facts["detected"] == {"unsure": 1.0}
    assert any("unsure about 100%" in sentence for sentence in said)


def test_siblings_are_one_set() -> None:
    assert accepted_labels("nb") == accepted_labels("no") == {"no", "nb", "nn"}
    assert {"sh", "sr", "hr", "bs"} <= accepted_labels("hr")
    assert accepted_labels("hu") == {"hu"}


def test_windows_cover_both_ends() -> None:
    text = "".join(chr(0x4E00 + number) for number in range(5000))
    found = windows(text)
    assert len(found) == 5
    assert found[0] == text[:400]
    assert found[-1] == text[-400:]


@pytest.mark.parametrize("size", [0, 3, 10, 100])
def test_damaged_detector_is_refused_before_it_is_loaded(tmp_path: Path, size: int) -> None:
    path = tmp_path / "other.ftz"
    path.write_bytes((b"\xba\x16\x4f\x2f\x0c\x00\x00\x00" + b"\x07" * 200)[:size])
    with pytest.raises(DataError):
        lid_model.try_in_child(path, seconds=5)
    known = tmp_path / lid_model.KNOWN_NAME
    known.write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="damaged"):
        lid_model.checked_digest(known)


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("given", "named", "cache/lid.176.ftz", "package/resources/lid.176.ftz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr(lid_model, "_package_folder", lambda: tmp_path / "package" / "resources")
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path / "none"))
    monkeypatch.delenv("LANGADAPT_LID_MODEL", raising=False)
    assert lid_model.find_model(None) == tmp_path / "package" / "resources" / "lid.176.ftz"
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path / "cache"))
    assert lid_model.find_model(None) == tmp_path / "cache" / "lid.176.ftz"
    monkeypatch.setenv("LANGADAPT_LID_MODEL", str(tmp_path / "named"))
    assert lid_model.find_model(None) == tmp_path / "named"
    assert lid_model.find_model(tmp_path / "given") == tmp_path / "given"


def test_records_are_found_also_after_some_were_replaced(tmp_path: Path) -> None:
    with (tmp_path / "spool").open("w+b") as file:
        spool = Spool(file, Tally(), tmp_path)
        records = [b"%d" % number * (number % 7 + 1) for number in range(300)]
        for number, record in enumerate(records):
            spool.add(number, (0, number), record, len(record), 1, KEPT)
        spool.settle()
        assert list(spool.records(np.arange(300))) == records
        for place in (0, 63, 64, 299):
            records[place] = b"another %d" % place
            spool.replace(place, (1, 1), records[place], 9, 2)
        records.append(b"the last")
        spool.add(300, (0, 300), records[-1], 8, 1, KEPT)
        spool.settle()
        order = np.random.default_rng(1).permutation(301)
        assert list(spool.records(order)) == [records[place] for place in order.tolist()]
        assert spool.origin is not None and spool.origin.part(0, 301).tolist() == list(range(301))
        assert spool.low.take(np.array([300, 64, 2])).tolist() == [300, 1, 2]


@pytest.mark.parametrize(
    "text", ["plain", 'a "quoted" one', "two\nlines", 'ends in "text":"', "back\\slash", "ő\u2028"]
)
def test_the_text_of_a_record_is_read_without_parsing_it(text: str) -> None:
    line = to_line("id", "hu", 'a"text":"b.txt', text)
    fields = {"id": "id", "lang": "hu", "source": 'a"text":"b.txt', "text": text}
    assert line == (canonical_json(fields) + "\n").encode() and text_of(line) == text


def test_numbers_are_the_same_on_disk_and_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langadapt.corpus.numbers.CHUNK", 8)
    moments = np.random.default_rng(2)
    values = moments.integers(0, 2**64, 61, dtype=np.uint64)
    numbers = Numbers("Q", tmp_path)
    for value in values.tolist():
        numbers.append(value)
    for place in (0, 7, 8, 40, 60):
        values[place] = place
        numbers.put(place, place)
    assert len(numbers) == 61 and numbers.part(5, 61).tolist() == values[5:].tolist()
    assert [number for _, part in numbers.chunks() for number in part.tolist()] == values.tolist()
    order = moments.permutation(61).astype(np.uint32)
    assert numbers.take(order).tolist() == values[order].tolist()
    assert numbers.take(order[:0]).tolist() == [] and numbers.copy().part(0, 61).tolist() == values.tolist()
    parts = list(numbers.split(10))
    assert len(parts) == 8 and sorted(place for places, _ in parts for place in places.tolist()) == list(range(61))
    for places, found in parts:
        assert found.tolist() == values[places].tolist()
    ends = [(int(found.min()), int(found.max())) for _, found in parts if len(found)]
    assert all(one[1] < other[0] for one, other in pairwise(ends))
    assert not list(tmp_path.iterdir())  # the file has no name


@pytest.mark.parametrize("more", [{}, {"near_duplicates": "mark"}, {"max_bytes": 30_000}, {"near_duplicates": "off"}])
def test_many_documents_are_written_in_parts_and_by_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    """In parts of 64 places the same as at once: what keeps memory small may not change a byte."""
    pages = [f"{line}\nThis banner stands on every single page\n{line} b" for line in sentences(120, seed=2)]
    near = [f"{line} {line}" for line in sentences(90, seed=3)]
    near += [f"{line} kutya" for line in near[:40]]
    lines = [*sentences(700), *sentences(80, seed=1), *pages, *near, "rövid"] * 2
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    one, _ = prepare(tmp_path / "one", tmp_path / "t.jsonl", held_out_share=0.1, **more)
    for module in ("dedup", "arrange", "clusters", "boilerplate"):
        monkeypatch.setattr(f"langadapt.corpus.{module}.PART", 64)
    for module in ("numbers", "spool", "arrange", "clusters"):
        monkeypatch.setattr(f"langadapt.corpus.{module}.CHUNK", 50)
    two, _ = prepare(tmp_path / "two", tmp_path / "t.jsonl", held_out_share=0.1, **more)
    assert two.manifest["files"] == one.manifest["files"] and two.facts == one.facts
    ids = [line["id"] for line in lines_of(two, "documents.jsonl.gz")]
    assert ids == sorted(ids) and len(ids) > 64
    assert {"boilerplate", "duplicate", "too-short"} <= set(one.facts["dropped"])
