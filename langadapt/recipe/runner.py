"""Run a recipe: skip what is up to date, go on with what is unfinished, run what changed; say why each time."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.core import interrupt
from langadapt.core import verb as verbs
from langadapt.core.artifact import Artifact, open_artifact
from langadapt.core.errors import LangadaptError, OutputError
from langadapt.core.io import sha256_file
from langadapt.core.progress import Listener, Note, ignore
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


def run(graph: Graph, folder: Path, *, settings: tuple[Setting, ...] = (), listener: Listener = ignore) -> RunDone:
    """Run all steps of a graph into `folder`. Two runs at once share their work: one waits for the other's step.

    An error or a signal ends the run at once; finished steps stay, and the same call goes on from there.
    """
    folder = folder.absolute()
    _make(folder)
    bench, record = Bench(folder, listener), Record(folder)
    recipe = graph.recipe
    record.event(
        "started",
        recipe=str(recipe.path.absolute()),
        cwd=str(Path.cwd()),
        recipe_sha256=sha256_file(recipe.path),
        vars=dict(recipe.vars),
        settings=[item.plain for item in settings],
        steps=list(graph.steps),
    )
    runner = _Runner(graph, bench, record, listener)
    try:
        done = [runner.step(name, number) for number, name in enumerate(graph.steps, 1)]
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


class _Runner:
    def __init__(self, graph: Graph, bench: Bench, record: Record, listener: Listener) -> None:
        self.graph, self.bench, self.record, self.listener = graph, bench, record, listener
        self.looks: dict[str, Look] = {}

    def step(self, name: str, number: int) -> StepDone:
        interrupt.poll()
        look = self.looks[name] = self.bench.look(self.graph.steps[name])
        self.record.event("step", step=name, verb=look.step.verb.name, state=look.state, reason=look.reason)
        verb = "" if look.step.verb.name == name else f" ({look.step.verb.name})"
        what = {"up to date": "up to date", "continue": "going on", "would run": "running"}[look.state]
        self.listener(Note(text=f"step {number}/{len(self.graph.steps)} {name}{verb}: {what}: {look.reason}"))
        done = self.skip(look) if look.artifact is not None else self.execute(look)
        point(self.bench.pointer(name), done.artifact.path)
        self.bench.done(name, done.artifact)
        return done

    def skip(self, look: Look) -> StepDone:
        if look.artifact is None:
            raise LangadaptError(f"internal: step `{look.step.id}` is not up to date")
        return StepDone(look.step.id, look.step.verb.name, look.state, look.reason, look.artifact)

    def execute(self, look: Look) -> StepDone:
        step = look.step
        if look.place is None:
            raise LangadaptError(f"internal: step `{step.id}` has inputs that were not made")
        began = time.monotonic()
        job = {
            "do": "step",
            "step": step.id,
            "recipe": self.graph.recipe.name,
            "verb": step.verb.name,
            "config": look.config.model_dump(mode="json"),
            "place": str(look.place),
            "fingerprint": look.fingerprint,
        }
        told = isolate.call(job, what=f"step `{step.id}`", listener=self.listener)
        seconds = time.monotonic() - began
        artifact = open_artifact(look.place)
        peak = 0
        if told["state"] != "up to date":  # another run made it while this one waited for it
            peak = self.record.timing(look, told["state"], artifact, seconds)
        self.record.event("made", step=step.id, state=told["state"], place=look.place.name, seconds=round(seconds, 3))
        warnings = tuple(told["warnings"])
        return StepDone(step.id, step.verb.name, told["state"], look.reason, artifact, seconds, peak, warnings)
