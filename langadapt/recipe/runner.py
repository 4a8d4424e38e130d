"""Run a recipe: skip what is up to date, go on with what is unfinished, run what changed; say why each time."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from langadapt.core import interrupt
from langadapt.core import verb as verbs
from langadapt.core.artifact import Artifact, open_artifact
from langadapt.core.errors import Interrupted, LangadaptError, OutputError
from langadapt.core.io import sha256_file
from langadapt.core.progress import Event, Listener, Note, ignore, of_step
from langadapt.core.types import Table
from langadapt.recipe import isolate
from langadapt.recipe.document import Setting
from langadapt.recipe.graph import Graph
from langadapt.recipe.look import Bench, Look
from langadapt.recipe.record import Record, point, publish


@dataclass(frozen=True)
class StepDone:
    """One step of a finished run; `state` is `up to date`, `new` or `continue`; a skipped step took no time."""

    id: str
    verb: str
    state: str
    reason: str
    artifact: Artifact
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunDone:
    """A finished run; `report` is the last report artifact that is part of it."""

    folder: Path
    steps: tuple[StepDone, ...]
    off: tuple[str, ...]
    seconds: float
    report: Artifact | None

    def tables(self) -> list[Table]:
        """What a person wants to see at the end: the table of the last scores, without scores that of the report."""
        for kind in ("scores", "report"):
            for step in [step for step in self.steps if step.artifact.kind == kind][-1:]:
                show = verbs.load(step.verb).table
                if show is not None:
                    found: Any = show(step.artifact)
                    return list(found) if isinstance(found, list | tuple) else [found]
        return []

    def data(self) -> dict[str, Any]:
        """The run as plain data."""
        return {
            "schema": "langadapt/run/1",
            "path": str(self.folder),
            "seconds": round(self.seconds, 3),
            "report": None if self.report is None else str(self.folder / "report.html"),
            "off": list(self.off),
            "steps": [
                {
                    "step": step.id,
                    "verb": step.verb,
                    "state": step.state,
                    "reason": step.reason,
                    "path": str(step.artifact.path),
                    "seconds": round(step.seconds, 3),
                    "peak_memory_bytes": step.peak_memory_bytes,
                    "warnings": list(step.warnings),
                }
                for step in self.steps
            ],
        }


@dataclass(frozen=True)
class Jobs:
    """How many steps run side by side: at most `most`, of them `heavy` that train or evaluate.

    With `keep_going` a failure only stops the steps that need what failed; else nothing new starts after one.
    """

    most: int = 1
    heavy: int = 1
    keep_going: bool = False


def run(
    graph: Graph,
    folder: Path,
    *,
    settings: tuple[Setting, ...] = (),
    listener: Listener = ignore,
    jobs: Jobs = Jobs(),
) -> RunDone:
    """Run all steps of a graph into `folder`. Two runs at once share their work: one waits for the other's step.

    An error or a signal ends the run; finished steps stay, and the same call goes on from there. The error raised is
    that of the step that failed first.
    """
    folder = folder.absolute()
    _make(folder)
    bench = Bench(folder, listener)
    record = Record(folder, lambda text: listener(Note(text=text, level="warning")))
    recipe = graph.recipe
    record.event(
        "started",
        recipe=str(recipe.path.absolute()),
        cwd=str(Path.cwd()),
        recipe_sha256=sha256_file(recipe.path),
        vars=dict(recipe.vars),
        settings=[item.plain for item in settings],
        steps=list(graph.steps),
        jobs=jobs.most,
    )
    try:
        for look in bench.take_all(graph):
            if look.state == "as it is":
                listener(Note(text=f"{look.step.id} is used as it is; {look.reason}", level="warning"))
        runner = _Runner(graph, bench, record, listener, jobs)
        done = runner.all()
    except LangadaptError as error:
        record.event("stopped", error=type(error).__name__, message=error.message, exit_code=error.exit_code)
        raise
    report = publish(folder, graph, runner.looks, bench.artifacts)
    seconds = record.whole()
    record.event("finished", seconds=round(seconds, 3))
    return RunDone(folder, tuple(done), graph.off, seconds, report)


def _make(folder: Path) -> None:
    try:
        (folder / "steps").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create `{folder / 'steps'}`: {error.strerror}") from error
    if not os.access(folder, os.W_OK) or not os.access(folder / "steps", os.W_OK):
        raise OutputError(f"cannot write into `{folder}`: permission denied")


def _labelled(listener: Listener) -> Listener:
    """Sentences of steps that run side by side begin with the step; tasks do so by themselves."""

    def listen(event: Event) -> None:
        listener(replace(event, text=f"{event.step}: {event.text}") if isinstance(event, Note) else event)

    return listen


class _Runner:
    """Starts every step as soon as what it needs is there, in the order of the graph."""

    def __init__(self, graph: Graph, bench: Bench, record: Record, listener: Listener, jobs: Jobs) -> None:
        self.graph, self.bench, self.record, self.listener, self.jobs = graph, bench, record, listener, jobs
        self.looks: dict[str, Look] = {}
        self.began: dict[str, float] = {}
        self.done: dict[str, StepDone] = {}
        self.failed: dict[str, LangadaptError] = {}
        self.waiting = list(graph.steps)

    def all(self) -> list[StepDone]:
        """Run everything; raises the first failure, or Interrupted."""
        with isolate.Crew() as crew:
            self.start_ready(crew)
            while crew.children:
                name, told = crew.next()
                try:
                    self.finish(name, told)
                except LangadaptError as error:
                    self.fail(name, error)
                self.start_ready(crew)
        if self.failed or self.waiting:
            self.give_up()
        return [self.done[name] for name in self.graph.steps]

    def start_ready(self, crew: isolate.Crew) -> None:
        """Start what can start now; what is up to date is skipped, which may make more steps ready."""
        at = 0
        while at < len(self.waiting):
            if interrupt.requested() or (self.failed and not self.jobs.keep_going):
                return
            name = self.waiting[at]
            if not self.may_start(name, crew):
                at += 1
                continue
            self.waiting.pop(at)
            try:
                self.start(name, crew)
            except LangadaptError as error:
                self.fail(name, error)
            at = 0

    def may_start(self, name: str, crew: isolate.Crew) -> bool:
        step = self.graph.steps[name]
        if any(need in self.graph.steps and need not in self.done for need in step.needs):
            return False
        heavy = sum(self.graph.steps[other].verb.heavy for other in crew.children)
        return len(crew.children) < self.jobs.most and not (step.verb.heavy and heavy >= self.jobs.heavy)

    def start(self, name: str, crew: isolate.Crew) -> None:
        step = self.graph.steps[name]
        look = self.looks[name] = self.bench.look(step)
        self.record.event("step", step=name, verb=step.verb.name, state=look.state, reason=look.reason)
        verb = "" if step.verb.name == name else f" ({step.verb.name})"
        what = {"up to date": "up to date", "continue": "going on", "running": "waiting"}.get(look.state, "running")
        number = list(self.graph.steps).index(name) + 1
        text = f"step {number}/{len(self.graph.steps)} {name}{verb}: {what}: {look.reason}"
        self.listener(Note(text=text, step=name))
        if look.artifact is not None:
            self.keep(StepDone(name, step.verb.name, look.state, look.reason, look.artifact))
            return
        if look.place is None:
            raise LangadaptError(f"internal: step `{name}` has inputs that were not made")
        self.began[name] = time.monotonic()
        job = {
            "do": "step",
            "step": name,
            "recipe": self.graph.recipe.name,
            "verb": step.verb.name,
            "config": look.config.model_dump(mode="json"),
            "place": str(look.place),
            "fingerprint": look.fingerprint,
        }
        listener = _labelled(self.listener) if self.jobs.most > 1 else self.listener
        crew.start(name, job, what=f"step `{name}`", listener=of_step(listener, name))

    def finish(self, name: str, told: dict[str, Any] | LangadaptError) -> None:
        """A step's process has ended: keep what it made, or raise its error."""
        if isinstance(told, LangadaptError):
            raise told
        look, seconds = self.looks[name], time.monotonic() - self.began[name]
        if look.place is None:
            raise LangadaptError(f"internal: step `{name}` has no place")
        artifact = open_artifact(look.place)
        peak = 0
        if told["state"] != "up to date":  # another run made it while this one waited for it
            peak = self.record.timing(look, told["state"], artifact, seconds)
        self.record.event("made", step=name, state=told["state"], place=look.place.name, seconds=round(seconds, 3))
        warnings = tuple(told["warnings"])
        verb = look.step.verb.name
        self.keep(StepDone(name, verb, told["state"], look.reason, artifact, seconds, peak, warnings))

    def keep(self, done: StepDone) -> None:
        point(self.bench.pointer(done.id), done.artifact.path)
        self.bench.done(done.id, done.artifact)
        self.done[done.id] = done

    def fail(self, name: str, error: LangadaptError) -> None:
        if self.failed and not isinstance(error, Interrupted):  # the first one is raised, and told at the end
            self.listener(Note(text=f"step `{name}` failed as well: {error.message}", level="warning", step=name))
        self.record.event("failed", step=name, error=type(error).__name__, message=error.message)
        self.failed[name] = error

    def give_up(self) -> None:
        """Raise what stands in the way of the rest: a signal before a failure, the first failure before others."""
        stopped = [error for error in self.failed.values() if isinstance(error, Interrupted)]
        if stopped:
            raise stopped[0]
        if not self.failed:
            interrupt.poll()
        if self.waiting and self.jobs.keep_going:
            self.listener(Note(text=f"not run, since they need what failed: {', '.join(self.waiting)}"))
        raise next(iter(self.failed.values()), LangadaptError("internal: no step can start"))
