"""Progress as events: rooms report, a listener shows. Without a listener nothing is printed."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from langadapt.core import interrupt

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Started:
    """A task begins, or goes on after `done`; `total` is None when the amount is not known.

    `step`, here and in the other events, is the step of a recipe that reports; empty where there is only one.
    """

    task: str
    total: int | None
    unit: str
    done: int = 0
    step: str = ""


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """`done` units of the task are finished; `detail` is a short text such as the current loss."""

    task: str
    done: int
    detail: str = ""
    step: str = ""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The task ended after `seconds`."""

    task: str
    done: int
    seconds: float
    step: str = ""


@dataclass(frozen=True, kw_only=True)
class Note:
    """A sentence for the person at the terminal; level is `info` or `warning`."""

    text: str
    level: str = "info"
    step: str = ""


Event = Started | Advanced | Finished | Note


class Listener(Protocol):
    """Anything that wants to hear of progress."""

    def __call__(self, event: Event) -> None: ...


def ignore(event: Event) -> None:
    """The listener of library users who did not ask for one."""


def of_step(listener: Listener, step: str) -> Listener:
    """A listener that names the step before it passes an event on; steps that run side by side stay apart."""

    def listen(event: Event) -> None:
        listener(event if event.step else replace(event, step=step))

    return listen


@dataclass
class Progress:
    """What a step gives to the rooms; every report also looks at the interrupt flag."""

    listener: Listener = ignore
    warnings: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say something that helps to follow the run."""
        self.listener(Note(text=text))

    def warn(self, text: str) -> None:
        """Say something the user should look at; kept, so that the report can repeat it."""
        self.warnings.append(text)
        self.listener(Note(text=text, level="warning"))

    def track(
        self, items: Iterable[Item], task: str, *, total: int | None = None, unit: str = "items", every: int = 1
    ) -> Iterator[Item]:
        """Pass `items` through, reporting each, or each `every`th where they are cheap; raises Interrupted between
        two reports when a signal came."""
        bar = self.start(task, total=total, unit=unit)
        waiting = 0
        for item in items:
            yield item
            waiting += 1
            if waiting >= every:
                bar.advance(waiting)
                waiting = 0
        if waiting:
            bar.advance(waiting)
        bar.finish()

    def start(self, task: str, *, total: int | None = None, unit: str = "items", done: int = 0) -> "Task":
        """Begin a task whose amount is counted by hand; `done` units of it were finished by an earlier process."""
        self.listener(Started(task=task, total=total, unit=unit, done=done))
        return Task(task=task, progress=self, done=done)


@dataclass
class Task:
    """One running task; `advance` polls for signals."""

    task: str
    progress: Progress
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    def advance(self, amount: int = 1, detail: str = "", *, poll: bool = True) -> None:
        """Count `amount` more units; with `poll` raise Interrupted if a signal has arrived."""
        self.done += amount
        self.progress.listener(Advanced(task=self.task, done=self.done, detail=detail))
        if poll:
            interrupt.poll()

    def finish(self) -> None:
        """Report the end of the task."""
        self.progress.listener(Finished(task=self.task, done=self.done, seconds=time.monotonic() - self.began))
