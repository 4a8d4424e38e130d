"""Progress on stderr: bars on a terminal, otherwise one plain line every 30 seconds, or JSON lines for programs."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from langadapt.cli.output import Screen, clean, event_line
from langadapt.core import interrupt
from langadapt.core.progress import Advanced, Event, Finished, Listener, Note, Started
from langadapt.core.units import show_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_SECONDS = 30.0
# A task that took longer than this says how long, so that a log shows where the time went.
WORTH_A_LINE_SECONDS = 5.0
# Loops report every document; redrawing or telling more often than this costs more than it shows.
REDRAW_SECONDS = 0.1
# Below this width a bar leaves no room for its name and numbers.
BAR_COLUMNS = 60
CLEAR_LINE = "\r\x1b[K"
SHOW_CURSOR = "\x1b[?25h"

Key = tuple[str, str]


@contextmanager
def listening(screen: Screen, step: str = "") -> Iterator[Listener]:
    """The listener that suits stderr and --progress; a bar is cleaned away at the end, also on an error.

    `step` is what JSON lines name as their step where an event names none: the verb that runs alone.
    """
    bars = screen.progress == "bar" or (screen.progress == "auto" and draws(sys.stderr.isatty()))
    with interrupt.telling(lambda number: _heard(screen, number, redraws=bars)):
        if screen.events:
            yield Lines(screen, step)
        elif screen.quiet or screen.progress == "none":
            yield Plain(screen, seconds=float("inf"))
        elif bars:
            with _bars(screen) as progress:
                yield Bars(screen, progress)
        else:
            yield Plain(screen)


def _heard(screen: Screen, number: int, *, redraws: bool) -> None:
    """Answer a signal at once; runs in its handler, where the buffers of stderr may be half written."""
    text = f"{signal.Signals(number).name}: saving and stopping; once more ends at once"
    if screen.events:
        text = json.dumps(event_line("note", level="info", message=text))
    elif screen.quiet:
        return
    # back to the begin of the line and clear it: the bar comes again below, but the cursor, which it hides, comes back
    # for good, since a second signal ends the process before anything can be tidied up
    with contextlib.suppress(OSError):
        os.write(2, f"{CLEAR_LINE + SHOW_CURSOR if redraws else ''}{text}\n".encode())


def draws(terminal: bool) -> bool:
    """Can stderr redraw a line? CI systems offer a terminal whose output is kept as a log."""
    return terminal and os.environ.get("TERM", "dumb") not in ("dumb", "unknown") and not os.environ.get("CI")


@dataclass
class _Running:
    total: int | None
    unit: str
    began: float
    shown: float
    before: int = 0


def _name(event: Started | Advanced | Finished) -> str:
    """`cpt: training` where a recipe runs, `training` else."""
    return f"{event.step}: {event.task}" if event.step else event.task


def _summary(event: Finished, unit: str) -> str:
    return f"{_name(event)}: {event.done:,} {unit} in {show_seconds(event.seconds)}"


@dataclass
class Plain:
    """Lines without control characters: for logs, batch systems, --quiet and --progress none (warnings only)."""

    screen: Screen
    clock: Callable[[], float] = time.monotonic
    running: dict[Key, _Running] = field(default_factory=dict)
    seconds: float = PLAIN_SECONDS

    def __call__(self, event: Event) -> None:
        """Show one event."""
        now = self.clock()
        if isinstance(event, Note):
            (self.screen.warn if event.level == "warning" else self.screen.say)(event.text)
        elif isinstance(event, Started):
            self.running[event.step, event.task] = _Running(event.total, event.unit, now, now, event.done)
        elif isinstance(event, Advanced):
            task = self.running.get((event.step, event.task))
            if task is not None and now - task.shown >= self.seconds:
                task.shown = now
                self.screen.say(self.line(event, task, now))
        elif isinstance(event, Finished):
            task = self.running.pop((event.step, event.task), None)
            if event.seconds >= WORTH_A_LINE_SECONDS and self.seconds < float("inf"):
                self.screen.say(_summary(event, task.unit if task else ""))

    def line(self, event: Advanced, task: _Running, now: float) -> str:
        """`training: 40/95 steps (42 %), 1 min 35 s left, loss 2.31`."""
        text = f"{_name(event)}: {event.done:,}"
        if task.total:
            text += f"/{task.total:,} {task.unit} ({100 * event.done / task.total:.0f} %)"
            if task.before < event.done < task.total:
                # what an earlier process did took none of this one's time
                left = (now - task.began) * (task.total - event.done) / (event.done - task.before)
                text += f", {show_seconds(left)} left"
        else:
            text += f" {task.unit}"
        return f"{text}, {event.detail}" if event.detail else text


@dataclass
class Lines:
    """One JSON object a line (docs/events.md); a task tells at most ten times a second how far it is."""

    screen: Screen
    step: str = ""
    clock: Callable[[], float] = time.monotonic
    running: dict[Key, _Running] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        """Tell one event."""
        step = event.step or self.step or None
        if isinstance(event, Note):
            if event.level != "info" or not self.screen.quiet:
                self.screen.event("note", step=step, message=event.text, level=event.level)
            return
        now, key = self.clock(), (event.step, event.task)
        if isinstance(event, Started):
            self.running[key] = _Running(event.total, event.unit, now, now - REDRAW_SECONDS, event.done)
        task = self.running.setdefault(key, _Running(None, "", now, now - REDRAW_SECONDS))
        kind, message = "started", None
        if isinstance(event, Advanced):
            if now - task.shown < REDRAW_SECONDS:
                return
            task.shown, kind, message = now, "advanced", event.detail or None
        elif isinstance(event, Finished):
            kind = "finished"
            del self.running[key]
        values = {"done": event.done, "total": task.total, "unit": task.unit or None}
        more = {"seconds": round(event.seconds, 3)} if isinstance(event, Finished) else {}
        self.screen.event(kind, step=step, task=event.task, message=message, level="info", **values, **more)


@dataclass
class Bars:
    """Bars of rich, one a task, gone when the task is done."""

    screen: Screen
    progress: "Progress"
    tasks: dict[Key, "TaskID"] = field(default_factory=dict)
    units: dict[Key, str] = field(default_factory=dict)
    drawn: dict[Key, float] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Note):
            (self.screen.warn if event.level == "warning" else self.screen.say)(event.text)
            return
        key = (event.step, event.task)
        if isinstance(event, Started):
            self.drop(key)
            self.tasks[key] = self.progress.add_task(
                clean(_name(event)), total=event.total, completed=event.done, detail="", unit=event.unit
            )
            self.units[key] = event.unit
        elif isinstance(event, Advanced):
            now = time.monotonic()
            if key in self.tasks and now - self.drawn.get(key, 0.0) >= REDRAW_SECONDS:
                self.drawn[key] = now
                self.progress.update(self.tasks[key], completed=event.done, detail=clean(event.detail))
        else:
            self.drop(key)
            if event.seconds >= WORTH_A_LINE_SECONDS:
                self.screen.say(_summary(event, self.units.get(key, "")))

    def drop(self, key: Key) -> None:
        """Take a bar away."""
        if key in self.tasks:
            self.progress.remove_task(self.tasks.pop(key))


def _bars(screen: Screen) -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    console = screen.console(sys.stderr)
    wide = console.width >= BAR_COLUMNS
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
    columns += [BarColumn(bar_width=30)] if wide else []
    columns += [MofNCompleteColumn(), TextColumn("{task.fields[unit]}", markup=False)]
    columns += [TimeRemainingColumn(compact=True), TextColumn("{task.fields[detail]}", markup=False)] if wide else []
    return Progress(*columns, console=console, transient=True)
