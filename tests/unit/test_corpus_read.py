"""Reading: lines, documents, encodings, JSON; against byte tables and a slow oracle."""

import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langadapt.core.errors import DataError
from langadapt.corpus.files import text_files
from langadapt.corpus.json_text import text_of
from langadapt.corpus.lines import lines
from langadapt.corpus.read import FileReader, ReadSettings


def stream(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(data))


def read(path: Path, data: bytes, **settings: object) -> list[str]:
    path.write_bytes(data)
    return [raw.text for raw in FileReader(path, ReadSettings(**settings)).documents()]


@given(st.binary(max_size=300), st.integers(min_value=8, max_value=40))
def test_lines_lose_nothing_and_stay_under_the_limit(data: bytes, limit: int) -> None:
    found = list(lines(stream(data), limit))
    assert all(len(line.data) <= limit for line in found)
    # oracle: joining parts, and LF between lines, gives the bytes back but for CR before LF and the last line end
    text = b""
    for index, line in enumerate(found):
        text += (b"" if line.part or index == 0 else b"\n") + line.data
    expected = data.replace(b"\r\n", b"\n")
    assert text.replace(b"\r\n", b"\n") == (expected.removesuffix(b"\n") if expected.endswith(b"\n") else expected)


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=60), max_size=8))
def test_line_documents_round_trip(texts: list[str]) -> None:
    texts = [text for text in texts if text.strip()]
    data = "".join(text + "\n" for text in texts).encode()
    assert [line.data.decode() for line in lines(stream(data))] == texts


def test_long_line_is_cut_at_spaces_and_between_characters() -> None:
    words = ("szó " * 1000).encode()
    assert b"".join(line.data for line in lines(stream(words), 64)) == words
    assert all(line.data.endswith(b" ") for line in lines(stream(words), 64))
    letters = "ő漢𐍈" * 500
    parts = [line.data.decode() for line in lines(stream(letters.encode()), 64)]
    assert "".join(parts) == letters


def test_offsets_point_at_the_line() -> None:
    data = b"abc\r\nde\n\nfgh"
    assert [data[line.offset :][: len(line.data)] for line in lines(stream(data))] == [b"abc", b"de", b"", b"fgh"]
    assert [line.number for line in lines(stream(data))] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("data", "rule", "texts"),
    [
        (b"one\ntwo\n", "line", ["one", "two"]),
        (b"one\ntwo\n\nthree\n", "blank-line", ["one\ntwo", "three"]),
        (b"one\r\ntwo\r\n \t\r\nthree", "blank-line", ["one\ntwo", "three"]),
        (b"\n\none\ntwo\n\n\n", "line", ["one", "two"]),  # blank lines only around the text separate nothing
        ("a\u2028b\nc\u0085d\x0be\n".encode(), "line", ["a\u2028b", "c\u0085d\x0be"]),
    ],
)
def test_auto_rule(tmp_path: Path, data: bytes, rule: str, texts: list[str]) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(data)
    reader = FileReader(path, ReadSettings())
    assert [raw.text for raw in reader.documents()] == texts
    assert reader.rule == rule


def test_one_document_a_file(tmp_path: Path) -> None:
    assert read(tmp_path / "t.txt", b"a\n\nb\n", documents="file") == ["a\n\nb"]


def test_gzip_by_content_not_by_name(tmp_path: Path) -> None:
    packed = gzip.compress("egy\nkettő\n".encode())
    assert read(tmp_path / "t.txt", packed) == ["egy", "kettő"]
    assert read(tmp_path / "t.txt.gz", b"plain\n") == ["plain"]


def test_bom_is_stripped_once(tmp_path: Path) -> None:
    assert read(tmp_path / "t.txt", b"\xef\xbb\xbfegy\nk\n") == ["egy", "k"]
    assert read(tmp_path / "t.txt", b"\xef\xbb\xbf\xef\xbb\xbfegy\n") == ["\ufeffegy"]


def test_folder_takes_text_files_only(tmp_path: Path) -> None:
    for name in ("b.txt", "a.jsonl.gz", "x.png", ".hidden.txt", "sub/c.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [file.name for file in text_files(tmp_path)] == ["a.jsonl.gz", "b.txt", "c.md"]
    with pytest.raises(DataError, match="no text files"):
        text_files(tmp_path / "sub" / ".." / "empty") if (tmp_path / "empty").mkdir() is None else None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a"}', ""),
        ('{"text": "a", "n": 1e400}', ""),
        ('{"other": "a"}', "missing-field"),
        ('{"text": 3}', "not-a-string"),
        ('{"text": null}', "not-a-string"),
        ('["text"]', "not-an-object"),
        ('{"text": "a", "text": "b"}', "duplicate-key"),
        ('{"text": "a", "meta": {"x": 1, "x": 2}}', "duplicate-key"),
        ('{"text": "a", "n": NaN}', "not-finite-number"),
        ('{"text": "a", "n": -Infinity}', "not-finite-number"),
        ('{"text": "\\ud800"}', "lone-surrogate"),
        ('{"text": "\\ud83d\\ude00"}', ""),
        ('{"text": "a"', "invalid-json"),
        ('{"text": "a"} x', "invalid-json"),
        ('{"text": "a", "m": ' + "[" * 10_000 + "]" * 10_000 + "}", "too-deep"),
        ('{"text": "' + "[" * 10_000 + '"}', ""),
        ('{"text": "a", "n": ' + "9" * 100_000 + "}", "invalid-json"),
    ],
)
def test_json_reasons(line: str, reason: str) -> None:
    assert text_of(line, "text")[1] == reason
