"""The first look at text: size, sample, letters, accents, language; and sentence pairs."""

import gzip
import json
import unicodedata
from pathlib import Path

import pytest

from langadapt.core.errors import DataError
from langadapt.core.progress import Progress
from langadapt.corpus import survey as module
from langadapt.corpus.langid import Judge, Verdict
from langadapt.corpus.parallel import read_pairs
from langadapt.corpus.survey import check_language, has_mark, mark_problem, own_language, survey

LINE = "A téli reggelen a gyerekek az öreg ház mellett mentek az iskolába, és sokáig néztek a folyó felé."


def bare(text: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter))


def look(path: Path, text: str, lang: str = "hu", **more: int) -> module.Survey:
    path.write_text(text, encoding="utf-8")
    return survey(path, lang, Progress(), **more)


def test_everything_is_counted_and_the_sample_is_the_same_in_any_order(tmp_path: Path) -> None:
    lines = [f"{number}. {LINE}" for number in range(4000)]
    found = look(tmp_path / "a.txt", "\n".join(lines))
    assert (found.bytes, found.known, found.documents) == (sum(len(line.encode()) for line in lines), "exact", 4000)
    assert found.letters["é"] == 4000 * LINE.count("é") and "," not in found.letters
    size = sum(len(text.encode()) for text in found.texts)
    assert module.SAMPLE_BYTES <= size < module.SAMPLE_BYTES + 200
    assert found.texts == look(tmp_path / "b.txt", "\n".join(reversed(lines))).texts


def test_one_book_is_not_the_whole_sample(tmp_path: Path) -> None:
    lines = "\n".join(f"{number} {LINE}" for number in range(10_000))
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": lines}), encoding="utf-8")
    found = survey(tmp_path / "a.jsonl", "hu", Progress())
    assert found.documents == 1
    assert len(found.sample) >= 5 and found.bytes == len(lines.encode())


def test_more_text_than_is_read(tmp_path: Path) -> None:
    lines = "\n".join(f"{number:06d} {LINE}" for number in range(5000))
    found = look(tmp_path / "a.txt", lines, max_bytes=100_000)
    assert found.known == "estimated" and abs(found.bytes / len(lines.encode()) - 1) < 0.02
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(lines.encode()))
    packed = survey(tmp_path / "a.txt.gz", "hu", Progress(), max_bytes=100_000)
    assert packed.known == "at least" and packed.bytes < 101_000


def test_empty_text_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no text"):
        look(tmp_path / "a.txt", "\n \n")
    with pytest.raises(DataError, match="does not exist"):
        survey(tmp_path / "none.txt", "hu", Progress())


@pytest.mark.parametrize(("letters", "marked"), [("éőłάй", True), ("eαиก1", False)])
def test_letters_with_marks(letters: str, marked: bool) -> None:
    assert [has_mark(letter) for letter in letters] == [marked] * 5


@pytest.mark.parametrize(
    ("share", "said"), [(0.0, None), (0.03, None), (0.2, "20% of its lines"), (1.0, "no accents at all")]
)
def test_text_that_lost_its_accents(tmp_path: Path, share: float, said: str | None) -> None:
    lines = [bare(LINE) if number < share * 1000 else LINE for number in range(1000)]
    problem = mark_problem(look(tmp_path / "a.txt", "\n".join(lines)), "hu")
    assert (problem is None) if said is None else (problem is not None and said in problem)


def test_chance_leaves_lines_without_accents(tmp_path: Path) -> None:
    """One marked letter in 160: by chance two of three lines have none, as English with a few names."""
    word = "abcdefghij" * 8
    lines = [word[:-1] + "é" if number % 2 == 0 else word for number in range(400)]
    found = look(tmp_path / "a.txt", "\n".join(lines), lang="en")
    assert found.bare_lines == pytest.approx(0.5)
    assert found.chance_lines == pytest.approx((1 - 1 / 80) ** 80, abs=1e-3)
    assert mark_problem(found, "en") is None


class Fake(Judge):
    """Takes a text for the language that its first word names."""

    knows = True

    def judge(self, text: str, limit: int = 400) -> Verdict:
        label = text.split()[0]
        return Verdict(label, 1.0 if label == "hu" else 0.0, 1.0)


