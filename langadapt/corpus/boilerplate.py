"""Lines that stand in many documents (menus, licences, banners): kept once, taken out of all other documents.

A line of more than 20 characters in more than max(3, 1 % of the documents with several lines) is boilerplate. Equal
documents count once, and a document of one line is never touched: those are duplicates, which is another rule.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from langadapt.core.io import canonical_json
from langadapt.core.progress import Progress
from langadapt.corpus.dedup import PART, content_hash, each, places_of
from langadapt.corpus.filters import Filter
from langadapt.corpus.spool import GONE, PREVIEW, Spool, lost_line, text_of
from langadapt.corpus.store import show_id

LEAST_CHARACTERS = 20
LEAST_DOCUMENTS = 3
SHARE = 0.01
# Distinct lines that are counted at once: 101 MB.
MAX_COUNTED = 1 << 20

Places = npt.NDArray[Any]


def line_key(line: str) -> int | None:
    """64 bits of a line with white space collapsed; None when it is too short to be boilerplate."""
    # printable text has no white space but blanks
    plain = line.strip(" ") if line.isprintable() and "  " not in line else " ".join(line.split())
    if len(plain) <= LEAST_CHARACTERS:
        return None
    return int.from_bytes(hashlib.blake2b(plain.encode(), digest_size=8).digest(), "big")


@dataclass
class LineCounts:
    """In how many documents each line is, in bounded memory: what is rare is forgotten when there are too many lines
    (Misra and Gries 1982), and then no count is more than `error` too small."""

    limit: int = MAX_COUNTED
    counts: dict[int, int] = field(default_factory=dict)
    documents: int = 0
    error: int = 0

    def add(self, keys: set[int]) -> None:
        """Count one document with these lines."""
        self.documents += 1
        for key in keys:
            self.counts[key] = self.counts.get(key, 0) + 1
        if len(self.counts) > self.limit:
            less = sorted(self.counts.values())[len(self.counts) // 2]
            self.counts = {key: count - less for key, count in self.counts.items() if count > less}
            self.error += less

    @staticmethod
    def memory_bytes(lines: int) -> int:
        """What so many different lines take: 48 bytes a key, a table of 20 bytes a slot that is at most two thirds full
        and doubles, and the counts that are sorted when there are too many."""
        kept = min(lines, MAX_COUNTED)
        slots = 1 << math.ceil(math.log2(1.5 * kept)) if kept else 0
        return 48 * kept + 20 * slots + (8 * kept if lines > MAX_COUNTED else 0)

    @property
    def threshold(self) -> int:
        """A line in more documents than this is boilerplate; `error` is smaller in any corpus worth the name."""
        return max(LEAST_DOCUMENTS, int(SHARE * self.documents), self.error)

    def candidates(self) -> set[int]:
        """All lines that may be boilerplate."""
        least = self.threshold - self.error
        return {key for key, count in self.counts.items() if count > least}


@dataclass
class Boilerplate:
    """What was found: for each boilerplate line the documents it was in, an example, and bytes removed."""

    documents: dict[int, int] = field(default_factory=dict)
    text: dict[int, str] = field(default_factory=dict)
    removed: dict[int, int] = field(default_factory=dict)

    def samples(self, most: int = 5) -> list[str]:
        """The commonest lines, with the number of documents each was in."""
        found = sorted(self.text, key=lambda key: (-self.documents[key], key))[:most]
        return [f"{self.documents[key]:,} x {self.text[key]}" for key in found]


def strip(spool: Spool, places: Places, filters: Sequence[Filter], progress: Progress) -> Boilerplate:
    """Take boilerplate out of the documents at `places` of the spool, which are all different; record what went."""
    counts = LineCounts()
    several = np.zeros(len(spool), bool)
    texts = zip(each(places), map(text_of, spool.records(places)), strict=True)
    for place, text in progress.track(texts, "counting lines", total=len(places), unit="documents", every=100):
        if "\n" in text:
            several[place] = True
            counts.add(_keys(text))
    wanted = counts.candidates()
    found = Boilerplate({key: counts.counts[key] for key in wanted})
    if wanted and counts.error:
        found.documents = dict.fromkeys(wanted, 0)
        again = places_of(several)
        records = spool.records(again)
        for record in progress.track(records, "counting repeated lines", total=len(again), unit="documents", every=100):
            for key in _keys(text_of(record)) & wanted:
                found.documents[key] += 1
        found.documents = {key: count for key, count in found.documents.items() if count > counts.threshold}
    del counts, wanted
    if found.documents:
        _remove(spool, several, found, filters, progress)
        _record(spool, found)
    return found


def _keys(text: str) -> set[int]:
    return {key for line in text.split("\n") if (key := line_key(line)) is not None}


def _remove(spool: Spool, several: Places, found: Boilerplate, filters: Sequence[Filter], progress: Progress) -> None:
    """In the order of ids, so that the same document keeps a line whatever the order of the files."""
    seen: set[int] = set()
    total = int(several.sum())
    for place, record in progress.track(
        _by_id(spool, several), "removing repeated lines", total=total, unit="documents"
    ):
        lines = text_of(record).split("\n")
        keys = list(map(line_key, lines))
        here = found.documents.keys() & keys
        if not here:
            continue
        value = json.loads(record)
        rest = []
        for line, key in zip(lines, keys, strict=True):
            if key in here:
                if key in seen:
                    found.removed[key] = found.removed.get(key, 0) + len(line.encode()) + 1
                    continue
                found.text.setdefault(key, " ".join(line.split())[:PREVIEW])
            rest.append(line)
        seen |= here
        before = len(value["text"].encode())
        text = "\n".join(rest).strip("\n")
        size = len(text.encode())
        if size == before:
            continue
        spool.tally.drop("boilerplate", before - size, value["source"], documents=0)
        reason = "boilerplate" if not text else next((why for check in filters if (why := check(text))), None)
        if reason is None:
            line_bytes = (canonical_json(value | {"text": text}) + "\n").encode()
            spool.replace(place, content_hash(text), line_bytes, size, len(text.split()))
        else:
            spool.tally.drop(reason, size, value["source"])
            spool.gone[place] = GONE
            lost = lost_line(value["id"], value["source"], reason, text, size)
            spool.replace(place, (0, int(value["id"], 16)), lost, size, 0)


def _by_id(spool: Spool, wanted: Places) -> Iterator[tuple[int, bytes]]:
    for part, ids in spool.ids.split(PART):
        here = wanted[part]
        places = part[here][np.lexsort((part[here], ids[here]))]
        yield from zip(each(places), spool.records(places), strict=True)


def _record(spool: Spool, found: Boilerplate) -> None:
    """One line of dropped.jsonl.gz for each boilerplate line, however often it was removed."""
    for key in sorted(found.removed):
        line = lost_line(
            show_id(key), "", "boilerplate", found.text[key], found.removed[key], documents=found.documents[key]
        )
        spool.add(key, (0, 0), line, found.removed[key], 0, GONE)
