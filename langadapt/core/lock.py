"""One kernel lock per output, freed by the kernel when its process dies: there is never anything to unlock by hand."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from langadapt.core import interrupt
from langadapt.core.errors import OutputError, ResourceError

# A waiter looks again this often; a blocking `flock` would not notice a signal.
_WAIT_SECONDS = 0.1
_MARK = b"process "


class Lock:
    """Exclusive `flock` on `<path>`: waits if `wait` (and tells `on_wait` for whom), else raises OutputError."""

    def __init__(self, path: Path, *, wait: bool = False, on_wait: Callable[[str], None] | None = None) -> None:
        self.path = path
        self.wait = wait
        self.on_wait = on_wait
        self._descriptor: int | None = None

    def __enter__(self) -> "Lock":
        while self._descriptor is None:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = _holder(descriptor)
                os.close(descriptor)
                if self.wait:
                    self._pause(holder)
                    continue
                raise _held(self.path, holder) from error
            if self._is_current(descriptor):
                self._descriptor = descriptor
            else:  # the holder before us removed the file between our open and our lock
                os.close(descriptor)
        self._refuse_if_foreign(self._descriptor)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, _MARK + f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
        return self

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            # Asking os.access beforehand knows neither ACLs nor quotas nor who this process acts for
            said = f"cannot write into `{self.path.parent}`: {(error.strerror or str(error)).lower()}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceError(said, hint="free some space and run the same command again") from error
            raise OutputError(said, hint="give another `--out`") from error

    def _refuse_if_foreign(self, descriptor: int) -> None:
        """`uv.lock` beside an output `uv` is a file of the user's; a lock of ours is empty or says who holds it."""
        content = os.read(descriptor, len(_MARK))
        if content and content != _MARK:
            os.close(descriptor)
            self._descriptor = None
            raise OutputError(f"`{self.path}` exists and is not a lock of langadapt", hint="give another `--out`")

    def _pause(self, holder: str) -> None:
        if self.on_wait is not None:
            self.on_wait(f"waiting for {holder}, which is writing `{self.path.with_suffix('')}`")
            self.on_wait = None
        time.sleep(_WAIT_SECONDS)
        interrupt.poll()

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def refuse_if_held(path: Path) -> None:
    """Raise the OutputError that taking the lock would raise now; creates nothing."""
    found = held_by(path)
    if found is not None:
        raise _held(path, found)


def held_by(path: Path) -> str | None:
    """Who holds the lock (`process 123 on host`), None if nobody does; creates nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def _holder(descriptor: int) -> str:
    """What the process that has the lock wrote into its file."""
    return os.read(descriptor, 200).decode("utf-8", "replace") or "another process"


def _held(path: Path, holder: str) -> OutputError:
    return OutputError(
        f"`{path.with_suffix('')}` is being written by {holder}",
        hint="wait for it to finish, or give another `--out`",
    )
