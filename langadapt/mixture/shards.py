"""Token shards of one source: a ring of `[separator] document [separator] document ...`, and where documents begin.

`tokens-00000.bin`, `tokens-00001.bin`, ... hold little-endian uint16 (uint32 if the vocabulary has more than 65,536
rows); `documents.idx` holds the position of every document's separator as little-endian uint64.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from langadapt.core.errors import DataError
from langadapt.core.rng import stream_key
from langadapt.core.types import Document
from langadapt.mixture.permute import Words, mix64_many

INDEX = "documents.idx"
# 256 Mi tokens are 512 MiB or 1 GiB: small enough to copy and check in pieces, large enough that few are needed.
SHARD_TOKENS = 1 << 28
# What goes to the tokenizer at once: enough to keep its threads busy, little enough to hold in memory.
BATCH_BYTES = 1 << 20
BATCH_DOCUMENTS = 1024

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Tokenise = Callable[[list[str]], Iterable[Sequence[int]]]


def token_type(vocabulary: int) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """How a token is stored when the model has `vocabulary` rows."""
    return np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<u4")


def shard_name(number: int) -> str:
    """File name of shard `number`."""
    return f"tokens-{number:05d}.bin"


@dataclass(frozen=True)
class Selection:
    """Which documents of a corpus are packed and in which order: places in the reading order, and their bytes."""

    order: npt.NDArray[np.int64]
    bytes: int
    bytes_left_out: int
    documents_left_out: int


def select_documents(documents: Iterable[Document], seed: int, max_bytes: int | None = None) -> Selection:
    """Put documents into an order that depends on (seed, their texts) alone, and cut it at `max_bytes`.

    The key is a hash of the text, not of the id or the place in a file, so that shuffled input gives the same
    shards. Equal texts are told apart by counting them, which also spreads them. Uses 24 bytes a document.
    """
    digests, sizes = bytearray(), []
    for document in documents:
        content = document.text.encode()
        digests += hashlib.blake2b(content, digest_size=16).digest()
        sizes.append(len(content))
    pairs = np.frombuffer(bytes(digests), dtype="<u8").reshape(-1, 2).astype(np.uint64)
    lengths = np.array(sizes, dtype=np.int64)
    keys = _document_keys(pairs, seed)
    # empty texts would be a separator with nothing behind it
    order = np.lexsort((pairs[:, 1], pairs[:, 0], keys))
    order = order[lengths[order] > 0]
    total = int(lengths.sum())
    kept = order
    if max_bytes is not None and total > max_bytes:
        fit = int(np.searchsorted(np.cumsum(lengths[order]), max_bytes, side="right"))
        kept = order[: max(fit, 1)]
    used = int(lengths[kept].sum())
    return Selection(kept, used, total - used, len(order) - len(kept))


def _document_keys(pairs: Words, seed: int) -> Words:
    by_text = np.lexsort((pairs[:, 1], pairs[:, 0]))
    ordered = pairs[by_text]
    fresh = np.ones(len(ordered), dtype=bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    places = np.arange(len(ordered))
    firsts = np.maximum.accumulate(np.where(fresh, places, 0)) if len(ordered) else places
    occurrence = np.zeros(len(pairs), dtype=np.uint64)
    occurrence[by_text] = (places - firsts).astype(np.uint64)
    key = stream_key(seed, "documents")
    low, high = np.uint64(key & (1 << 64) - 1), np.uint64(key >> 64)
    return mix64_many(mix64_many(mix64_many(pairs[:, 0] ^ low) ^ pairs[:, 1] ^ high) ^ occurrence)


@dataclass(frozen=True)
class Packed:
    """What `pack` wrote."""

    documents: int
    tokens: int


def pack(
    folder: Path,
    documents: Iterable[Document],
    selection: Selection,
    tokenise: Tokenise,
    *,
    separator: int,
    vocabulary: int,
    shard_tokens: int = SHARD_TOKENS,
) -> Packed:
    """Tokenise the selected documents (read again, in the same order) and write them in the selection's order.

    Memory: one batch of text and 24 bytes a document. DataError if an id is outside the vocabulary.
    """
    folder.mkdir(parents=True)
    spool = folder / "spool.tmp"
    kind = token_type(vocabulary)
    wanted = np.sort(selection.order)
    lengths = np.zeros(len(wanted), dtype=np.int64)
    with spool.open("wb") as file:
        for number, ids in enumerate(_tokenised(_chosen(documents, wanted), tokenise)):
            tokens = np.asarray(ids, dtype=np.int64)
            if tokens.size and (int(tokens.max()) >= vocabulary or int(tokens.min()) < 0):
                raise DataError(
                    f"the tokenizer gave id {int(tokens.max())}, but the model has {vocabulary} rows",
                    hint="give `mix` the model whose tokenizer this is (after `init-embeddings`)",
                )
            file.write(tokens.astype(kind).tobytes())
            lengths[number] = tokens.size
    starts = np.concatenate([[0], np.cumsum(lengths)])
    with spool.open("rb") as source, ShardWriter(folder, separator, kind, shard_tokens) as writer:
        for place in np.searchsorted(wanted, selection.order):
            if lengths[place]:
                source.seek(int(starts[place]) * kind.itemsize)
                writer.add(source.read(int(lengths[place]) * kind.itemsize))
    spool.unlink()
    if not writer.documents:
        raise DataError("this corpus has no text that could be packed")
    return Packed(writer.documents, writer.tokens)


def _chosen(documents: Iterable[Document], wanted: npt.NDArray[np.int64]) -> Iterator[str]:
    position = 0
    for number, document in enumerate(documents):
        if position == len(wanted):
            return
        if number == wanted[position]:
            position += 1
            yield document.text
    if position < len(wanted):
        raise DataError("a corpus changed while it was being read")


def _tokenised(texts: Iterator[str], tokenise: Tokenise) -> Iterator[Sequence[int]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_BYTES or len(batch) == BATCH_DOCUMENTS:
            yield from tokenise(batch)
            batch, size = [], 0
    if batch:
        yield from tokenise(batch)


class ShardWriter:
    """Appends documents, each behind a separator; begins a new file whenever one holds `shard_tokens`."""

    def __init__(
        self, folder: Path, separator: int, kind: np.dtype[np.uint16] | np.dtype[np.uint32], shard_tokens: int
    ) -> None:
        self.documents = 0
        self.tokens = 0
        self._folder = folder
        self._separator = np.array([separator], dtype=kind).tobytes()
        self._width = kind.itemsize
        self._limit = shard_tokens
        self._index = (folder / INDEX).open("wb")
        self._file = (folder / shard_name(0)).open("wb")

    def add(self, ids: bytes) -> None:
        """Append one document; `ids` are tokens as stored."""
        self._index.write(self.tokens.to_bytes(8, "little"))
        self.documents += 1
        data = memoryview(self._separator + ids)
        while data:
            room = self._limit - self.tokens % self._limit
            if self.tokens and room == self._limit:
                self._file.close()
                self._file = (self._folder / shard_name(self.tokens // self._limit)).open("wb")
            part = data[: room * self._width]
            self._file.write(part)
            self.tokens += len(part) // self._width
            data = data[len(part) :]

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._index.close()


class Shards:
    """Reader of one source. DataError when files are missing, too many, or do not fit the index."""

    def __init__(
        self, folder: Path, *, tokens: int, documents: int, vocabulary: int, shard_tokens: int = SHARD_TOKENS
    ) -> None:
        self.folder = folder
        self.tokens = tokens
        self._kind = token_type(vocabulary)
        self._limit = shard_tokens
        expected = {shard_name(number): 0 for number in range(-(-tokens // shard_tokens))}
        for number, name in enumerate(expected):
            expected[name] = min(shard_tokens, tokens - number * shard_tokens) * self._kind.itemsize
        expected[INDEX] = documents * 8
        self._check_files(expected)
        self.starts = np.fromfile(folder / INDEX, dtype="<u8").astype(np.int64)
        if (
            self.starts[0] != 0
            or bool((np.diff(self.starts) <= 0).any())
            or int(self.starts.max()) >= tokens
            or int(self.starts.min()) < 0
        ):
            raise DataError(
                f"`{folder / INDEX}` points outside its {tokens:,} tokens or is not in order", hint=_MADE_AGAIN
            )

    def _check_files(self, expected: dict[str, int]) -> None:
        if not self.folder.is_dir():
            raise DataError(f"folder `{self.folder}` is missing", hint=_MADE_AGAIN)
        found = {path.name: path.stat().st_size for path in self.folder.iterdir()}
        for name, size in expected.items():
            if name not in found:
                raise DataError(f"`{self.folder / name}` is missing", hint=_MADE_AGAIN)
            if found[name] != size:
                raise DataError(
                    f"`{self.folder / name}` has {found[name]:,} bytes, the plan needs {size:,}", hint=_MADE_AGAIN
                )
        extra = sorted(found.keys() - expected.keys())
        if extra:
            raise DataError(f"`{self.folder / extra[0]}` does not belong to this data", hint="move it elsewhere")

    def read(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """`count` tokens from position `first` of the ring.

        Files are opened for each read: 0.1 ms, no limit on open files, and a file that was cut raises an error where
        a memory map would end the process with SIGBUS.
        """
        parts = []
        at = first % self.tokens
        while count:
            shard, inside = divmod(at, self._limit)
            amount = min(count, self._limit - inside, self.tokens - at)
            path = self.folder / shard_name(shard)
            part = np.fromfile(path, dtype=self._kind, count=amount, offset=inside * self._kind.itemsize)
            if len(part) != amount:
                raise DataError(f"`{path}` ends too early", hint=_MADE_AGAIN)
            parts.append(part.astype(np.int64))
            count -= amount
            at = (at + amount) % self.tokens
        return np.concatenate(parts)

    def starts_within(self, first: int, count: int) -> list[int]:
        """Offsets in [0, count) at which a document begins when reading the ring from `first`."""
        found: list[int] = []
        at, passed = first % self.tokens, 0
        while passed < count:
            amount = min(count - passed, self.tokens - at)
            low, high = np.searchsorted(self.starts, [at, at + amount])
            found.extend((self.starts[low:high] - at + passed).tolist())
            passed += amount
            at = 0
        return found


_MADE_AGAIN = "make the data again with `langadapt mix`, or copy it again from where it came"
