"""Text becomes windows of tokens for the meter: packed, each behind the token that stands between documents."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from langadapt.select.measure import Window

Encode = Callable[[list[str]], list[list[int]]]

# Documents that are tokenised together.
_TOGETHER = 64


@dataclass(frozen=True)
class Cut:
    """How text is cut: windows of `length` tokens, each beginning with `opener` (None: with text).

    Tokens in `specials` do not count; with `skip_first` neither does the first token of a document, nor the one at the
    beginning of a window (behind the opener). `joined`: the opener stands between documents too. At most `most` tokens
    of text are read.
    """

    length: int
    most: int
    opener: int | None = None
    specials: frozenset[int] = frozenset()
    skip_first: bool = False
    joined: bool = True


@dataclass
class Read:
    """What was read so far: documents, bytes of UTF-8 (of a document that was cut, its share), tokens of text."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0


@dataclass
class _Packed:
    ids: list[int] = field(default_factory=list)
    counts: list[bool] = field(default_factory=list)


def windows(texts: Iterable[str], encode: Encode, cut: Cut, read: Read) -> Iterator[Window]:
    """Windows of the texts in order; `read` is kept up to date. The last window may be shorter."""
    packed, special = _Packed(), np.array(sorted(cut.specials), dtype=np.int64)
    for text, ids in _encoded(texts, encode):
        kept = ids[: cut.most - read.tokens]
        if not kept:
            continue
        counts = ~np.isin(np.array(kept, dtype=np.int64), special)
        counts[:1] &= not cut.skip_first
        if cut.opener is not None and cut.joined:
            packed.ids.append(cut.opener)
            packed.counts.append(False)
        packed.ids += kept
        packed.counts += counts.tolist()
        read.documents += 1
        read.tokens += len(kept)
        read.bytes += round(len(text.encode()) * len(kept) / len(ids))
        while len(packed.ids) >= cut.length:
            yield _window(packed, cut)
        if read.tokens >= cut.most:
            break
    while any(packed.counts):
        yield _window(packed, cut)


def _encoded(texts: Iterable[str], encode: Encode) -> Iterator[tuple[str, Sequence[int]]]:
    group: list[str] = []
    for text in texts:
        group.append(text)
        if len(group) == _TOGETHER:
            yield from zip(group, encode(group), strict=True)
            group = []
    yield from zip(group, encode(group) if group else [], strict=True)


def _window(packed: _Packed, cut: Cut) -> Window:
    if cut.opener is not None and packed.ids[0] != cut.opener:
        packed.ids.insert(0, cut.opener)
        packed.counts.insert(0, False)
    ids = np.array(packed.ids[: cut.length], dtype=np.int32)
    counts: np.ndarray[Any, np.dtype[np.bool_]] = np.array(packed.counts[: cut.length], dtype=bool)
    if cut.skip_first:
        counts[: 1 if cut.opener is None else 2] = False
    del packed.ids[: cut.length], packed.counts[: cut.length]
    return Window(ids, counts)
