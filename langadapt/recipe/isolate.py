"""Every step runs in a process of its own: its memory goes back when it ends, and its crash is only its own.

Measured: an empty process costs 0.25 s, one that needs torch 2 to 3 s, of steps that take a minute and more.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from langadapt.core import errors, interrupt
from langadapt.core import progress as events
from langadapt.core.errors import Interrupted, LangadaptError, ResourceError
from langadapt.core.progress import Listener

# -P: a file `json.py` in the user's folder must not be imported in place of the real one.
CHILD: tuple[str, ...] = (sys.executable, "-P", "-X", "faulthandler", "-m", "langadapt.recipe.child")
_LOOK_SECONDS = 0.1
_LEAVE_SECONDS = 10
_STDERR = 2


@dataclass
class _Child:
    process: subprocess.Popen[bytes]
    channel: int
    listener: Listener
    buffer: bytes = b""
    passed_on: int = 0
    last: dict[str, Any] | None = None

    def tell(self, line: str) -> None:
        stdin = self.process.stdin
        if stdin is not None:
            try:
                stdin.write(line.encode() + b"\n")
                stdin.flush()
            except BrokenPipeError:
                return  # it has ended; its exit code says how

    def pass_on_signals(self) -> None:
        for number in interrupt.received()[self.passed_on :]:
            self.tell(str(int(number)))
            self.passed_on += 1

    def listen(self) -> None:
        """Take what the child says until its last word or its end."""
        ended = False
        while self.last is None:
            self.pass_on_signals()
            ready, _, _ = select.select([self.channel], [], [], _LOOK_SECONDS)
            if ready:
                data = os.read(self.channel, 1 << 20)
                if not data:
                    return
                self.take(data)
            elif ended:  # a process that the step started may keep the pipe open after the step has died
                return
            else:
                ended = self.process.poll() is not None

    def take(self, data: bytes) -> None:
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["kind"] == "event":
                self.listener(getattr(events, message["event"])(**message["values"]))
            else:
                self.last = message


def call(job: Mapping[str, Any], *, what: str, listener: Listener = events.ignore) -> dict[str, Any]:
    """Do `job` in a fresh process and return its result.

    Its events reach `listener`, signals that this process has seen reach it once, and its error is raised here with
    the same class, place and hint. If this process dies, the child dies.
    """
    with _started(listener) as child:
        child.tell(json.dumps(dict(job)))
        child.listen()
        last = child.last
        if last is None:
            raise _death(what, child.process.wait())
        with suppress(subprocess.TimeoutExpired):  # everything is on disk; a hanging tear-down is cut short
            child.process.wait(_LEAVE_SECONDS)
    if last["kind"] == "error":
        kind = getattr(errors, last["type"], LangadaptError)
        raise kind(last["message"], where=last["where"] or what, hint=last["hint"])
    if last["kind"] == "crash":
        raise _crash(what, last)
    return dict(last)


@contextmanager
def _started(listener: Listener) -> Iterator[_Child]:
    channel, theirs = os.pipe()
    try:
        # A group of its own: Ctrl-C goes to this process only, which passes it on. Nothing of a step's own prints
        # may reach stdout, which carries the result.
        process = subprocess.Popen(
            [*CHILD, str(theirs)], stdin=subprocess.PIPE, stdout=_STDERR, pass_fds=(theirs,), process_group=0
        )
    except OSError as error:
        os.close(channel)
        raise ResourceError(f"cannot start a process: {error.strerror}") from error
    finally:
        os.close(theirs)
    try:
        yield _Child(process, channel, listener)
    finally:
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()  # what still runs sees the end of its input and kills itself
        process.wait()
        os.close(channel)


def _death(what: str, code: int) -> LangadaptError:
    """The error for a child that ended without a word."""
    if -code in interrupt.received():  # it came before the child could handle it, so nothing was lost
        name = signal.Signals(-code).name
        return Interrupted(f"stopped by {name}", where=what, hint="run the same command again to go on")
    again = "run the same command again: finished steps are kept, an unfinished one goes on"
    if code == -signal.SIGKILL:
        return ResourceError("the process was killed, most likely because memory ran out", where=what, hint=again)
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return LangadaptError(f"the process ended with {name}", where=what, hint=again)


def _crash(what: str, message: Mapping[str, Any]) -> LangadaptError:
    """The error for an exception that nobody foresaw."""
    if message["type"] == "MemoryError":
        return ResourceError("out of memory", where=what)
    error = LangadaptError(
        f"internal error: {message['type']}: {message['message']}", where=what, hint="`--debug` shows the traceback"
    )
    error.add_note(message["traceback"])
    return error
