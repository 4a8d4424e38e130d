"""Bytes to disk and back: digests, durable writes, bounded reads, JSON that is the same bytes every time."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from langadapt.core.errors import DataError

# 64 MiB: the largest JSON file of ours (a vocabulary map of 256k tokens) is about 30 MB.
MAX_JSON_BYTES = 64 * 1024 * 1024
_CHUNK = 1024 * 1024


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """Hex SHA-256 of the UTF-8 bytes of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()


# made once: `json.dumps` would make one for every line of a corpus
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, so it can be hashed."""
    return _CANONICAL.encode(value)


def pretty_json(value: object) -> str:
    """JSON for people, still the same bytes for equal values."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Parse a JSON file of at most `max_bytes`; DataError names the file when it is missing, too large or broken."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"cannot read `{path}`: {error.strerror}") from error
    if size > max_bytes:
        raise DataError(f"`{path}` has {size:,} bytes; a file of this kind has at most {max_bytes:,}")
    try:
        return json.loads(path.read_bytes().decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"`{path}` is not valid JSON: {error}") from error


def read_json_object(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """`read_json` for a file that must hold an object."""
    value = read_json(path, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise DataError(f"`{path}` should hold a JSON object, it holds a {type(value).__name__}")
    return value


def is_text(name: str) -> bool:
    """Can this name of a file be written as UTF-8? Python stands lone surrogates for bytes that are none."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def fsync_path(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: str | bytes) -> None:
    """Write and fsync a new file (no rename: the caller works in a temporary folder)."""
    data = content.encode() if isinstance(content, str) else content
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, content: str | bytes) -> None:
    """Replace a single file so that a reader sees the old or the new content, never a part."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    write_durably(temporary, content)
    temporary.replace(path)
    fsync_path(path.parent)


def append_json_line(path: Path, value: object) -> None:
    """Append one object with a single write, so that a kill leaves whole lines and at most one cut last line.

    OSError if it does not fit on the disk; what did fit is taken back, so that a later line does not join it.
    """
    data = (canonical_json(value) + "\n").encode()
    with path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        written = file.write(data)
        if written < len(data):
            if os.fstat(file.fileno()).st_size == before + written:  # else another process has appended since
                file.truncate(before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def is_full(error: OSError) -> bool:
    """Did this fail because the disk, a quota or the largest size of a file is reached?"""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSON-lines file of ours; an unterminated last line (a kill in the middle) is ignored."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                value = json.loads(line)
            except ValueError as error:
                raise DataError(f"broken JSON line: {error}", where=f"{path}:{number}") from error
            if not isinstance(value, dict):
                raise DataError("a JSON line should hold an object", where=f"{path}:{number}")
            yield value


def write_json_lines(path: Path, values: Iterable[object]) -> None:
    """Write a JSON-lines file whole (inside a temporary folder; the commit fsyncs it)."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for value in values:
            file.write(canonical_json(value) + "\n")


def may_write(folder: Path) -> bool:
    """Can files be made in it, as far as its mode and its disk tell?"""
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def free_disk_bytes(folder: Path) -> int:
    """Free bytes on the file system of the nearest existing parent of `folder`."""
    place = folder
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def cache_folder() -> Path:
    """Where things that can be made again are kept: $LANGADAPT_CACHE, else ~/.cache/langadapt."""
    if given := os.environ.get("LANGADAPT_CACHE"):
        return Path(given)
    try:
        return Path.home() / ".cache" / "langadapt"
    except RuntimeError:
        # No HOME and no entry in the list of users, as in some containers
        return Path(tempfile.gettempdir()) / f"langadapt-{os.getuid()}"
