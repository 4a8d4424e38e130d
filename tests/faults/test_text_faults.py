"""Bad text through the prepare step: refused with a way out, or left out and counted; never a crash, never silent."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from langadapt.core import verb
from langadapt.core.artifact import Artifact
from langadapt.core.errors import DataError
from langadapt.core.progress import Note, Progress
from langadapt.core.validate import validate
from langadapt.corpus.store import documents

GOOD = [f"Ez a {number}. jó mondat a szövegben, ékezetekkel." for number in range(300)]


def prepare(folder: Path, data: bytes, name: str = "t.txt", **values: Any) -> tuple[Artifact, list[str]]:
    (folder / name).write_bytes(data)
    step = verb.load("prepare")
    given = {"lang": "hu", "min_lang_probability": 0.0, **values, "text": [str(folder / name)]}
    said: list[str] = []
    progress = Progress(lambda event: said.append(event.text) if isinstance(event, Note) else None)
    return verb.perform(step, validate(step.config, given), folder / "out", progress=progress).artifact, said


def texts(artifact: Artifact) -> set[str]:
    return {document.text for document in documents(artifact.path, "all")}


def dropped(artifact: Artifact) -> list[dict[str, Any]]:
    data = gzip.decompress((artifact.path / "dropped.jsonl.gz").read_bytes())
    return [json.loads(line) for line in data.splitlines()]


# row 27
@pytest.mark.parametrize(
    "bad",
    [
        b"\xff",
        b"\xc0\xaf",  # overlong
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",  # a surrogate in UTF-8
        b"\xf4\x90\x80\x80",  # above U+10FFFF
        b"\xc5",  # cut at the end of the line
        b"\x80",
    ],
)
def test_invalid_utf8_is_left_out_and_counted(tmp_path: Path, bad: bytes) -> None:
    lines = [line.encode() for line in GOOD]
    before = b"\n".join(lines[:150]) + b"\n"
    data = before + b"rossz " + bad + b" sor\n" + b"\n".join(lines[150:]) + b"\n"
    artifact, said = prepare(tmp_path, data)
    assert texts(artifact) == set(GOOD)
    assert artifact.facts["dropped"]["invalid-utf8"]["documents"] == 1
    offset = len(before) + len(b"rossz ")
    assert f"offset {offset:,}" in artifact.facts["first_place"]["invalid-utf8"]
    assert any(f"offset {offset:,}" in sentence and "t.txt:151" in sentence for sentence in said)
    assert [record["where"] for record in dropped(artifact)] == ["t.txt:151"]


def test_invalid_utf8_stops_when_asked(tmp_path: Path) -> None:
    data = "\n".join(GOOD).encode() + b"\n\xff\n"
    with pytest.raises(DataError, match="invalid-utf8") as caught:
        prepare(tmp_path, data, on_bad="stop")
    assert caught.value.where is not None and caught.value.where.startswith("t.txt:301")
    assert not (tmp_path / "out").exists()


def test_character_across_the_read_buffer(tmp_path: Path) -> None:
    # 3-byte letters never line up with buffers of a power of two
    line = "漢" * 100_000
    artifact, _ = prepare(tmp_path, f"{line}\n{line}字\n".encode(), lang="zh")
    assert texts(artifact) == {line, line + "字"}


# row 28
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_utf16_and_utf32_are_refused_with_the_command(tmp_path: Path, encoding: str) -> None:
    data = "\n".join(GOOD).encode(encoding)
    with pytest.raises(DataError, match=encoding[:6].upper()) as caught:
        prepare(tmp_path, data)
    assert caught.value.hint is not None and caught.value.hint.startswith(f"iconv -f {encoding[:6].upper()}")


@pytest.mark.parametrize(
    ("encoding", "lang", "text", "named"),
    [
        ("iso8859-2", "hu", "\n".join(GOOD), "windows-1250"),
        ("cp1253", "el", "Αυτό είναι ένα κείμενο\n" * 50, "windows-1253"),
        ("koi8-r", "ru", "Это предложение на русском языке\n" * 50, "windows-1251"),
        ("cp1252", "fi", "Tämä on lause\n", "windows-1252"),
    ],
)
def test_legacy_encodings_are_refused_with_the_command(
    tmp_path: Path, encoding: str, lang: str, text: str, named: str
) -> None:
    with pytest.raises(DataError, match="cannot be read") as caught:
        prepare(tmp_path, text.encode(encoding), lang=lang)
    assert caught.value.hint is not None and f"iconv -f {named} -t UTF-8" in caught.value.hint


def test_bom(tmp_path: Path) -> None:
    artifact, _ = prepare(tmp_path, b"\xef\xbb\xbf" + "\n".join(GOOD).encode())
    assert texts(artifact) == set(GOOD)


# row 29
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no text"),
        (b"\n \n\t\n\xc2\xad\n", "holds no text"),
        (b"a\nb\nc\n", "`too-short` took most, 3 texts"),
    ],
)
def test_nothing_left(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(tmp_path, data)
    assert not (tmp_path / "out").exists()


# row 30, in a child so that its memory can be measured
_CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.faults.test_text_faults import prepare_file
facts = prepare_file(Path(sys.argv[1]))
# not ru_maxrss: a child inherits that from the process that forked it
peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().split("\\n") if line.startswith("VmHWM"))
print(facts, peak)
"""


