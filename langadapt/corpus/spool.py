"""Records of kept and dropped texts on disk, with what is known of each; memory holds a byte a text."""

import json
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy.typing as npt

from langadapt.core.io import canonical_json
from langadapt.corpus.numbers import CHUNK, Numbers
from langadapt.corpus.read import RawDocument
from langadapt.corpus.store import show_id
from langadapt.corpus.tally import Tally

PREVIEW = 200
KEPT, GONE = 0, 1
_MANY = 1 << 32
_TEXT = b'"text":"'


def lost_line(name: str, where: str, reason: str, text: str, size: int, **more: object) -> bytes:
    """One line of dropped.jsonl.gz."""
    record = {"bytes": size, "id": name, "reason": reason, "text": text[:PREVIEW], "where": where, **more}
    return (canonical_json(record) + "\n").encode()


def text_of(record: bytes) -> str:
    """Text of a kept record, whose last key it is; without escapes it need not be parsed."""
    # a quotation mark inside a string has a backslash before it
    start = record.index(_TEXT) + len(_TEXT)
    plain = record[start:-3]
    return str(json.loads(record)["text"]) if b"\\" in plain else plain.decode()


@dataclass
class Spool:
    """Records in reading order. `high` and `low` are the content hash, `lengths` the bytes of the record."""

    file: IO[bytes]
    tally: Tally
    folder: Path | None = None
    """Where the numbers go when they are many."""
    gone: "array[int]" = field(default_factory=lambda: array("B"))
    origin: Numbers | None = None
    """`low` before any text was replaced; None while none was."""
    _end: int = 0

    def __post_init__(self) -> None:
        self.ids, self.high, self.low, self._starts = (Numbers("Q", self.folder) for _ in range(4))
        self.lengths, self.sizes, self.words = (Numbers("I", self.folder) for _ in range(3))

    def __len__(self) -> int:
        return len(self.gone)

    def add(self, number: int, content: tuple[int, int], record: bytes, size: int, words: int, gone: int) -> None:
        """Append one record; what is gone already has no content, but is spread over the parts that are sorted."""
        if gone == GONE:
            content = (0, number)
        if self.origin is not None:
            self.origin.append(content[1])
        self.ids.append(number)
        self.high.append(content[0])
        self.low.append(content[1])
        self._starts.append(self._end)
        self.lengths.append(len(record))
        # a line that was not read whole may be longer; only the tally needs to know
        self.sizes.append(min(size, _MANY - 1))
        self.words.append(words)
        self.gone.append(gone)
        self.file.write(record)
        self._end += len(record)

    def lose(self, raw: RawDocument, text: str, reason: str, *, size: int, number: int, whole: bool = True) -> None:
        """Record what will not be in the corpus."""
        where = f"{raw.source}:{raw.line}"
        self.tally.drop(reason, size, where, documents=1 if whole else 0)
        self.add(number, (0, 0), lost_line(show_id(number), where, reason, text, size), size, 0, GONE)

    def replace(self, place: int, content: tuple[int, int], record: bytes, size: int, words: int) -> None:
        """Give a kept text another record; its id stays."""
        if self.origin is None:
            self.origin = self.low.copy()
        self.high.put(place, content[0])
        self.low.put(place, content[1])
        self._starts.put(place, self._end)
        self.lengths.put(place, len(record))
        self.sizes.put(place, size)
        self.words.put(place, words)
        self.file.write(record)
        self._end += len(record)

    def settle(self) -> None:
        """Make what was written readable."""
        self.file.flush()

    def records(self, places: npt.NDArray[Any]) -> Iterator[bytes]:
        """The records at `places`, each as it was last written before the last `settle`."""
        file = self.file.fileno()
        for at in range(0, len(places), CHUNK):
            piece = places[at : at + CHUNK]
            starts, lengths = self._starts.take(piece).tolist(), self.lengths.take(piece).tolist()
            for start, length in zip(starts, lengths, strict=True):
                yield os.pread(file, length, start)
