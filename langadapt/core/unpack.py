"""A file's plain bytes: gzip and Zstandard are unpacked, by content; bombs, cuts and foreign data end here."""

import codecs
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, cast

from langadapt.core.errors import DataError

# Text compresses 3 to 10 times, the most repetitive logs about 100 times; gzip cannot exceed 1032, zstd is far above.
MAX_RATIO = 200
RATIO_COUNTS_FROM = 64 * 1024 * 1024
MAX_UNPACKED_BYTES = 256 * 1024**3

Packing = Literal["gzip", "zstd"]
_COMMANDS: dict[Packing, str] = {"gzip": "gzip -dk", "zstd": "zstd -d"}
PARQUET = b"PAR1"
ARROW_FILE = b"ARROW1"
_FOREIGN = (
    (b"\xfd7zXZ", "xz data", "xz -dk {0}"),
    (b"BZh", "bzip2 data", "bzip2 -dk {0}"),
    (b"PK\x03\x04", "a zip archive", "unzip {0}; or if it is a .docx, .xlsx or .odt document, save it as text or CSV"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "7z x {0}"),
    (b"%PDF", "a PDF", "pdftotext {0}"),
    (PARQUET, "a Parquet file inside other packing", "unpack it; a Parquet file is compressed inside"),
    (ARROW_FILE, "an Arrow file", "give it the name `.arrow`"),
    (b"\xd0\xcf\x11\xe0", "an old Office document", "save it as text or CSV"),
    (b"SQLite format 3", "an SQLite database", "sqlite3 -csv -header {0} 'SELECT text FROM ...' > texts.csv"),
    (b"\x89PNG", "a picture", None),
    (b"\xff\xd8\xff", "a picture", None),
    (b"GIF8", "a picture", None),
    (b"\x7fELF", "a program", None),
    (b"GGUF", "a GGUF model", "a model is given with `--model` or as the first argument of `extend-vocab`"),
    (b"\x93NUMPY", "a NumPy array", None),
    (b"\x89HDF", "an HDF5 file", "write the texts to JSON lines first"),
    (b"Obj\x01", "an Avro file", "write the texts to JSON lines first"),
)
_UTF8_BOM = b"\xef\xbb\xbf"
_BOMS = (
    (b"\xff\xfe\x00\x00", "UTF-32LE"),
    (b"\x00\x00\xfe\xff", "UTF-32BE"),
    (b"\xff\xfe", "UTF-16LE"),
    (b"\xfe\xff", "UTF-16BE"),
)
# C0 controls but TAB, LF, VT, FF, CR and ESC: the ones that no text file has
_CONTROLS = bytes(code for code in range(32) if code not in (9, 10, 11, 12, 13, 27))


