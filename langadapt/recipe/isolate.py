"""Every step runs in a process of its own: its memory goes back when it ends, and its crash is only its own.

Measured: an empty process costs 0.25 s, one that needs torch 2 to 3 s, of steps that take a minute and more.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from langadapt.core import deadline, errors, interrupt
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
    what: str
    buffer: bytes = b""
    passed_on: int = 0
    ended: bool = False
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

    def heard(self, ready: bool) -> bool:
        """Take what it says if there is something; True after its last word or its end."""
        if ready:
            data = os.read(self.channel, 1 << 20)
            if not data:
                return True
            self.take(data)
        elif self.ended:  # a process that the step started may keep the pipe open after the step has died
            return True
        else:
            self.ended = self.process.poll() is not None
        return self.last is not None

    def take(self, data: bytes) -> None:
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["kind"] == "event":
                self.listener(getattr(events, message["event"])(**message["values"]))
            else:
                self.last = message


class Crew:
    """Processes that work side by side, heard in one loop; leaving the block ends those that are still at work."""

    def __init__(self) -> None:
        self.children: dict[str, _Child] = {}

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self.children):
            self._leave(name)

    def start(self, name: str, job: Mapping[str, Any], *, what: str, listener: Listener = events.ignore) -> None:
        """Give `job` to a fresh process; `what` is what errors call it. ResourceError if none can be started."""
        child = self.children[name] = _start(what, listener)
        child.tell(json.dumps({**job, "limit": deadline.to_child()}))

    def next(self) -> tuple[str, dict[str, Any] | LangadaptError]:
        """Wait until one of them ends: its name, and its result or its error.

        Their events reach their listeners meanwhile, and signals that this process has seen reach each of them once.
        """
        while True:
            for child in self.children.values():
                child.pass_on_signals()
            channels = [child.channel for child in self.children.values()]
            ready, _, _ = select.select(channels, [], [], _LOOK_SECONDS)
            for name, child in self.children.items():
                if child.heard(child.channel in ready):
                    outcome = _outcome(child)
                    self._leave(name)
                    return name, outcome

    def _leave(self, name: str) -> None:
        child = self.children.pop(name)
        if child.process.stdin is not None:
            with suppress(BrokenPipeError):
                child.process.stdin.close()  # what still runs sees the end of its input and kills itself
        child.process.wait()
        os.close(child.channel)


def call(job: Mapping[str, Any], *, what: str, listener: Listener = events.ignore) -> dict[str, Any]:
    """Do `job` in a fresh process and return its result.

    Its events reach `listener`, signals that this process has seen reach it once, and its error is raised here with
    the same class, place and hint. If this process dies, the child dies.
    """
    with Crew() as crew:
        crew.start(what, job, what=what, listener=listener)
        _, outcome = crew.next()
    if isinstance(outcome, LangadaptError):
        raise outcome
    return outcome


def _start(what: str, listener: Listener) -> _Child:
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
    return _Child(process, channel, listener, what)


def _outcome(child: _Child) -> dict[str, Any] | LangadaptError:
    last = child.last
    if last is None:
        return _death(child.what, child.process.wait())
    with suppress(subprocess.TimeoutExpired):  # everything is on disk; a hanging tear-down is cut short
        child.process.wait(_LEAVE_SECONDS)
    if last["kind"] == "error":
        kind = getattr(errors, last["type"], LangadaptError)
        failure: LangadaptError = kind(last["message"], where=last["where"] or child.what, hint=last["hint"])
        return failure
    return _crash(child.what, last) if last["kind"] == "crash" else dict(last)


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
