"""One kernel lock per output, freed by the kernel when its process dies: there is never anything to unlock by hand."""

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType

from langadapt.core.errors import OutputError


class Lock:
    """Exclusive `flock` on `<path>`: waits if `wait`, else raises OutputError naming the holder."""

    def __init__(self, path: Path, *, wait: bool = False) -> None:
        self.path = path
        self.wait = wait
        self._descriptor: int | None = None

    def __enter__(self) -> "Lock":
        while self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX if self.wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(descriptor, 200).decode("utf-8", "replace") or "another process"
                os.close(descriptor)
                raise OutputError(
                    f"`{self.path.with_suffix('')}` is being written by {holder}",
                    hint="wait for it to finish, or give another `--out`",
                ) from error
            if self._is_current(descriptor):
                self._descriptor = descriptor
            else:  # the holder before us removed the file between our open and our lock
                os.close(descriptor)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        return self

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
