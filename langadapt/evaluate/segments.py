"""Which parts of held-out text are scored: few bytes, spread over as many documents as possible, chosen by hash."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from langadapt.core.errors import DataError
from langadapt.core.types import Document
from langadapt.model.cuts import cut_points
from langadapt.model.score import ScoredText

# Fifty segments fix the width of a 95 % interval to about 10 %; below eight there is none worth showing.
WANTED_SEGMENTS = 50
MIN_SEGMENTS = 8


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes [start, end) of one document."""

    document: str
    index: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ScoringSet:
    """What one set is scored on: whole texts by document id, and the parts that count.

    `available_bytes` and `available_documents` say how much held-out text there was to choose from.
    """

    segments: tuple[Segment, ...]
    texts: dict[str, str]
    available_bytes: int
    available_documents: int

    @property
    def bytes(self) -> int:
        """Bytes in all segments."""
        return sum(segment.end - segment.start for segment in self.segments)

    @property
    def documents(self) -> int:
        """Documents that at least one segment comes from."""
        return len({segment.document for segment in self.segments})

    def scored_texts(self, context_bytes: int) -> list[ScoredText]:
        """One `ScoredText` for each run of neighbouring segments, in the order of `segments`."""
        runs: list[list[Segment]] = []
        for segment in self.segments:
            last = runs[-1][-1] if runs else None
            if last is not None and (last.document, last.end) == (segment.document, segment.start):
                runs[-1].append(segment)
            else:
                runs.append([segment])
        return [
            ScoredText(
                run[0].document,
                self.texts[run[0].document],
                context_bytes,
                tuple(segment.end for segment in run),
                run[0].start,
            )
            for run in runs
        ]


def choose_segments(
    documents: Iterable[Document],
    *,
    set_bytes: int,
    segment_bytes: int,
    seed: int,
    name: str,
    wanted: int = WANTED_SEGMENTS,
) -> ScoringSet:
    """Take one segment a document, then a second of each, until `set_bytes` and `wanted` segments are reached.

    Which documents come first, and which of their segments, is decided by a hash of (seed, set name, document id,
    segment), so adding a document moves few of the others. Less text than that is used whole. DataError if there
    is none.
    """
    texts: dict[str, str] = {}
    for document in documents:
        if document.text.strip():
            texts.setdefault(document.id, document.text)
    if not texts:
        raise DataError(f"set `{name}` has no held-out text")
    queue: list[tuple[int, str, Segment]] = []
    for identity, text in texts.items():
        ends = cut_points(text, segment_bytes)
        parts = [Segment(identity, at, 0 if at == 0 else ends[at - 1], end) for at, end in enumerate(ends)]
        ranked = sorted(parts, key=lambda part: _rank(seed, name, part.document, str(part.index)))
        queue += [(turn, _rank(seed, name, identity), part) for turn, part in enumerate(ranked)]
    chosen: list[Segment] = []
    total = 0
    for _, _, segment in sorted(queue, key=lambda entry: entry[:2]):
        if total >= set_bytes and len(chosen) >= wanted:
            break
        chosen.append(segment)
        total += segment.end - segment.start
    used = {segment.document: texts[segment.document] for segment in chosen}
    available = sum(len(text.encode()) for text in texts.values())
    return ScoringSet(tuple(sorted(chosen, key=lambda part: (part.document, part.index))), used, available, len(texts))


def _rank(*parts: int | str) -> str:
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()
