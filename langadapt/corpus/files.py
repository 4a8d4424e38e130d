"""Files as streams of plain bytes: which files of a folder, compressed or not, in which encoding; all bounded."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from langadapt.core.errors import DataError

TEXT_SUFFIXES = (".txt", ".text", ".md", ".jsonl", ".ndjson", ".json")
# Text compresses 3 to 10 times, the most repetitive logs about 100 times; gzip cannot exceed 1032.
MAX_RATIO = 200
RATIO_COUNTS_FROM = 64 * 1024 * 1024
MAX_UNPACKED_BYTES = 256 * 1024**3
SNIFF_BYTES = 1024 * 1024

_GZIP = b"\x1f\x8b"
_FOREIGN = (
    (b"\x28\xb5\x2f\xfd", "Zstandard data", "zstd -d {0}"),
    (b"\xfd7zXZ", "xz data", "xz -dk {0}"),
    (b"BZh", "bzip2 data", "bzip2 -dk {0}"),
    (b"PK\x03\x04", "a zip archive", "unzip {0}"),
    (b"%PDF", "a PDF", "pdftotext {0}"),
    (b"PAR1", "a Parquet file", "convert it to JSON lines first"),
)
_UTF8_BOM = b"\xef\xbb\xbf"
_BOMS = (
    (b"\xff\xfe\x00\x00", "UTF-32LE"),
    (b"\x00\x00\xfe\xff", "UTF-32BE"),
    (b"\xff\xfe", "UTF-16LE"),
    (b"\xfe\xff", "UTF-16BE"),
)
# The 8-bit encoding that old files of a language most likely have; only for the hint.
_LEGACY = {
    "windows-1250": "hu pl cs sk sl hr bs ro sq",
    "windows-1251": "ru uk be bg sr mk",
    "windows-1253": "el",
    "windows-1254": "tr",
    "windows-1255": "he yi",
    "windows-1256": "ar fa ur",
    "windows-1257": "lt lv et",
    "windows-1258": "vi",
    "windows-874": "th",
    "shift_jis": "ja",
    "gb18030": "zh",
    "euc-kr": "ko",
}


def likely_encoding(lang: str) -> str:
    """The legacy encoding to name in a hint for text in `lang`."""
    head = lang.split("-")[0]
    return next((name for name, langs in _LEGACY.items() if head in langs.split()), "windows-1252")


def text_files(path: Path) -> list[Path]:
    """The file itself, or the text files below a folder (by name, hidden ones left out), sorted by path."""
    if path.is_file():
        return [path]
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and plain_name(file).lower().endswith(TEXT_SUFFIXES)
    ]
    if not found:
        kinds = ", ".join(TEXT_SUFFIXES)
        raise DataError(f"`{path}` holds no text files ({kinds}; each also as .gz)", hint="name the files themselves")
    return found


def plain_name(path: Path) -> str:
    """The file's name without `.gz`: packing a file does not change what its documents are called."""
    return path.name.removesuffix(".gz")


class _Unpacked(io.RawIOBase):
    """Decompressed bytes of a gzip file; stops with DataError at a bomb, a cut or a damaged file."""

    def __init__(self, path: Path, packed: BinaryIO) -> None:
        self._path, self._packed, self._done = path, packed, 0
        self._gzip = gzip.GzipFile(fileobj=packed, mode="rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._gzip.read(len(buffer))
        except EOFError as error:
            raise DataError(
                f"`{self._path}` ends in the middle of its gzip data, after {self._done:,} bytes of text",
                hint="copy or download it again",
            ) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"`{self._path}` is damaged gzip data: {error}") from error
        self._done += len(data)
        suspicious = self._done > RATIO_COUNTS_FROM and self._done > MAX_RATIO * max(1, self._packed.tell())
        if suspicious or self._done > MAX_UNPACKED_BYTES:
            raise DataError(
                f"`{self._path}` unpacks to more than {MAX_RATIO} times its size; this is not text",
                hint=f"if it is, unpack it yourself: gzip -dk '{self._path}'",
            )
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """The plain bytes of a text file, unpacked if it is gzip (by its first bytes, not its name), BOM skipped.

    DataError for other compressions, UTF-16 and UTF-32, with the command that converts the file.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read `{path}`: {error.strerror}") from error
    with file:
        packed = file.peek(2)[:2] == _GZIP
        raw = _Unpacked(path, file) if packed else None
        stream = cast(io.BufferedReader, io.BufferedReader(raw, 256 * 1024) if raw is not None else file)
        head = stream.peek(4096)[:4096]
        _refuse_foreign(path, head)
        if head.startswith(_UTF8_BOM):
            stream.read(len(_UTF8_BOM))
        yield stream


def _refuse_foreign(path: Path, head: bytes) -> None:
    if head.startswith(_GZIP):
        raise DataError(f"`{path}` is gzip data inside gzip data", hint=f"unpack it once: gzip -dk '{path}'")
    for magic, what, hint in _FOREIGN:
        if head.startswith(magic):
            raise DataError(f"`{path}` is {what}, not text", hint=hint.format(f"'{path}'"))
    encoding = next((name for bom, name in _BOMS if head.startswith(bom)), None) or _without_bom(head)
    if encoding is not None:
        raise DataError(
            f"`{path}` is {encoding.removesuffix('LE').removesuffix('BE')} text; langadapt reads UTF-8",
            hint=f"iconv -f {encoding} -t UTF-8 '{path}' > '{path.stem}.utf8{path.suffix}'",
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
