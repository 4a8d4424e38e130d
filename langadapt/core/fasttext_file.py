"""Is a fastText model file whole? Its header announces every size, and fastText itself loads a cut file without a word.

Layout of version 12 (fastText `Args`, `Dictionary`, `DenseMatrix`, `QuantMatrix`, `ProductQuantizer`), little-endian.
"""

import mmap
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from langadapt.core.errors import DataError

MAGIC = 793712314
_ARGS_BYTES = 12 * 4 + 8
_CENTROIDS = 256
# A language of the world each, and every word of a large corpus: more is rubbish in the header.
_MOST_WORDS = 100_000_000


def check_whole(path: Path) -> None:
    """DataError unless the sizes that the file announces are exactly its length."""
    if path.stat().st_size < 8:
        raise DataError(f"`{path}` is not a fastText model")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if struct.unpack_from("<i", data, 0)[0] != MAGIC:
            raise DataError(f"`{path}` is not a fastText model")
        try:
            end = _end(data)
        except (struct.error, ValueError, OverflowError) as error:
            raise DataError(
                f"`{path}` is a damaged fastText model: it ends before what its header announces", hint=_AGAIN
            ) from error
        if end != len(data):
            raise DataError(
                f"`{path}` is a damaged fastText model: it has {len(data):,} bytes, its header announces {end:,}",
                hint=_AGAIN,
            )


def pruned_buckets(path: Path) -> npt.NDArray[np.int32] | None:
    """(bucket, row behind the words) of the n-grams that are left in a whole model; None where all are."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        (pruned,) = struct.unpack_from("<q", data, 8 + _ARGS_BYTES + 20)
        if pruned < 0:
            return None
        end = _after_dictionary(data, 8 + _ARGS_BYTES)
        return np.frombuffer(data[end - 8 * pruned : end], np.int32).reshape(-1, 2)


_AGAIN = "copy or download it again"


def _end(data: mmap.mmap) -> int:
    at = _after_dictionary(data, 8 + _ARGS_BYTES)
    (packed_input,) = struct.unpack_from("<?", data, at)
    at = _after_packed(data, at + 1) if packed_input else _after_dense(data, at + 1)
    (packed_output,) = struct.unpack_from("<?", data, at)
    return _after_packed(data, at + 1) if packed_input and packed_output else _after_dense(data, at + 1)


def _after_dictionary(data: mmap.mmap, at: int) -> int:
    size, _, _, _, pruned = struct.unpack_from("<iiiqq", data, at)
    at += 28
    if not 0 <= size <= _MOST_WORDS or pruned > _MOST_WORDS:
        raise ValueError("sizes that no dictionary has")
    for _ in range(size):
        stop = data.find(b"\0", at)
        if stop < 0:
            raise ValueError("a word without an end")
        at = stop + 1 + 8 + 1  # the word, its count, its type
        if at > len(data):
            raise ValueError("cut inside the dictionary")
    end: int = at + 8 * max(0, pruned)
    return end


def _after_dense(data: mmap.mmap, at: int) -> int:
    rows, columns = struct.unpack_from("<qq", data, at)
    end: int = at + 16 + 4 * _positive(rows) * _positive(columns)
    return end


def _after_packed(data: mmap.mmap, at: int) -> int:
    normed, rows, _, codes = struct.unpack_from("<?qqi", data, at)
    at = _after_quantiser(data, at + 21 + _positive(codes))
    return _after_quantiser(data, at + _positive(rows)) if normed else at


def _after_quantiser(data: mmap.mmap, at: int) -> int:
    (width, *_) = struct.unpack_from("<iiii", data, at)
    end: int = at + 16 + 4 * _positive(width) * _CENTROIDS
    return end


def _positive(number: int) -> int:
    if number < 0:
        raise ValueError("a negative size")
    return number