def test_text_in_another_language() -> None:
    texts = [f"hu {LINE}"] * 40 + [f"en {LINE}"] * 10
    said = check_language(texts, "hu", Fake(), "a.txt")
    assert said is not None and "20% of its documents" in said and "`en`" in said
    assert check_language(texts[:42], "hu", Fake(), "a.txt") is None
    with pytest.raises(DataError, match=r"30 of 40 documents of `a.txt` are in another language") as caught:
        check_language(texts[30:] + texts[-10:] * 2, "hu", Fake(), "a.txt")
    assert caught.value.hint is not None and "--lang en" in caught.value.hint
    assert check_language(texts[30:] + texts[-10:] * 2, "hu", None, "a.txt") is None, "no detector: only the script"


def test_text_in_another_script() -> None:
    with pytest.raises(DataError, match="not in a script"):
        check_language([LINE] * 5, "el", None, "a.txt")
    with pytest.raises(DataError, match="holds no letters"):
        check_language(["1 2 3"], "el", None, "a.txt")


def pairs(path: Path, text: str, target: str = "el") -> list[tuple[str, str]]:
    path.write_text(text, encoding="utf-8")
    return read_pairs(path, "en", target)


def test_pairs(tmp_path: Path) -> None:
    found = pairs(tmp_path / "a.tsv", "\ufeffthe house\tτο σπίτι\r\n\nwater\tνερό\nempty\t \n")
    assert found == [("the house", "το σπίτι"), ("water", "νερό")]


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ("the house\tτο σπίτι\nthe water\n", "1 column where two are needed", ":2"),
        ("a\tβ\tc\n", "3 columns", ":1"),
        ("\n\n", "holds no pair", None),
        ("το σπίτι\tthe house\n", "first column", None),
        ("the house\tdas Haus\n", "second column", None),
    ],
)
def test_pairs_that_cannot_be_used(tmp_path: Path, text: str, message: str, where: str | None) -> None:
    with pytest.raises(DataError, match=message) as caught:
        pairs(tmp_path / "a.tsv", text)
    assert caught.value.where is None if where is None else str(caught.value.where).endswith(where)
    assert caught.value.hint is not None or where is None


def test_a_pair_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_pairs(tmp_path / "no.tsv", "en", "el")
    (tmp_path / "a.tsv").write_bytes(b"a\tb\n\xff\xfe\tc\n")
    with pytest.raises(DataError, match="UTF-8") as caught:
        read_pairs(tmp_path / "a.tsv", "en", "hu")
    assert str(caught.value.where).endswith("a.tsv:2")


def test_the_sample_is_what_prepare_would_leave(tmp_path: Path) -> None:
    hungarian, english = f"hu {LINE}", f"en {LINE}"
    documents = [hungarian, english, f"{hungarian}\n{english}", "rövid"]
    found = look(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": text}) for text in documents))
    kept = own_language(found, Fake())
    assert sorted(kept.texts) == sorted([hungarian, hungarian, "rövid"])
    size = sum(len(text.encode()) for text in documents)
    assert found.kept_bytes == found.bytes == size
    lost = 2 * len(english.encode()) + 1
    assert kept.bytes == size and kept.kept_bytes == size - lost, "the rest will go"
    assert own_language(found, None) is found


def test_halves_share_no_document(tmp_path: Path) -> None:
    found = look(tmp_path / "a.txt", "\n".join(f"{number} {LINE}" for number in range(99)))
    first, second = found.halves()
    assert first + second == found.sample
    sizes = [sum(len(document.text.encode()) for document in part) for part in (first, second)]
    assert abs(sizes[0] - sizes[1]) < 400
    assert look(tmp_path / "b.txt", LINE).halves()[1] == ()


def test_a_text_that_stands_twice_is_in_the_sample_once(tmp_path: Path) -> None:
    found = look(tmp_path / "a.txt", f"{LINE}\n" * 50 + "egy másik sor")
    assert found.documents == 51 and sorted(found.texts) == sorted([LINE, "egy másik sor"])
