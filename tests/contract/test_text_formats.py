"""The same texts in every format that `prepare` reads make the same corpus; only the name of their source differs."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import langadapt
from langadapt.core.errors import DataError
from langadapt.corpus.store import documents
from tests.fixtures.tiny import tiny_text

TEXTS = [
    *tiny_text("hu", 30),
    'a text with "quotes", commas; tabs\tand a # sign, which is long enough to stay',
    "two lines of one document\nthe second of them, long enough to stay as well",
]
SINGLE = [text for text in TEXTS if "\n" not in text and "\t" not in text and '"' not in text]


def jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(TEXTS)))


def table(path: Path, delimiter: str) -> None:
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["number", "text"])
        writer.writerows((number, text) for number, text in enumerate(TEXTS))


def parquet(path: Path) -> None:
    pq.write_table(pa.table({"n": range(len(TEXTS)), "text": TEXTS}), path, row_group_size=7, compression="zstd")


def dictionary_parquet(path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array(TEXTS).dictionary_encode()}), path)


def packed(write: Callable[[Path], None], pack: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def both(path: Path) -> None:
        write(path)
        path.write_bytes(pack(path.read_bytes()))

    return both


def dataset(path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(str(path))


def dataset_of_splits(path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    half = len(TEXTS) // 2
    parts = {"train": TEXTS[:half], "validation": TEXTS[half:]}
    datasets.DatasetDict({k: datasets.Dataset.from_dict({"text": v}) for k, v in parts.items()}).save_to_disk(str(path))


def folder(path: Path) -> None:
    (path / "deep" / "er").mkdir(parents=True)
    third = len(TEXTS) // 3
    (path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:third]))
    pq.write_table(pa.table({"text": TEXTS[third : 2 * third]}), path / "deep" / "b.parquet")
    (path / "deep" / "er" / "c.json").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in TEXTS[2 * third :])
    )
    (path / ".hidden.txt").write_text("this is a hidden file and must not be read by anybody")
    (path / "README.rst").write_text("this is not a text file that anybody asked for")


FORMATS: dict[str, Callable[[Path], None]] = {
    "json lines": jsonl,
    "texts.csv": lambda path: table(path, ","),
    "semicolons.csv": lambda path: table(path, ";"),
    "texts.tsv": lambda path: table(path, "\t"),
    "texts.parquet": parquet,
    "dictionary.parquet": dictionary_parquet,
    "texts.jsonl.gz": packed(jsonl, gzip.compress),
    "texts.jsonl.zst": packed(jsonl, zstandard.compress),
    "texts.csv.zst": packed(lambda path: table(path, ","), zstandard.compress),
    "gzip without its suffix.jsonl": packed(jsonl, gzip.compress),
    "saved dataset": dataset,
    "saved dataset of splits": dataset_of_splits,
    "folder": folder,
}


def prepare(out: Path, text: Path, **more: Any) -> Any:
    return langadapt.prepare(out=out, text=[text], lang="hu", min_lang_probability=0.0, held_out_share=0.0, **more)


def texts_of(place: Path) -> list[str]:
    return sorted(each.text for each in documents(place, "all"))


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_texts_make_the_same_corpus(tmp_path: Path, name: str) -> None:
    text = tmp_path / (f"{name}.jsonl" if name == "json lines" else name)
    FORMATS[name](text)
    artifact = prepare(tmp_path / "out", text, boilerplate="keep")
    assert texts_of(artifact.path) == sorted(" ".join(line.split(" ")) for line in TEXTS)
    facts = artifact.facts
    assert (facts["documents"], facts["bytes"]) == (len(TEXTS), sum(len(text.encode()) for text in TEXTS))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_plain_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"lines.txt{suffix}"
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    path.write_bytes(pack("".join(f"{text}\n" for text in SINGLE).encode()))
    artifact = prepare(tmp_path / "out", path, documents="line")
    assert texts_of(artifact.path) == sorted(SINGLE)


def test_packing_changes_no_byte_of_the_corpus(tmp_path: Path) -> None:
    """Not even the ids: packing a file does not make it another source."""
    jsonl(tmp_path / "texts.jsonl")
    packed(jsonl, zstandard.compress)(tmp_path / "texts.jsonl.zst")
    plain, small = (prepare(tmp_path / kind, tmp_path / f"texts.{kind}").path for kind in ("jsonl", "jsonl.zst"))
    assert (plain / "documents.jsonl.gz").read_bytes() == (small / "documents.jsonl.gz").read_bytes()


def test_conllu(tmp_path: Path) -> None:
    (tmp_path / "t.conllu").write_text(
        "# newdoc id = a\n# sent_id = 1\n# text = Az első mondat elég hosszú.\n1\tAz\taz\tDET\t_\t_\t2\tdet\t_\t_\n\n"
        "# text = A második mondat is elég hosszú.\n1\tA\ta\tDET\t_\t_\t2\tdet\t_\t_\n\n"
        "# newdoc id = b\n# text = Egy másik szöveg, szintén elég hosszú.\n1\tEgy\tegy\tDET\t_\t_\t2\tdet\t_\t_\n\n",
        encoding="utf-8",
    )
    found = texts_of(prepare(tmp_path / "out", tmp_path / "t.conllu").path)
    assert len(found) == 2
    assert any("Az első mondat elég hosszú." in text and "A második mondat" in text for text in found)


def test_a_column_of_languages_filters(tmp_path: Path) -> None:
    rows = [{"text": text, "language": "hu" if number % 3 else "en"} for number, text in enumerate(SINGLE)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    artifact = prepare(tmp_path / "out", tmp_path / "t.jsonl", lang_field="language")
    assert artifact.facts["documents"] == sum(row["language"] == "hu" for row in rows)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no-column.csv": (lambda path: path.write_text("id,body\n1,hello\n"), r"`text`.*body"),
    "no-column.parquet": (lambda path: pq.write_table(pa.table({"body": ["a"]}), path), r"no column `text`.*body"),
    "numbers.parquet": (lambda path: pq.write_table(pa.table({"text": [1, 2]}), path), "not text"),
    "cut.parquet": (lambda path: (parquet(path), path.write_bytes(path.read_bytes()[:-40])), "damaged Parquet"),
    "text.parquet": (lambda path: path.write_text("no parquet at all"), "is not Parquet"),
    "cut.jsonl.gz": (lambda path: path.write_bytes(gzip.compress(b"{}\n" * 9000)[:60]), "ends in the middle|damaged"),
    "cut.jsonl.zst": (lambda path: path.write_bytes(zstandard.compress(b'{"a":1}\n' * 90)[:-9]), "middle|damaged"),
    "array.json": (lambda path: path.write_text('[{"text": "a"}, {"text": "b"}]'), "one JSON array"),
    "picture.txt": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500)), "a picture"),
    "program.txt": (lambda path: path.write_bytes(bytes(range(256)) * 40), "binary data"),
    "office.txt": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "zip archive"),
    "twice.txt.gz": (lambda path: path.write_bytes(gzip.compress(gzip.compress(b"text"))), "packed twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_text_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    write, words = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(DataError, match=words) as refused:
        prepare(tmp_path / "out", tmp_path / name)
    assert refused.value.exit_code == 3 and name in str(refused.value)


def test_a_saved_dataset_that_lacks_a_file(tmp_path: Path) -> None:
    dataset(tmp_path / "saved")
    next((tmp_path / "saved").glob("data-*.arrow")).unlink()
    with pytest.raises(DataError, match="lacks its file"):
        prepare(tmp_path / "out", tmp_path / "saved")


@pytest.mark.parametrize("policy", ["skip", "replace", "stop"])
def test_bad_lines(tmp_path: Path, policy: str) -> None:
    """One bad line of 300: left out, mended with U+FFFD, or an end; its place is in the message and the counts."""
    good = [f"line {number} of a text that is long enough" for number in range(300)]
    lines = [line.encode() for line in good]
    lines[7] = b"line 7 with a letter of another encoding: \xe9, which is not UTF-8"
    (tmp_path / "t.txt").write_bytes(b"\n".join(lines) + b"\n")
    more = {"documents": "line", "near_duplicates": "off", "on_bad": policy}
    if policy == "stop":
        with pytest.raises(DataError, match="invalid-utf8") as stopped:
            prepare(tmp_path / "out", tmp_path / "t.txt", **more)
        assert "t.txt:8" in str(stopped.value)
        return
    artifact = prepare(tmp_path / "out", tmp_path / "t.txt", **more)
    assert artifact.facts["documents"] == (299 if policy == "skip" else 300)
    assert any("\ufffd" in text for text in texts_of(artifact.path)) == (policy == "replace")
    (place,) = artifact.facts["first_place"].values()
    assert place.startswith("t.txt:8")


def test_many_bad_lines_stop_even_when_skipped(tmp_path: Path) -> None:
    lines = [b"a line that is long enough and good" if n % 10 else b"a bad line \xff\xfe and more" for n in range(300)]
    (tmp_path / "t.txt").write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(DataError, match="30 of the first 300 lines"):
        prepare(tmp_path / "out", tmp_path / "t.txt", documents="line")
    prepare(tmp_path / "kept", tmp_path / "t.txt", documents="line", max_bad_share=0.2)
