"""A helper where there is none: vectors of the new tokenizer's tokens, learned from the corpus in a minute or so."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from langadapt.core.errors import DataError
from langadapt.core.progress import Progress
from langadapt.core.rng import stream
from langadapt.embed.kept import keep, kept, place_of
from langadapt.embed.types import Floats, Ints, Role

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WIDTH, WINDOW = 256, 4
# 32 MB are some 8 million tokens: 2 GB of memory at most, and more of it hardly changes the vectors.
MOST_BYTES = 32_000_000
_TEXTS_AT_A_TIME = 256


@dataclass(frozen=True)
class TrainedHelper:
    """Like `Helper`; `row_of` is -1 for tokens that the corpus does not have. Input and head get the same rows."""

    table: Floats = field(repr=False)
    row_of: Ints = field(repr=False)
    learned = True

    @property
    def width(self) -> int:
        """Dimensions of a row."""
        return int(self.table.shape[1])

    def rows(self, ids: Ints, role: Role) -> Floats:
        """Rows of tokens of the new tokenizer in float32 [n, width]; DataError if it lacks one of them."""
        where = self.row_of[np.asarray(ids, dtype=np.int64)]
        if len(where) and where.min() < 0:
            raise DataError(f"the helper lacks {int((where < 0).sum()):,} of {len(where):,} tokens")
        found: Floats = self.table[where]
        return found


def train_helper(
    texts: Iterator[str], tokenizer: "Tokenizer", size: int, digests: Sequence[str], progress: Progress
) -> TrainedHelper:
    """Learn it from the first 32 MB of `texts`, or take it from the cache, where it lies under `digests` of text and
    tokenizer. DataError if the text is too short for a vector."""
    settings = {"width": WIDTH, "window": WINDOW, "bytes": MOST_BYTES, "source": list(digests), "format": 1}
    place = place_of("helpers", settings)
    table = _from_cache(place, size)
    if table is None:
        progress.note("learning a helper from the corpus")
        table = _learn(_tokens(texts, tokenizer), size)
        keep(place, {"table": table})
    known = np.abs(table).sum(axis=1) > 0
    return TrainedHelper(table, np.where(known, np.arange(size), -1).astype(np.int64))


def _learn(texts: Iterator[Sequence[int]], size: int) -> Floats:
    from langadapt.embed.cooccurrence import directions, mutual_information, pair_counts

    keys, counts = pair_counts(texts, size, WINDOW)
    if not len(keys):
        raise DataError("the corpus is too short to learn a helper from", where="corpus")
    return directions(mutual_information(keys, counts, size), WIDTH, stream(0, "helper"))


def _tokens(texts: Iterator[str], tokenizer: "Tokenizer") -> Iterator[Sequence[int]]:
    """Each text as ids, up to the bytes that are looked at."""
    taken = 0
    while taken < MOST_BYTES and (block := list(islice(texts, _TEXTS_AT_A_TIME))):
        taken += sum(len(text.encode()) for text in block)
        for encoding in tokenizer.encode_batch(block, add_special_tokens=False):
            yield encoding.ids


def _from_cache(place: Path, size: int) -> Floats | None:
    """What the cache holds; None for a file that another version left there."""
    table: Floats | None = (kept(place) or {}).get("table")
    fits = table is not None and table.ndim == 2 and len(table) == size and bool(np.isfinite(table).all())
    return table if fits else None
