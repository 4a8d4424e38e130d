"""Copies of large files: blocks shared where the file system can, holes kept as holes, never a link."""

import errno
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such calls outside Unix; then blocks are copied
    fcntl = None  # type: ignore[assignment]

# The ioctl by which btrfs, XFS and others give a second file the same blocks until one of the two is written (Linux).
_FICLONE = 0x40049409
_BLOCK = 4 * 1024 * 1024


def copy_file(source: Path, target: Path) -> None:
    """Write the content of `source` into a new file; what is written to one later does not show in the other.

    OSError if the disk is full.
    """
    with source.open("rb") as reader, target.open("wb") as writer:
        if not _cloned(reader.fileno(), writer.fileno()):
            _copy_data(reader.fileno(), writer.fileno())


def _cloned(reader: int, writer: int) -> bool:
    """Did the file system share the blocks?"""
    if fcntl is None:
        return False
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError:
        return False
    return True


def _copy_data(reader: int, writer: int) -> None:
    """Copy what is no hole, in blocks; the rest of the file is made of holes."""
    size = os.fstat(reader).st_size
    os.ftruncate(writer, size)
    start = 0
    while start < size:
        start, stop = _data(reader, start, size)
        while start < stop:
            block = os.pread(reader, min(_BLOCK, stop - start), start)
            if not block:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            start += os.pwrite(writer, block, start)


def _data(descriptor: int, start: int, size: int) -> tuple[int, int]:
    """The next range [begin, end) that holds data, from `start` on; (size, size) behind the last one."""
    if not hasattr(os, "SEEK_DATA"):
        return start, size
    try:
        begin = os.lseek(descriptor, start, os.SEEK_DATA)
        return begin, os.lseek(descriptor, begin, os.SEEK_HOLE)
    except OSError as error:
        # ENXIO: nothing but a hole follows; others: a file system that cannot tell
        return (size, size) if error.errno == errno.ENXIO else (start, size)