def prepare_file(path: Path) -> str:
    step = verb.load("prepare")
    config = validate(step.config, {"lang": "hu", "min_lang_probability": 0.0, "text": [str(path)]})
    facts = verb.perform(step, config, path.parent / "out").artifact.facts
    return json.dumps(facts, separators=(",", ":"))


@pytest.mark.parametrize(("name", "megabytes"), [("t.txt", 24), ("t.jsonl", 200)])
def test_huge_line_in_bounded_memory(tmp_path: Path, name: str, megabytes: int) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        if name.endswith("jsonl"):
            # the 1 % rule needs good lines around one bad one
            file.write(b"".join(json.dumps({"text": line}).encode() + b"\n" for line in GOOD))
        for number in range(megabytes):
            file.write(b"%04d " % number * 200_000)
    code = _CHILD.format(root=str(Path(__file__).parents[2]))
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    facts_text, kilobytes = done.stdout.rsplit(" ", 1)
    facts = json.loads(facts_text)
    if name.endswith("jsonl"):
        assert facts["dropped"]["line-too-long"] == {"documents": 1, "bytes": megabytes * 1_000_000}
    else:
        kept = facts["bytes"] + facts["held_out_bytes"]
        assert facts["changed"] == {"long-line-split": 1}
        assert abs(kept - megabytes * 1_000_000) < 100  # white space at the cuts
    assert int(kilobytes) < 200_000


# rows 31 and 32
@pytest.mark.parametrize(
    ("data", "expected", "changed"),
    [
        (b"els\xc5\x91 hosszabb sor\r\nm\xc3\xa1sodik hosszabb\n", {"első hosszabb sor", "második hosszabb"}, {}),
        (b"first longer\rsecond longer\n", {"first longer\nsecond longer"}, {"lone-cr": 1}),
        ("one\u2028and the rest\n".encode(), {"one\u2028and the rest"}, {}),
        (b"one\x0cand\x0bthe rest\n", {"one and the rest"}, {"vt-or-ff": 2}),
        ("one\u0085and the rest\n".encode(), {"one\u0085and the rest"}, {}),
        (b"null\x00 and bell\x07 here\n", {"null and bell here"}, {"nul": 1, "control-character": 1}),
        ("private \ue000 use, too\n".encode(), {"private \ue000 use, too"}, {}),
        (b"</s> <|endoftext|> __label__en [bold]x[/]\n", {"</s> <|endoftext|> __label__en [bold]x[/]"}, {}),
    ],
)
def test_line_ends_and_control_characters(
    tmp_path: Path, data: bytes, expected: set[str], changed: dict[str, int]
) -> None:
    artifact, _ = prepare(tmp_path, data, min_characters=5, held_out_share=0.0)
    assert texts(artifact) == expected
    assert artifact.facts["changed"] == changed


