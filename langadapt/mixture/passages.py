"""Short passages spread over held-out documents: what training is watched with, and what the separator is chosen on."""

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from langadapt.core.types import Document
from langadapt.model.cuts import cut_points

# How many documents are looked at: 4 kB of passages need 256 only if documents have 16 bytes each.
_DOCUMENTS = 256


@dataclass(frozen=True)
class Passage:
    """A whole short document, or one segment of a longer one; `id` is a digest of the document's text and which part.

    The document's own id would do, but it may depend on where the text stood in a file.
    """

    id: str
    text: str


def passages(documents: Iterable[Document], max_bytes: int, segment_bytes: int) -> list[Passage]:
    """Up to `max_bytes` of passages of about `segment_bytes`, one a document as long as there are documents.

    Documents are taken by a hash of their text, so neither their order nor the seed matters. First come the openings
    of all documents, then their second segments, and so on; passages that no longer fit are left out.
    """
    chosen = heapq.nsmallest(_DOCUMENTS, ((_key(item), item.text) for item in documents if item.text.strip()))
    cut = [(key, _segments(text, segment_bytes)) for key, text in chosen]
    found: list[Passage] = []
    room = max_bytes
    for turn in range(max((len(segments) for _, segments in cut), default=0)):
        for name, segments in cut:
            if turn < len(segments) and len(segments[turn]) <= room:
                found.append(Passage(name if len(segments) == 1 else f"{name}#{turn}", segments[turn].decode()))
                room -= len(segments[turn])
        if room < segment_bytes // 4:
            break
    return found


def _key(document: Document) -> str:
    return hashlib.blake2b(document.text.encode(), digest_size=8, person=b"passages").hexdigest()


def _segments(text: str, segment_bytes: int) -> list[bytes]:
    content = text.encode()
    ends = cut_points(text, segment_bytes)
    return [content[first:last] for first, last in zip((0, *ends), ends, strict=False)]
