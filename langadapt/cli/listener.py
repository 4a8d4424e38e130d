"""Progress on stderr: a bar on a terminal, otherwise one plain line every 30 seconds; warnings always."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from langadapt.cli.output import Screen
from langadapt.core.progress import Advanced, Event, Finished, Listener, Note, Started
from langadapt.core.units import show_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_SECONDS = 30.0
# A task that took longer than this says how long, so that a log shows where the time went.
WORTH_A_LINE_SECONDS = 5.0
# Loops report every document; redrawing more often than this costs more than it shows.
REDRAW_SECONDS = 0.1


@contextmanager
def listening(screen: Screen) -> Iterator[Listener]:
    """The listener that suits stderr; a bar is cleaned away at the end, also on an error."""
    if screen.quiet or not sys.stderr.isatty():
        yield Plain(screen)
        return
    with _bars(screen) as progress:
        yield Bars(screen, progress)


@dataclass
class _Running:
    total: int | None
    unit: str
    began: float
    shown: float
    before: int = 0


def _summary(task: str, done: int, unit: str, seconds: float) -> str:
    return f"{task}: {done:,} {unit} in {show_seconds(seconds)}"


@dataclass
class Plain:
    """Lines without control characters: for logs, batch systems and --quiet (warnings only)."""

    screen: Screen
    clock: Callable[[], float] = time.monotonic
    running: dict[str, _Running] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        now = self.clock()
        if isinstance(event, Note):
            (self.screen.warn if event.level == "warning" else self.screen.say)(event.text)
        elif isinstance(event, Started):
            self.running[event.task] = _Running(event.total, event.unit, now, now, event.done)
        elif isinstance(event, Advanced):
            task = self.running.get(event.task)
            if task is not None and now - task.shown >= PLAIN_SECONDS:
                task.shown = now
                self.screen.say(self.line(event, task, now))
        elif isinstance(event, Finished):
            task = self.running.pop(event.task, None)
            if event.seconds >= WORTH_A_LINE_SECONDS:
                self.screen.say(_summary(event.task, event.done, task.unit if task else "", event.seconds))

    def line(self, event: Advanced, task: _Running, now: float) -> str:
        """`training: 40/95 steps (42 %), 1 min 35 s left, loss 2.31`."""
        text = f"{event.task}: {event.done:,}"
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
class Bars:
    """Bars of rich, one a task, gone when the task is done."""

    screen: Screen
    progress: "Progress"
    tasks: dict[str, "TaskID"] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    drawn: dict[str, float] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Note):
            (self.screen.warn if event.level == "warning" else self.screen.say)(event.text)
        elif isinstance(event, Started):
            self.drop(event.task)
            self.tasks[event.task] = self.progress.add_task(
                event.task, total=event.total, completed=event.done, detail="", unit=event.unit
            )
            self.units[event.task] = event.unit
        elif isinstance(event, Advanced):
            now = time.monotonic()
            if event.task in self.tasks and now - self.drawn.get(event.task, 0.0) >= REDRAW_SECONDS:
                self.drawn[event.task] = now
                self.progress.update(self.tasks[event.task], completed=event.done, detail=event.detail)
        elif isinstance(event, Finished):
            self.drop(event.task)
            if event.seconds >= WORTH_A_LINE_SECONDS:
                self.screen.say(_summary(event.task, event.done, self.units.get(event.task, ""), event.seconds))

    def drop(self, task: str) -> None:
        """Take a bar away."""
        if task in self.tasks:
            self.progress.remove_task(self.tasks.pop(task))


def _bars(screen: Screen) -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[detail]}", markup=False),
        console=screen.console(sys.stderr),
        transient=True,
    )
