"""The process that carries out one step: `python -m langadapt.recipe.child FD`, started by `recipe.isolate`.

Line 1 of stdin is the job; later lines are signals that the parent received. What happens is written to descriptor
FD as JSON lines: events, and at the end a result or an error. When stdin ends the parent is dead, and so is this
process: an orphan would go on training and hold the lock of its output.
"""

import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from langadapt.core import deadline, interrupt
from langadapt.core import verb as verbs
from langadapt.core.errors import LangadaptError
from langadapt.core.progress import Advanced, Event, Progress
from langadapt.core.validate import validate

# Ten reports a second are enough for a bar; a loop over a million documents would spend seconds on the pipe.
_REPORT_SECONDS = 0.1


class Channel:
    """The way to the parent."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.last: dict[str, float] = {}
        os.set_inheritable(descriptor, False)

    def send(self, kind: str, value: Mapping[str, Any]) -> None:
        """Send one line; the parent reads all of them before it looks at the exit code."""
        data = json.dumps({"kind": kind, **value}).encode() + b"\n"
        while data:
            data = data[os.write(self.descriptor, data) :]

    def listen(self, event: Event) -> None:
        """Listener of the step; reports that come too fast for a person are left out."""
        if isinstance(event, Advanced):
            now = time.monotonic()
            if now - self.last.get(event.task, 0.0) < _REPORT_SECONDS:
                return
            self.last[event.task] = now
        self.send("event", {"event": type(event).__name__, "values": asdict(event)})

    def crashed(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """`sys.excepthook`: an error nobody foresaw is told to the parent, which decides how much to show."""
        text = "".join(traceback.format_exception(kind, error, trace))
        self.send("crash", {"type": kind.__name__, "message": str(error), "traceback": text})


class Signals:
    """Signals reach a step twice when a scheduler sends them to every process and the parent passes its own on.

    They are counted by where they came from: the second one from the same side ends the process at once.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()
        for number in interrupt.HANDLED:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.arrived("here", number)

    def arrived(self, source: str, number: int) -> None:
        """Ask the step to stop, or stop it."""
        self.counts[source, number] += 1
        if self.counts[source, number] > 1:
            os._exit(128 + number)
        interrupt.request(number)

    def follow(self, lines: "Lines") -> None:
        """Body of the thread that listens to the parent."""
        while (line := lines.next()) is not None:
            self.arrived("parent", int(line))
        os.kill(os.getpid(), signal.SIGKILL)


class Lines:
    """Lines of a descriptor, read without Python's buffers: a thread that waits in them can hang the exit."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.buffer = b""

    def next(self) -> str | None:
        """The next whole line, or None at the end."""
        while b"\n" not in self.buffer:
            data = os.read(self.descriptor, 65536)
            if not data:
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()


def carry_out(job: Mapping[str, Any], channel: Channel) -> dict[str, Any]:
    """Perform one step; the artifact is at `job["place"]` afterwards."""
    verb = verbs.load(job["verb"])
    config = validate(verb.config, job["config"], what=f"steps.{job['step']}")
    result = verbs.perform(
        verb,
        config,
        Path(job["place"]),
        progress=Progress(channel.listen),
        wait=True,
        record={"step": job["step"], "recipe": job["recipe"]},
        expect=job["fingerprint"],
    )
    return {"state": result.state, "warnings": list(result.warnings)}


def resolve(job: Mapping[str, Any], channel: Channel) -> dict[str, Any]:
    """Turn what a person wrote for a model into a folder (it may have to be converted: memory of this process)."""
    module, _, function = job["resolver"].partition(":")
    return {"path": str(getattr(importlib.import_module(module), function)(job["given"]))}


WORK: dict[str, Callable[[Mapping[str, Any], Channel], dict[str, Any]]] = {"step": carry_out, "resolve": resolve}


def main(arguments: list[str]) -> int:
    """Do the job on stdin; the exit code is that of the error, if any."""
    channel = Channel(int(arguments[0]))
    sys.excepthook = channel.crashed
    lines, signals = Lines(0), Signals()
    first = lines.next()
    if first is None:
        return 1
    threading.Thread(target=signals.follow, args=(lines,), daemon=True).start()
    job = json.loads(first)
    try:
        with deadline.as_parent(job.get("limit")):
            result = WORK[job["do"]](job, channel)
    except LangadaptError as error:
        told = {"type": type(error).__name__, "message": error.message, "where": error.where, "hint": error.hint}
        channel.send("error", told)
        return error.exit_code
    channel.send("result", result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
