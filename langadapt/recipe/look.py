"""What state a step is in, and why: up to date, unfinished, or to be run because something changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from langadapt.core import verb as verbs
from langadapt.core.artifact import Artifact, Identity, is_artifact, open_artifact, partial_folder
from langadapt.core.config import InputField, Reads, StepConfig, input_fields
from langadapt.core.errors import ConfigError
from langadapt.core.inputs import Input, Inputs, resolve_input
from langadapt.core.lock import held_by
from langadapt.core.progress import Listener, ignore
from langadapt.core.types import Estimate
from langadapt.recipe import isolate
from langadapt.recipe.graph import Graph, Step
from langadapt.recipe.sources import FromStep, Source
from langadapt.recipe.why import Change, changes, last_output, named

State = Literal["up to date", "continue", "would run", "running", "as it is"]
_SHOWN = 10


@dataclass(frozen=True)
class Look:
    """One step as it stands. `fingerprint` and `place` are None while an input has still to be made."""

    step: Step
    state: State
    reason: str
    config: StepConfig
    inputs: Inputs
    before: bool
    fingerprint: str | None = None
    place: Path | None = None
    artifact: Artifact | None = None
    estimate: Estimate | None = None
    changes: tuple[Change, ...] = ()

    @property
    def standing(self) -> Literal["done", "partial", "running", "stale", "missing"]:
        """The state in the words of `langadapt status`."""
        if self.state == "up to date":
            return "done"
        if self.state == "continue":
            return "partial"
        if self.state == "running":
            return "running"
        return "stale" if self.before else "missing"


@dataclass
class Bench:
    """Looks at steps in their order; remembers what it found, so that later steps can be looked at.

    `folder` is the run folder: outputs are in `<folder>/steps/<id>-<fingerprint[:10]>`.
    """

    folder: Path
    listener: Listener = ignore
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    predicted: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _files: dict[tuple[str, Reads], Input] = field(default_factory=dict)

    def pointer(self, step: str) -> Path:
        """The link to the current output of a step."""
        return self.folder / "steps" / step

    def look(self, step: Step) -> Look:
        """State and reason of one step; the steps it needs have been looked at (or run) before."""
        inputs = self.inputs(step)
        config = step.config(self._place_of)
        who = verbs.identity(step.verb, config, inputs)
        waits = any(not item.exists for value in inputs.values() for item in _each(value))
        before = self.pointer(step.id).is_symlink()
        if waits:
            reason, parts = self.compare(step, who, inputs)
            return Look(step, "would run", reason, config, inputs, before, changes=parts)
        place = self.folder / "steps" / f"{step.id}-{who.fingerprint[:_SHOWN]}"
        look = Look(step, "would run", "", config, inputs, before, who.fingerprint, place)
        if is_artifact(place):
            current = self.pointer(step.id).resolve() == place.resolve()
            reason = "nothing changed" if current else "made earlier with these settings"
            return replace(look, state="up to date", reason=reason, artifact=open_artifact(place))
        at_work = held_by(place.parent / f"{place.name}.lock")
        if at_work is not None:
            return replace(look, state="running", reason=f"{at_work} is at it")
        reason, parts = self.compare(step, who, inputs)
        if (partial_folder(place) / "partial.json").is_file():
            return replace(look, state="continue", reason="an earlier run was interrupted", changes=parts)
        return replace(look, reason=reason, changes=parts)

    def take(self, step: Step) -> Look:
        """What is there of a step that is not to run: up to date if it is, else its last output as it is, if any."""
        look = self.look(step)
        if look.artifact is not None:
            return look
        old = last_output(self.pointer(step.id))
        if old is None:
            return look
        return replace(look, state="as it is", reason=f"not up to date: {look.reason}", place=old.path, artifact=old)

    def take_all(self, graph: Graph) -> list[Look]:
        """What is there of the steps that are not to run; ConfigError if one of them is needed and not there."""
        looks = []
        for step in graph.taken.values():
            look = self.take(step)
            needed_by = [other.id for other in graph.steps.values() if step.id in other.needs]
            if look.artifact is not None:
                self.done(step.id, look.artifact)
            elif needed_by:
                raise ConfigError(
                    f"`{needed_by[0]}` needs step `{step.id}`, which is not to run and has made nothing yet",
                    hint=f"run it first: --only {step.written}",
                )
            looks += [look] if needed_by else []
        return looks

    def price(self, look: Look) -> Look:
        """Add the estimate of a step that has still to run, and keep the facts it predicts for later steps."""
        if look.artifact is not None:
            return look
        estimate = look.step.verb.estimate(look.config, look.inputs)
        self.predicted[look.step.id] = estimate.facts
        return replace(look, estimate=estimate)

    def done(self, step: str, artifact: Artifact) -> None:
        """A step's output exists: later steps read it."""
        self.artifacts[step] = artifact

    def inputs(self, step: Step) -> Inputs:
        """All inputs of a step; those still to be made have `exists=False` and the predicted facts."""
        found: dict[str, Input | tuple[Input, ...] | dict[str, Input] | None] = {}
        for item in input_fields(step.verb.config):
            wiring = step.wiring.get(item.name)
            if wiring is None:
                found[item.name] = _empty(item)
            elif isinstance(wiring, tuple):
                found[item.name] = tuple(self._input(source, item) for source in wiring)
            elif isinstance(wiring, dict):
                found[item.name] = {name: self._input(source, item) for name, source in wiring.items()}
            else:
                found[item.name] = self._input(wiring, item)
        return found

    def _input(self, source: Source, item: InputField) -> Input:
        if isinstance(source, FromStep):
            artifact = self.artifacts.get(source.step)
            path = self.pointer(source.step)
            if artifact is None:
                return Input(source.step, path, None, "", self.predicted.get(source.step, {}), exists=False)
            return Input(source.step, artifact.path, artifact, artifact.digest, artifact.facts)
        key = (source.path, item.reads)
        if key not in self._files:
            self._files[key] = self._file(source.path, item)
        return self._files[key]

    def _file(self, given: str, item: InputField) -> Input:
        """A path, resolved in a process of its own when it may have to be converted."""
        if given in item.reads.words:
            return resolve_input(given, item)
        path = given
        plain_text = not item.reads.kinds and Path(given).exists()
        if item.reads.resolver is not None and not plain_text:
            job = {"do": "resolve", "resolver": item.reads.resolver, "given": given}
            path = isolate.call(job, what=f"`{given}`", listener=self.listener)["path"]
        plain = replace(item, reads=replace(item.reads, resolver=None))
        return replace(resolve_input(path, plain), given=given)

    def _place_of(self, step: str) -> str:
        artifact = self.artifacts.get(step)
        return str(artifact.path if artifact is not None else self.pointer(step))

    def compare(self, step: Step, who: Identity, inputs: Inputs) -> tuple[str, tuple[Change, ...]]:
        """Why a step has to run, and each part of its key that differs from that of its last output."""
        pointer = self.pointer(step.id)
        if not pointer.is_symlink():
            return "never ran", ()
        old = last_output(pointer)
        if old is None:
            return "its output is gone", ()
        found = tuple(changes(old.manifest, who, inputs, self.artifacts))
        return "; ".join(change.text for change in found) or "its output is gone", found


def _each(value: Input | tuple[Input, ...] | dict[str, Input] | None) -> list[Input]:
    return [item for _, item in named("", value)]


def _empty(item: InputField) -> tuple[Input, ...] | dict[str, Input] | None:
    if item.shape == "one":
        return None
    return () if item.shape == "many" else {}
