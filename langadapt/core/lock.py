"""One kernel lock per output, freed by the kernel when its process dies: there is never anything to unlock by hand."""

import fcntl
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from langadapt.core import interrupt
from langadapt.core.errors import OutputError

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
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
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
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _held(path, _holder(descriptor)) from error
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """What the process that has the lock wrote into its file."""
    return os.read(descriptor, 200).decode("utf-8", "replace") or "another process"


def _held(path: Path, holder: str) -> OutputError:
    return OutputError(
        f"`{path.with_suffix('')}` is being written by {holder}",
        hint="wait for it to finish, or give another `--out`",
    )
