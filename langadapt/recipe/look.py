"""What state a step is in, and why: up to date, unfinished, or to be run because something changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from langadapt.core import verb as verbs
from langadapt.core.artifact import Artifact, Identity, is_artifact, open_artifact, partial_folder
from langadapt.core.config import InputField, Reads, StepConfig, input_fields
from langadapt.core.inputs import Input, Inputs, resolve_input
from langadapt.core.progress import Listener, ignore
from langadapt.core.types import Estimate
from langadapt.recipe import isolate
from langadapt.recipe.graph import Step
from langadapt.recipe.sources import FromStep, Source

State = Literal["up to date", "continue", "would run"]
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

    @property
    def standing(self) -> Literal["done", "partial", "stale", "missing"]:
        """The state in the words of `langadapt status`."""
        if self.state == "up to date":
            return "done"
        if self.state == "continue":
            return "partial"
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
            return Look(step, "would run", self.reason(step, who, inputs), config, inputs, before)
        place = self.folder / "steps" / f"{step.id}-{who.fingerprint[:_SHOWN]}"
        artifact = open_artifact(place) if is_artifact(place) else None
        if artifact is not None:
            current = self.pointer(step.id).resolve() == place.resolve()
            state: State = "up to date"
            reason = "nothing changed" if current else "made earlier with these settings"
        elif (partial_folder(place) / "partial.json").is_file():
            state, reason = "continue", "an earlier run was interrupted"
        else:
            state, reason = "would run", self.reason(step, who, inputs)
        return Look(step, state, reason, config, inputs, before, who.fingerprint, place, artifact)

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
        path = given
        if item.reads.resolver is not None:
            job = {"do": "resolve", "resolver": item.reads.resolver, "given": given}
            path = isolate.call(job, what=f"`{given}`", listener=self.listener)["path"]
        plain = replace(item, reads=replace(item.reads, resolver=None))
        return replace(resolve_input(path, plain), given=given)

    def _place_of(self, step: str) -> str:
        artifact = self.artifacts.get(step)
        return str(artifact.path if artifact is not None else self.pointer(step))

    def reason(self, step: Step, who: Identity, inputs: Inputs) -> str:
        """Why a step has to run: compared with the output that the pointer of the step shows to."""
        pointer = self.pointer(step.id)
        if not pointer.is_symlink():
            return "never ran"
        if not is_artifact(pointer):
            return "its output is gone"
        old = open_artifact(pointer).manifest
        reasons = []
        if old["verb"] != who.verb:
            reasons.append(f"verb changed {old['verb']} -> {who.verb}")
        elif old["schema"] != who.schema:
            reasons.append(f"`{who.verb}` itself changed (version {old['schema']} -> {who.schema})")
        before, now = flat(old["config"]), flat(who.config)
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                reasons.append(f"config `{key}` changed {_shown(before.get(key))} -> {_shown(now.get(key))}")
        reasons += self._changed_inputs(step, old["inputs"], inputs)
        return "; ".join(reasons) or "its output is gone"

    def _changed_inputs(self, step: Step, old: Mapping[str, Any], inputs: Inputs) -> list[str]:
        found = []
        before = flat(old)
        now = {key: item for name, value in inputs.items() for key, item in _named(name, value)}
        for key in sorted(before.keys() | now.keys()):
            item = now.get(key)
            if item is None:
                found.append(f"input `{key}` is no longer there")
            elif not item.exists:
                found.append(f"input `{key}` will be made anew (step {item.given})")
            elif before.get(key) != item.digest:
                what = "is new" if key not in before else "changed"
                source = f"step {item.given}" if item.given in self.artifacts else item.given
                found.append(f"input `{key}` {what} ({source})")
        return found


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested plain data as {dotted key: scalar}."""
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    found: dict[str, Any] = {}
    for key, item in parts:
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(item, Mapping | list | tuple):
            found |= flat(item, name)
        else:
            found[name] = item
    return found


def _each(value: Input | tuple[Input, ...] | dict[str, Input] | None) -> list[Input]:
    return [item for _, item in _named("", value)]


def _named(name: str, value: Input | tuple[Input, ...] | dict[str, Input] | None) -> list[tuple[str, Input]]:
    if value is None:
        return []
    if isinstance(value, Input):
        return [(name, value)]
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return [(f"{name}.{key}", item) for key, item in pairs]


def _empty(item: InputField) -> tuple[Input, ...] | dict[str, Input] | None:
    if item.shape == "one":
        return None
    return () if item.shape == "many" else {}


def _shown(value: object) -> str:
    return "default" if value is None else str(value)
