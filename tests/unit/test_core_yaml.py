"""Strict YAML: what is refused, with which line, and that nothing but ConfigError ever comes out."""

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt.core.errors import ConfigError
from langadapt.core.yaml import MAX_BYTES, Loaded, load_bytes, load_file, parse_value

REFUSED = {
    "duplicate key": ("a: 1\nb: 2\na: 3\n", 3, "twice (first in f.yaml:1)"),
    "duplicate in flow": ("a: {x: 1, x: 2}\n", 1, "twice"),
    "python tag": ("a: 1\nb: !!python/object/apply:os.system ['true']\n", 2, "tag"),
    "plain tag": ("a: !!str 1\n", 1, "tag"),
    "own tag": ("a: !x 1\n", 1, "tag"),
    "bare tag": ("a: ! 1\n", 1, "tag"),
    "tagged mapping": ("a: !!set {x}\n", 1, "tag"),
    "tagged list": ("a: !!omap [x: 1]\n", 1, "tag"),
    "tagged key": ("!!str a: 1\n", 1, "tag"),
    "anchor": ("a: 1\nb: &x 1\n", 2, "anchor"),
    "alias": ("a: *x\n", 1, "alias"),
    "alias bomb": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", 1, "anchor"),
    "merge key": ("a:\n  <<: {x: 1}\n", 2, "merge key"),
    "directive": ("%YAML 1.1\n---\na: no\n", 2, "directive"),
    "tag directive": ("%TAG ! tag:x,2020:\n---\na: no\n", 2, "directive"),
    "second document": ("a: 1\n---\nb: 2\n", 2, "second document"),
    "number as key": ("a: 1\n2: b\n", 2, "not text"),
    "null as key": ("null: 1\n", 1, "not text"),
    "bool as key": ("true: 1\n", 1, "not text"),
    "list as key": ("? [a]\n: 1\n", 1, "list or a mapping"),
    "date": ("a: 2020-01-31\n", 1, "date"),
    "time": ("a: 2020-01-31T10:00:00Z\n", 1, "date"),
    "deep": ("a: " + "[" * 60 + "]" * 60 + "\n", 1, "deeper"),
    "very deep": ("a: " + "{a: " * 3000 + "\n", 1, "deeper"),
    "deep blocks": ("".join(" " * i + "a:\n" for i in range(60)), 51, "deeper"),
    "tab": ("a:\n\tb: 1\n", 2, "tab"),
    "tab after spaces": ("a:\n  \tb: 1\n", 2, "tab"),
    "too many values": ("a: [" + "1," * 20_001 + "]\n", 1, "more than 20,000"),
    "huge number": ("a: " + "9" * 5000 + "\n", 1, "64 bits"),
    "a list": ("- a\n- b\n", 1, "key: value"),
    "a word": ("hello\n", 1, "key: value"),
    "unclosed": ("a: [1, 2\nb: 3\n", 2, "not valid YAML"),
    "colon": ("a: b: c\n", 1, "not valid YAML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_line(case: str) -> None:
    text, line, words = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        load_bytes(text.encode(), "f.yaml")
    assert words in caught.value.message
    assert caught.value.where == f"f.yaml:{line}"


def test_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    with path.open("wb") as file:
        file.truncate(50 * 1024 * 1024)
    with pytest.raises(ConfigError, match=f"more than {MAX_BYTES:,} bytes"):
        load_file(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a: 1\nb: \xff\n", "not UTF-8"),
        ("a: 1".encode("utf-16"), "not UTF-8"),
        (b"a: \x00\n", "not allowed"),
        (b"a: \x1b[31m\n", "not allowed"),
    ],
)
def test_bytes_that_are_no_text(data: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_bytes(data, "f.yaml")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path, Path("a\0b")):
        with pytest.raises(ConfigError, match="cannot read"):
            load_file(path)


SCALARS: list[tuple[str, object]] = [
    ("no", "no"), ("on", "on"), ("y", "y"), ("off", "off"), ("nan", "nan"), ("na", "na"), ("zh-Hant", "zh-Hant"),
    ("true", True), ("True", True), ("FALSE", False), ("~", None), ("null", None), ("", None), ("NULL", None),
    ("010", 10), ("0o10", 8), ("0x1F", 31), ("-7", -7), ("+7", 7), ("08", 8), ("0b11", "0b11"), ("1_000", "1_000"),
    ("1:30", "1:30"), ("1:30:15", "1:30:15"), ("1e-5", 1e-5), ("1E5", 1e5), ("1.", 1.0), (".5", 0.5), ("-.5", -0.5),
    ("4k", "4k"), ("1.5B", "1.5B"), ("0x", "0x"), ("0o", "0o"), ("1e", "1e"), ("e5", "e5"), ("-", None), ("=", "="),
    (".inf", math.inf), ("-.inf", -math.inf), ("'5'", "5"), ('"no"', "no"), ("'2020-01-01'", "2020-01-01"),
    ("9223372036854775807", 2**63 - 1), ("1.0.0", "1.0.0"), ("a b", "a b"), ("ő", "ő"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_scalars_of_yaml_1_2(text: str, value: object) -> None:
    if text == "-":  # a list with one empty item
        assert load_bytes(b"a:\n- \n", "f").values == {"a": [None]}
        return
    got = load_bytes(f"a: {text}\n".encode(), "f").values["a"]
    assert got == value
    assert type(got) is type(value)


def test_nan_is_a_number_only_with_a_dot() -> None:
    assert math.isnan(load_bytes(b"a: .nan", "f").values["a"])


def test_language_codes_as_keys_and_values() -> None:
    text = "codes: [no, nan, na, zh-Hant, NO]\nno: {nan: 1, on: 2}\n"
    assert load_bytes(text.encode(), "f").values == {
        "codes": ["no", "nan", "na", "zh-Hant", "NO"],
        "no": {"nan": 1, "on": 2},
    }


def test_every_key_has_its_place() -> None:
    text = "# note\na: 1\nb:\n  c: [x,\n   y]\n  d:\n    - p: 1\n    - q\n"
    places = load_bytes(text.encode(), "r.yaml").places
    assert places == {
        "a": "r.yaml:2", "b": "r.yaml:3", "b.c": "r.yaml:4", "b.c.0": "r.yaml:4", "b.c.1": "r.yaml:5",
        "b.d": "r.yaml:6", "b.d.0": "r.yaml:7", "b.d.0.p": "r.yaml:7", "b.d.1": "r.yaml:8",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff"])
def test_empty_file_is_an_empty_mapping(text: str) -> None:
    assert load_bytes(text.encode(), "f").values == {}


def test_byte_order_mark_and_windows_lines() -> None:
    loaded = load_bytes(b"\xef\xbb\xbfa: 1\r\nb: x\r\n", "f")
    assert loaded.values == {"a": 1, "b": "x"}
    assert loaded.places["b"] == "f:2"


def test_block_text_may_hold_what_looks_special() -> None:
    assert load_bytes(b"a: |\n  *x &y !!z\n  <<: 1\n", "f").values == {"a": "*x &y !!z\n<<: 1\n"}


def test_flow_values() -> None:
    assert parse_value("[no, 1, {a: 0.5}]", "-o") == ["no", 1, {"a": 0.5}]
    assert parse_value("[no, 1, {a: 0.5}]", "-o", as_text=True) == ["no", "1", {"a": "0.5"}]
    with pytest.raises(ConfigError):
        parse_value("[\udc80]", "-o")
    with pytest.raises(ConfigError) as caught:
        parse_value("[1", "-o x=[1")
    assert caught.value.where == "-o x=[1"


PIECES = st.sampled_from(
    ["a", "b: ", ": ", "- ", "\n", "  ", "\t", "[", "]", "{", "}", ",", "&x ", "*x", "!!str ", "!", "!<", "%YAML 1.1\n",
     "---", "...", "|", ">", "'", '"', "\\x", "\\u12", "? ", "<<: ", "0x", "0o9", "1e", "2020-01-01", "#", "=", "~",
     "\ufeff", "\x85", "\u2028", "é", "\U0001f600", "%TAG ! x\n", "9" * 30, ".inf", "@", "`", "|+9\n", ">-0"]
)  # fmt: skip


@settings(max_examples=400, deadline=2000)
@given(st.lists(PIECES, max_size=30).map("".join))
def test_only_config_errors_come_out_of_yaml_like_text(text: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: load_bytes(text.encode(), "f"),
        lambda: parse_value(text, "-o", as_text=True),
    ]
    for call in calls:
        try:
            value = call()
        except ConfigError as error:
            assert error.where is not None
        else:
            _check_plain(value.values if isinstance(value, Loaded) else value)


@settings(max_examples=200, deadline=2000)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_only_config_errors_come_out_of_bytes(data: bytes) -> None:
    with suppress(ConfigError):
        _check_plain(load_bytes(data, "f").values)


def _check_plain(value: object) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            assert type(key) is str
            _check_plain(item)
    elif isinstance(value, list):
        for item in value:
            _check_plain(item)
    else:
        assert value is None or type(value) in (str, int, float, bool)
