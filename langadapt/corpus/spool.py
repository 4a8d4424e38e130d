"""Records of kept and dropped texts on disk, with an index in memory of 37 bytes a text."""

import json
import os
from array import array
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from langadapt.core.io import canonical_json
from langadapt.corpus.read import RawDocument
from langadapt.corpus.store import show_id
from langadapt.corpus.tally import Tally

PREVIEW = 200
KEPT, GONE = 0, 1
_MANY = 1 << 32
# Where every 64th record starts is kept; the others are found by adding lengths, which takes a microsecond.
_STRIDE = 64


def lost_line(name: str, where: str, reason: str, text: str, size: int, **more: object) -> bytes:
    """One line of dropped.jsonl.gz."""
    record = {"bytes": size, "id": name, "reason": reason, "text": text[:PREVIEW], "where": where, **more}
    return (canonical_json(record) + "\n").encode()


@dataclass
class Spool:
    """Records in reading order. `high` and `low` are the content hash, `lengths` the bytes of the record."""

    file: IO[bytes]
    tally: Tally
    ids: "array[int]" = field(default_factory=lambda: array("Q"))
    high: "array[int]" = field(default_factory=lambda: array("Q"))
    low: "array[int]" = field(default_factory=lambda: array("Q"))
    lengths: "array[int]" = field(default_factory=lambda: array("I"))
    sizes: "array[int]" = field(default_factory=lambda: array("I"))
    words: "array[int]" = field(default_factory=lambda: array("I"))
    gone: "array[int]" = field(default_factory=lambda: array("B"))
    origin: "array[int] | None" = None
    """`low` before any text was replaced; None while none was."""
    _end: int = 0
    _landmarks: "array[int]" = field(default_factory=lambda: array("Q"))
    _starts: "array[int] | None" = None
    """Where each record starts, once one was replaced: then they do not follow each other."""

    def add(self, number: int, content: tuple[int, int], record: bytes, size: int, words: int, gone: int) -> None:
        """Append one record."""
        if self.origin is not None:
            self.origin.append(content[1])
        self.ids.append(number)
        self.high.append(content[0])
        self.low.append(content[1])
        if self._starts is not None:
            self._starts.append(self._end)
        elif len(self.lengths) % _STRIDE == 0:
            self._landmarks.append(self._end)
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
            self.origin = array("Q", self.low)
        if self._starts is None:
            self._starts = self._all_starts()
        self.high[place], self.low[place] = content
        self._starts[place], self.lengths[place] = self._end, len(record)
        self.sizes[place], self.words[place] = size, words
        self.file.write(record)
        self._end += len(record)

    def record(self, place: int) -> bytes:
        """One record as it was written; call `settle` after the last `add` or `replace`."""
        if self._starts is not None:
            start = self._starts[place]
        else:
            near = place // _STRIDE
            start = self._landmarks[near] + sum(self.lengths[near * _STRIDE : place])
        return os.pread(self.file.fileno(), self.lengths[place], start)

    def _all_starts(self) -> "array[int]":
        starts = array("Q")
        end = 0
        for length in self.lengths:
            starts.append(end)
            end += length
        return starts

    def settle(self) -> None:
        """Make what was written readable."""
        self.file.flush()

    def text(self, place: int) -> str:
        """Text of a kept record."""
        return str(json.loads(self.record(place))["text"])

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column as an array without a copy; nothing can be added while it is in use."""
        data: array[int] = getattr(self, name)
        kinds = {"Q": np.uint64, "I": np.uint32, "B": np.uint8}
        return np.frombuffer(data, kinds[data.typecode]) if data else np.zeros(0, kinds[data.typecode])
