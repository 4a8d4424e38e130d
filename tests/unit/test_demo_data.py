"""The demo's fetcher: text out of markup, man pages and message catalogues; what it does when it cannot go on."""

import io
import struct
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

from demo_data.catalogue import messages  # noqa: E402
from demo_data.download import join  # noqa: E402
from demo_data.extract import Package, _language, _licences, documents  # noqa: E402
from demo_data.markup import paragraphs, roff_paragraphs  # noqa: E402


def test_paragraphs_keep_prose_and_inline_code_only() -> None:
    page = """<?xml version="1.0"?><page><info><desc>hidden</desc></info><title>A  title</title>
    <p>Use <code>ls</code> &amp; <em>go</em>.<!-- no --> &unknown;end</p><screen>$ ls</screen><code>x = 1</code>
    <list><item><p>one</p></item><item><p>two<br/>lines</p></item></list></page>"""
    assert paragraphs(page) == ["A title", "Use ls & go. end", "one", "two lines"]


def test_office_help_without_its_menus() -> None:
    page = '<body><p>menu</p><div id="DisplayArea"><p>text</p></div><div id="SearchFrame"><p>search</p></div></body>'
    assert paragraphs(page) == ["text"]


def test_roff() -> None:
    page = '.\\" comment\n.TH LS 1\n.SH NAME\nls \\- list\n.PP\nThe \\fBls\\fP program\n.B prints\nall\\&.\n'
    page += ".nf\ncode\n.fi\nend\n"
    assert roff_paragraphs(page) == ["ls - list", "The ls program prints all.", "end"]


def catalogue(pairs: list[tuple[str, str]], order: str = "<") -> bytes:
    count = len(pairs)
    start = 28 + 16 * count
    tables, texts = io.BytesIO(), b""
    for column in (0, 1):
        for pair in pairs:
            data = pair[column].encode()
            tables.write(struct.pack(f"{order}II", len(data), start + len(texts)))
            texts += data + b"\0"
    head = struct.pack(f"{order}7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, 0)
    return head + tables.getvalue() + texts


def test_a_model_in_parts_is_joined_in_their_order(tmp_path: Path) -> None:
    parts = [tmp_path / f"m.gguf.part{number:02}" for number in range(3)]
    for number, part in enumerate(parts):
        part.write_bytes(bytes([number]) * 3)
    assert join(parts, tmp_path / "m.gguf").read_bytes() == b"\0\0\0\1\1\1\2\2\2"
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize("order", ["<", ">"])
def test_messages(order: str) -> None:
    data = catalogue([("", "header"), ("ctx\x04_Open\x00plural", "Meg_nyitás\x00b"), ("same", "same")], order)
    assert list(messages(data)) == [("Open", "Megnyitás")]
    assert list(messages(data[:20])) == []
    assert list(messages(b"text" * 20)) == []
    assert len(list(messages(data[:-20]))) <= 1


@pytest.mark.parametrize(
    ("folder", "wanted", "lang"),
    [("C", ("hu", "en"), "en"), ("hu", ("hu", "en"), "hu"), ("hu_HU", ("hu",), "hu"), ("pt_BR", ("pt-br",), "pt-br"),
     ("pt", ("pt-br",), None), ("de", ("hu", "en"), None), ("en_US", ("hu",), None)],
)  # fmt: skip
def test_language_of_a_folder(folder: str, wanted: tuple[str, ...], lang: str | None) -> None:
    assert _language(folder, wanted) == lang


def test_documents_are_cut_capped_and_without_repeats() -> None:
    package = Package("p")
    package.add("en", "a", [f"paragraph number {number} " * 20 for number in range(60)])
    package.add("en", "b", ["paragraph number 0 " * 20, "short"])
    found = list(documents(package, "en", set()))
    assert len(found) > 2
    assert sum(text.count("paragraph number 0 ") for _, text in found) == 20
    capped = list(documents(package, "en", set(), 12_000))
    assert 0 < sum(len(text.encode()) for _, text in capped) <= 12_000


def test_licences() -> None:
    assert _licences("Format: x\nLicense: GPL-2+\nFiles: *\nLicense: MIT\nLicense: GPL-2+\n") == ["GPL-2+", "MIT"]
    assert _licences("This is free software") is None


def run(*words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / "fetch_demo_data.py"), *words]
    environment = {"PATH": path} if path is not None else None
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_without_apt_it_says_what_to_do(tmp_path: Path) -> None:
    done = run(str(tmp_path / "out"), "--target", "hu", "--model", "none", path=str(tmp_path))
    assert done.returncode == 1
    assert "TEXT=my.txt" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_it_does_not_touch_what_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    done = run(str(tmp_path), "--target", "hu")
    assert done.returncode == 1
    assert "not made by this tool" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