# row 33
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_composed_and_decomposed_give_one_corpus(tmp_path: Path, form: str) -> None:
    import unicodedata

    scripts = [
        "árvíztűrő tükörfúrógép",
        "می‌خواهم کتاب‌ها را",
        "क्‍ष हिन्दी की लिपि",
        "ภาษาไทยกำลังดี",
        "שלום \u200fעולם טוב",
        "한국어 문장입니다",
    ]
    data = "\n".join(unicodedata.normalize(form, text) for text in scripts).encode()
    artifact, _ = prepare(tmp_path, data, min_characters=1, held_out_share=0.0)
    assert texts(artifact) == {unicodedata.normalize("NFC", text) for text in scripts}


def test_storm_of_combining_marks_ends(tmp_path: Path) -> None:
    artifact, _ = prepare(tmp_path, ("Zalgo " + "a" + "\u0300\u0323" * 50_000 + " end of it\n").encode())
    assert artifact.facts["changed"] == {"mark-storm": 1, "not-nfc": 1}
    assert all(len(text) < 100 for text in texts(artifact))


# row 34
BAD_JSON = {
    "missing-field": b'{"other": "x"}',
    "not-a-string": b'{"text": 7}',
    "not-an-object": b"[1, 2]",
    "too-deep": b'{"text": "x", "m": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "invalid-json": b'{"text": "x"',
    "duplicate-key": b'{"text": "x", "text": "y"}',
    "not-finite-number": b'{"text": "x", "n": NaN}',
    "lone-surrogate": b'{"text": "\\ud800 x"}',
    "invalid-utf8": b'{"text": "\xff"}',
}


def test_bad_json_lines_are_left_out_with_reason_and_line(tmp_path: Path) -> None:
    good = [json.dumps({"text": line, "n": 1}).encode() for line in GOOD]
    data = b"\n".join([*BAD_JSON.values(), *good])
    artifact, _ = prepare(tmp_path, data, name="t.jsonl", max_bad_share=0.05)
    assert texts(artifact) == set(GOOD)
    found = {record["reason"]: record["where"] for record in dropped(artifact)}
    assert found == {reason: f"t.jsonl:{number}" for number, reason in enumerate(BAD_JSON, 1)}


def test_wrong_field_name_says_which_flag(tmp_path: Path) -> None:
    data = b"\n".join(json.dumps({"content": line}).encode() for line in GOOD)
    with pytest.raises(DataError, match="missing-field") as caught:
        prepare(tmp_path, data, name="t.jsonl")
    assert caught.value.hint is not None and "text_field" in caught.value.hint
    artifact, _ = prepare(tmp_path, data, name="t.jsonl", text_field="content")
    assert texts(artifact) == set(GOOD)


# row 35
def test_truncated_gzip(tmp_path: Path) -> None:
    packed = gzip.compress("\n".join(GOOD).encode())
    for cut in (5, len(packed) // 2, len(packed) - 1):
        with pytest.raises(DataError, match=r"gzip|cannot be read"):
            prepare(tmp_path, packed[:cut], name="t.txt.gz")


def test_damaged_gzip(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress("\n".join(GOOD).encode()))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(DataError, match=r"gzip|cannot be read"):
        prepare(tmp_path, bytes(packed), name="t.txt.gz")


def test_bomb_is_stopped(tmp_path: Path) -> None:
    block = gzip.compress(b"a" * 999_999 + b"\n")
    with pytest.raises(DataError, match="unpacks to more than"):
        prepare(tmp_path, block * 150, name="t.txt.gz")


@pytest.mark.parametrize(
    ("magic", "what"),
    [(b"PK\x03\x04", "zip"), (b"%PDF-1.7", "PDF"), (b"\x28\xb5\x2f\xfd", "damaged zstd"), (b"BZh9", "bzip2")],
)
def test_other_containers_are_named(tmp_path: Path, magic: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what):
        prepare(tmp_path, magic + b"\x00\x01\x02" * 50)


# row 36: the codes themselves are in tests/unit/test_corpus_prepare.py
def test_codes_that_other_tools_read_as_nothing(tmp_path: Path) -> None:
    for code in ("no", "nan", "na"):
        folder = tmp_path / code
        folder.mkdir()
        artifact, _ = prepare(folder, "\n".join(GOOD).encode(), lang=code)
        assert json.loads((artifact.path / "artifact.json").read_text())["facts"]["lang"] == code