def packing(head: bytes) -> Packing | None:
    """How data that begins with `head` (4 bytes or more) is packed."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    skippable = head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5
    return "zstd" if head[:4] == b"\x28\xb5\x2f\xfd" or skippable else None


class _Unpacked(io.RawIOBase):
    """Decompressed bytes of a file; stops with DataError at a bomb, a cut or damaged data."""

    def __init__(self, path: Path, kind: Packing, packed: BinaryIO) -> None:
        self._path, self._kind, self._packed, self._done = path, kind, packed, 0
        self._read = _reader(kind, packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._read(len(buffer))
        except EOFError as error:
            raise self._cut() from error
        except (gzip.BadGzipFile, zlib.error, OSError) as error:
            if "runcated" in str(error):
                raise self._cut() from error
            raise DataError(
                f"`{self._path}` is damaged {self._kind} data: {error}", hint="copy or download it again"
            ) from error
        self._done += len(data)
        suspicious = self._done > RATIO_COUNTS_FROM and self._done > MAX_RATIO * max(1, self._packed.tell())
        if suspicious or self._done > MAX_UNPACKED_BYTES:
            raise DataError(
                f"`{self._path}` unpacks to more than {MAX_RATIO} times its size; this is not text",
                hint=f"if it is, unpack it yourself: {_COMMANDS[self._kind]} '{self._path}'",
            )
        buffer[: len(data)] = data
        return len(data)

    def _cut(self) -> DataError:
        return DataError(
            f"`{self._path}` ends in the middle of its {self._kind} data, after {self._done:,} bytes of text",
            hint="copy or download it again",
        )


def _reader(kind: Packing, packed: BinaryIO) -> Callable[[int], bytes]:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=packed, mode="rb").read
    import pyarrow as pa

    # not the zstandard package: its stream reader takes a cut file for a whole one
    return cast(Callable[[int], bytes], pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd").read)


@contextmanager
def open_file(path: Path) -> Iterator[io.BufferedReader]:
    """The file as it is. DataError if it cannot be opened."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read `{path}`: {error.strerror}") from error
    with file:
        yield file


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """The plain bytes of a text file, unpacked if need be, BOM skipped.

    DataError for other packings, for UTF-16 and UTF-32 and for data that is not text, with the command that helps.
    """
    with open_file(path) as file:
        kind = packing(file.peek(4)[:4])
        unpacked = None if kind is None else _Unpacked(path, kind, file)
        stream = file if unpacked is None else cast(io.BufferedReader, io.BufferedReader(unpacked, 256 * 1024))
        head = stream.peek(4096)[:4096]
        _refuse_foreign(path, head)
        if head.startswith(_UTF8_BOM):
            stream.read(len(_UTF8_BOM))
        yield stream


def _refuse_foreign(path: Path, head: bytes) -> None:
    inner = packing(head)
    if inner is not None:
        raise DataError(f"`{path}` is packed twice", hint=f"unpack it once: {_COMMANDS[inner]} '{path}'")
    for magic, what, hint in _FOREIGN:
        if head.startswith(magic):
            raise DataError(f"`{path}` is {what}, not text", hint=hint and hint.format(f"'{path}'"))
    if head[257:262] == b"ustar":
        raise DataError(f"`{path}` is a tar archive, not text", hint=f"tar xf '{path}', then give the folder")
    encoding = next((name for bom, name in _BOMS if head.startswith(bom)), None) or _without_bom(head)
    if encoding is not None:
        raise DataError(
            f"`{path}` is {encoding.removesuffix('LE').removesuffix('BE')} text; langadapt reads UTF-8",
            hint=f"iconv -f {encoding} -t UTF-8 '{path}' > '{path.stem}.utf8{path.suffix}'",
        )
    if _is_binary(head):
        raise DataError(
            f"`{path}` is binary data, not text",
            hint=f"file '{path}' may say what it is; langadapt reads UTF-8 text, JSON lines, CSV and Parquet",
        )


def _without_bom(head: bytes) -> str | None:
    """UTF-16 or UTF-32 by where its zero bytes lie; text in UTF-8 has practically none."""
    if head.count(0) < 8:
        return None
    zeros = [head[lane::4].count(0) / len(head[lane::4]) for lane in range(4)]
    # ASCII letters, spaces and line ends leave zeros in a fixed lane, also in scripts far from Latin
    if min(zeros[1:]) > 0.6 and zeros[0] < 0.2:
        return "UTF-32LE"
    if min(zeros[:3]) > 0.6 and zeros[3] < 0.2:
        return "UTF-32BE"
    odd, even = (zeros[1] + zeros[3]) / 2, (zeros[0] + zeros[2]) / 2
    if max(odd, even) > 0.1 and min(odd, even) < max(odd, even) / 10:
        return "UTF-16LE" if odd > even else "UTF-16BE"
    return None


def _is_binary(head: bytes) -> bool:
    """More control characters than damaged text has; text in an 8-bit encoding has none, and random bytes 10 %."""
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if controls <= 0.02 * len(head):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # not final: the last character may be cut
    except UnicodeDecodeError:
        return True
    return controls > 0.3 * len(head)
