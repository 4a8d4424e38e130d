"""Normalising, deduplicating, splitting, storing."""

import gzip
import random
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langadapt.core.errors import DataError
from langadapt.corpus.dedup import content_hash, first_of_each
from langadapt.corpus.normalise import MAX_MARKS, normalise
from langadapt.corpus.numbers import Numbers
from langadapt.corpus.script import can_be
from langadapt.corpus.split import is_held_out
from langadapt.corpus.store import documents, gzip_writer
from langadapt.corpus.tally import Tally


@pytest.mark.parametrize(
    ("given_text", "expected", "counted"),
    [
        ("o\u030b", "ő", {"not-nfc": 1}),
        ("a\u00adb\x00c\x07d", "abcd", {"soft-hyphen": 1, "nul": 1, "control-character": 1}),
        ("a\r\nb\rc", "a\nb\nc", {"lone-cr": 1}),
        ("a\x0cb\x0bc", "a b c", {"vt-or-ff": 2}),
        ("a\tb", "a\tb", {}),
        ("می\u200cخواهم", "می\u200cخواهم", {}),
        ("क\u094d\u200dष", "क\u094d\u200dष", {}),
        ("a\u200f\u202bb\u202c", "a\u200f\u202bb\u202c", {}),
        ("a\u2028b", "a\u2028b", {}),
        ("กำ", "กำ", {}),  # NFKC would split SARA AM
        ("x² ﬁ …", "x² ﬁ …", {}),
        ("\ue000", "\ue000", {}),  # private use
    ],
)
def test_normalise(given_text: str, expected: str, counted: dict[str, int]) -> None:
    tally = Tally()
    assert normalise(given_text, tally, "f:1") == expected
    assert tally.changed == counted


@given(st.text())
def test_normalise_is_idempotent_and_nfc(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)


def test_mark_storm_is_cut_and_quick() -> None:
    began = time.process_time()
    storm = normalise("a" + "\u0315\u0300" * 200_000 + "b")
    assert len(storm) <= MAX_MARKS + 2
    assert storm.endswith("b")
    assert time.process_time() - began < 5
    marks = "e" + "\u0323" * MAX_MARKS + "x"
    assert normalise(marks) == unicodedata.normalize("NFC", marks)


def test_first_by_id_wins_whatever_the_order() -> None:
    texts = ["a b", "a  b", "c", "a\nb", "d", "c"]
    rows = [(content_hash(text), number) for text, number in zip(texts, [5, 3, 9, 4, 1, 2], strict=True)]
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        high, low, ids = Numbers("Q"), Numbers("Q"), Numbers("Q")
        for content, number in rows:
            high.append(content[0])
            low.append(content[1])
            ids.append(number)
        first = first_of_each(high, low, ids)
        kept = zip(ids.part(0, 6).tolist(), ids.take(first).tolist(), strict=True)
        assert dict(kept) == {5: 3, 3: 3, 4: 3, 9: 2, 2: 2, 1: 1}


def test_split_has_the_share_and_never_moves() -> None:
    lows = [content_hash(f"document {number}")[1] for number in range(20_000)]
    held = [is_held_out(low, 0.02) for low in lows]
    assert 300 < sum(held) < 500
    more = [is_held_out(low, 0.05) for low in lows]
    assert all(large for small, large in zip(held, more, strict=True) if small)
    assert not any(is_held_out(low, 0.0) for low in lows)
    assert all(is_held_out(low, 1.0) for low in lows)


def test_plain_file_splits_into_train_and_held_out(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("".join(f"sentence number {number}\n" for number in range(2000)), encoding="utf-8")
    train, held, everything = (list(documents(path, split)) for split in ("train", "held-out", "all"))
    assert len(train) + len(held) == len(everything) == 2000
    assert 10 < len(held) < 80
    assert not {document.id for document in train} & {document.id for document in held}
    assert len({document.id for document in everything}) == 2000
    assert everything[0].source == "t.txt"


def test_gzip_bytes_depend_on_content_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with gzip_writer(tmp_path / name) as file:
            file.write(b"x" * 1000)
    first, second = (tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()
    assert first == second
    assert first[4:8] == b"\0\0\0\0"
    assert gzip.decompress(first) == b"x" * 1000


def test_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        list(documents(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    ("text", "label", "possible"),
    [
        ("ይህ አማርኛ ነው", "ru", False),
        ("ይህ አማርኛ ነው", "am", True),
        ("Это по-русски", "ru", True),
        ("Это по-русски", "en", False),
        ("漢字かな交じり文", "ja", True),
        ("汉字", "zh", True),
        ("plain", "zh", False),
        ("123 456", "ru", True),  # no letters, no judgement
        ("plain", "not a label", True),
    ],
)
def test_script_of_a_rival(text: str, label: str, possible: bool) -> None:
    assert can_be(text, label) is possible
