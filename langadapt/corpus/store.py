"""The files of a corpus artifact, and the one way for other steps to read documents, also from plain files."""

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from json.encoder import encode_basestring
from pathlib import Path
from typing import IO, Literal, cast

from langadapt.core.artifact import is_artifact, open_artifact
from langadapt.core.errors import DataError
from langadapt.core.rng import stream_key
from langadapt.core.types import Document
from langadapt.corpus.dedup import content_hash
from langadapt.corpus.files import text_files
from langadapt.corpus.normalise import normalise
from langadapt.corpus.read import FileReader, RawDocument, ReadSettings
from langadapt.corpus.split import is_held_out

Split = Literal["train", "held-out", "all"]
TRAIN = "documents.jsonl.gz"
HELD_OUT = "held-out.jsonl.gz"
DROPPED = "dropped.jsonl.gz"
# What a plain file holds out when it is read without `prepare`; also the default of `prepare`.
HELD_OUT_SHARE = 0.02


@contextmanager
def gzip_writer(path: Path) -> Iterator[IO[bytes]]:
    """A gzip file whose bytes depend on its content only: no time and no name in the header."""
    # level 4 costs less than half of level 6 and is 5 % larger, 9 costs twice as much and is 1 % smaller;
    # a call for each short line costs as much as packing it
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", 4, file, mtime=0) as packed,
        io.BufferedWriter(cast(io.RawIOBase, packed), 1 << 17) as buffered,
    ):
        yield buffered


def document_id(source: str, offset: int, content: tuple[int, int]) -> int:
    """64 bits from where a text stood and what it says: stable, and different for equal names in two folders."""
    return stream_key(0, "document", source, offset, *content) & 0xFFFF_FFFF_FFFF_FFFF


def show_id(number: int) -> str:
    """The id as it stands in files."""
    return f"{number:016x}"


def to_line(name: str, lang: str, source: str, text: str) -> bytes:
    """One line of documents.jsonl.gz: `canonical_json` of the four fields, in half the time."""
    quote = encode_basestring
    return f'{{"id":{quote(name)},"lang":{quote(lang)},"source":{quote(source)},"text":{quote(text)}}}\n'.encode()


def finish(raw: RawDocument, lang: str, text: str) -> tuple[Document, tuple[int, int]]:
    """A document with its id, from a raw one and its normalised text; and its content hash."""
    content = content_hash(text)
    return Document(show_id(document_id(raw.source, raw.offset, content)), text, lang, raw.source), content


def documents(path: Path, split: Split = "train") -> Iterator[Document]:
    """Documents of a corpus artifact (by id, so that any beginning is a fair sample), or of plain text and JSON lines.

    A plain file or folder is read in file order and normalised, nothing is filtered; its held-out part is chosen as
    `prepare` does. DataError for another artifact, and for text that cannot be read.
    """
    if is_artifact(path):
        artifact = open_artifact(path, "corpus")
        if split in ("train", "all"):
            yield from _packed_documents(artifact.file(TRAIN))
        if split in ("held-out", "all"):
            yield from _packed_documents(artifact.file(HELD_OUT))
        return
    if not path.exists():
        raise DataError(f"`{path}` does not exist")
    for file in text_files(path):
        for raw in FileReader(file, ReadSettings()).documents():
            text = normalise(raw.text)
            if not text:
                continue
            document, content = finish(raw, "und", text)
            if split == "all" or is_held_out(content[1], HELD_OUT_SHARE) == (split == "held-out"):
                yield document


def _packed_documents(path: Path) -> Iterator[Document]:
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            for line in file:
                value = json.loads(line)
                yield Document(value["id"], value["text"], value["lang"], value["source"])
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"`{path}` is damaged: {error}", hint="make the corpus again with `langadapt prepare`"
        ) from error


def lang_of(path: Path) -> str | None:
    """The language that a corpus artifact declares; None for plain files."""
    return str(open_artifact(path, "corpus").facts["lang"]) if is_artifact(path) else None
