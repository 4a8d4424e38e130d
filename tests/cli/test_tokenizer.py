"""`tokenizer`: tables, lines and objects of its four actions, and what it refuses."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.fixtures.extended import extended_tokenizer
from tests.fixtures.families import FAMILIES, family_tokenizer


@pytest.fixture()
def here(tmp_path: Path, tiny: Path) -> Path:
    (tmp_path / "base").symlink_to(tiny)
    extended_tokenizer(tiny, tmp_path / "new")
    (tmp_path / "hu.txt").write_text("száz szemét\nmúlt ősz\n", encoding="utf-8")
    return tmp_path


def test_stats(call: Run, here: Path) -> None:
    done = call("tokenizer", "stats", "base", "new", "--text", "hu.txt")
    assert done.code == 0, done.err
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in done.out.splitlines()}
    found = json.loads(call("tokenizer", "stats", "base", "new", "--text", "hu.txt", "--json").out)
    base, new = found["tokenizers"]
    assert rows["tokens"] == [str(base["tokens"]), str(new["tokens"])] and base["tokens"] > new["tokens"]
    assert rows["tokens per word"] == [f"{item['tokens'] / 4:.4f}" for item in (base, new)]
    assert (found["schema"], new["tokenizer"]) == ("langadapt/tokenizer-stats/1", "new")
    piped = call("tokenizer", "stats", "base", "new", "--text", "-", stdin=(here / "hu.txt").read_bytes())
    assert piped.out == done.out, "stdin is a text like any other"


def test_compare(call: Run, here: Path) -> None:
    found = json.loads(call("tokenizer", "compare", "base", "new", "--text", "hu.txt", "--json").out)
    assert found["lines_same_ids"] == found["lines_same_tokens"] == 0.0
    new = {"sz", "sze", "Ġsze", "Ãº", "szesz"}
    text = json.loads(call("tokenizer", "encode", "new", "-", "--json", stdin=(here / "hu.txt").read_bytes()).out)
    assert (found["new_tokens"], found["new_tokens_used"]) == (
        len(new), len(new & {token["piece"] for token in text["tokens"]})
    )  # fmt: skip
    assert 0 < found["new_tokens_used"] < 5
    words = {word["word"]: word for word in found["changed_words"]}
    assert set(words) == {"száz", "múlt", "ősz"} and words["száz"]["tokens"][0] > words["száz"]["tokens"][1]
    assert words["múlt"]["pieces"][0].count("|") > words["múlt"]["pieces"][1].count("|")
    shown = call("tokenizer", "compare", "base", "new", "--text", "hu.txt", "--table").out
    assert "words that changed most" in shown and "lines with the same ids" in shown
    assert "documents with the same tokens" in shown


def test_encode_and_decode(call: Run, here: Path) -> None:
    text = "Jó  [bold]\\ \U0001f642\ttab\nend "
    for name in ("base", "new"):
        done = call("tokenizer", "encode", name, "--", text)
        assert done.code == 0, done.err
        ids = [line.split("\t")[0] for line in done.out.splitlines()]
        assert {len(line.split("\t")) for line in done.out.splitlines()} == {3}
        assert call("tokenizer", "decode", name, *ids).out == text + "\n"
        assert call("tokenizer", "decode", name, "-", stdin=",".join(ids).encode()).out == text + "\n"
    found = json.loads(call("tokenizer", "encode", "base", "-", "--json", stdin=b"az\n").out)
    assert [token["text"] for token in found["tokens"]] == ["a", "z"]


def test_hostile_ids_do_nothing_to_a_terminal(call: Run, here: Path) -> None:
    found = json.loads(call("tokenizer", "encode", "base", "--json", "--", "\x1b[2J\x07\x9b").out)
    ids = [str(token["id"]) for token in found["tokens"]]
    assert call("tokenizer", "decode", "base", *ids, "--table").out == "\\x1b[2J\\x07\\x9b\n"
    shown = call("tokenizer", "encode", "base", "--table", "--", "\x1b[2J\x07\x9b").out
    assert "\x1b" not in shown and "\x9b" not in shown


def test_special_tokens_around_a_text(call: Run, tmp_path: Path) -> None:
    family_tokenizer(tmp_path / "g", "llama")
    plain, special = (
        json.loads(call("tokenizer", "encode", "g", "az", "--json", *more).out)["tokens"]
        for more in ((), ("--special",))
    )
    assert special[0]["piece"] == "<bos>" and special[1:] == plain


@pytest.mark.parametrize(
    ("code", "words", "arguments"),
    [
        (2, "did you mean `langadapt tokenizer stats`", ("stat", "base", "--text", "hu.txt")),
        (2, "needs --text", ("stats", "base")),
        (2, "takes no --text", ("encode", "base", "x", "--text", "hu.txt")),
        (2, "takes two tokenizers", ("compare", "base", "--text", "hu.txt")),
        (2, "one text", ("encode", "base")),
        (2, "takes a tokenizer and ids", ("decode", "base")),
        (2, "`1.5` is not an id", ("decode", "base", "1.5")),
        (2, "is not an id", ("decode", "base", "9" * 5000)),
        (2, "`x` is not an amount", ("stats", "base", "--text", "hu.txt", "--max-bytes", "x")),
        (3, "no token has the id 99999", ("decode", "base", "99999")),
        (3, "`./none` does not exist", ("stats", "./none", "--text", "hu.txt")),
        (3, "`none.txt` does not exist", ("stats", "base", "--text", "none.txt")),
        (3, "there is no text", ("stats", "base", "--text", "empty.txt")),
        (3, "holds no tokenizer", ("encode", "nothing", "x")),
        (3, "broken", ("encode", "broken", "x")),
        (6, "auto_map", ("encode", "evil", "x")),
    ],
)  # fmt: skip
def test_what_is_refused(call: Run, here: Path, code: int, words: str, arguments: tuple[str, ...]) -> None:
    for name in ("nothing", "evil", "broken"):
        (here / name).mkdir()
    (here / "empty.txt").write_text("\n")
    (here / "evil" / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}}')
    (here / "broken" / "tokenizer.json").write_text('{"model": {"type": "Nothing"}}')
    (here / "broken" / "tokenizer_config.json").write_text("{}")
    done = call("tokenizer", *arguments)
    assert (done.code, done.out) == (code, ""), done.err
    assert words in done.err and "internal error" not in done.err


@pytest.mark.parametrize("family", FAMILIES)
def test_odd_texts_in_every_family(call: Run, tmp_path: Path, family: str) -> None:
    """Decomposed letters, a line of 14 kB, nothing at all, bytes that are no text: an answer or a clear error."""
    family_tokenizer(tmp_path / "tok", family)
    lossless = family in ("byte-bpe", "gemma", "llama")
    for text in (
        "ma\u0301s cafe\u0301 o\u0308",
        "árvíztűrő " * 900 + "x",
        "\u200d",
        "\ufeffa",
        "a\x00b",
        "<|endoftext|>",
    ):
        done = call("tokenizer", "encode", "tok", "-", "--json", stdin=text.encode())
        assert done.code == 0, done.err
        ids = [str(token["id"]) for token in json.loads(done.out)["tokens"]]
        assert len(ids) > 900 or len(text) < 100, "a file may ask for texts to be cut off"
        back = call("tokenizer", "decode", "tok", "-", "--json", stdin=" ".join(ids).encode()) if ids else None
        assert back is None or back.code == 0, back.err
        if lossless:
            assert back is not None and json.loads(back.out)["text"].removeprefix("<bos>") == text
    for words in (("",), ("-",)):
        nothing = call("tokenizer", "encode", "tok", *words, "--json", stdin=b"")
        assert nothing.code == 0 and json.loads(nothing.out)["tokens"] == [], nothing.err
        assert call("tokenizer", "encode", "tok", *words, stdin=b"").code == 0
    lone = call("tokenizer", "encode", "tok", "-", stdin=b"ab\xed\xa0\x80c")
    assert (lone.code, lone.out) == (3, "") and "not UTF-8" in lone.err
    empty = call("tokenizer", "stats", "tok", "--text", "-", stdin=b"")
    assert empty.code == 3 and "stdin is empty" in empty.err
    counted = call("tokenizer", "stats", "tok", "--text", "-", "--json", stdin="az old ház\n".encode())
    (figures,) = json.loads(counted.out)["tokenizers"]
    assert figures["bytes"] == 12 - 1 and figures["words"] == 3 and figures["tokens"] > 0
    both = call("tokenizer", "compare", "tok", "tok", "--text", "-", "--json", stdin="az old ház\n".encode())
    assert json.loads(both.out)["lines_same_ids"] == 1.0
