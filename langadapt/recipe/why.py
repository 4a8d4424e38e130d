"""Which part of a step's key is another than that of the output that is there: config, inputs, or the verb itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from langadapt.core.artifact import Artifact, Identity, is_artifact, open_artifact
from langadapt.core.difference import flat
from langadapt.core.errors import DataError
from langadapt.core.inputs import Input, Inputs
from langadapt.core.io import read_json_object

Part = Literal["verb", "version", "config", "input"]


@dataclass(frozen=True)
class Change:
    """One part of the key that differs; `text` says it in a sentence, `old` and `new` are values or digests."""

    part: Part
    name: str
    old: Any
    new: Any
    text: str


def changes(old: Mapping[str, Any], who: Identity, inputs: Inputs, made_by: Mapping[str, Artifact]) -> list[Change]:
    """Compare the manifest `old` with what a step is now; `made_by` maps ids of steps to what they have made."""
    found: list[Change] = []
    if old["verb"] != who.verb:
        text = f"verb changed {old['verb']} -> {who.verb}"
        found.append(Change("verb", who.verb, old["verb"], who.verb, text))
    elif old["schema"] != who.schema:
        text = f"`{who.verb}` itself changed (version {old['schema']} -> {who.schema})"
        found.append(Change("version", who.verb, old["schema"], who.schema, text))
    before, now = flat(old["config"]), flat(who.config)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            shown = f"{_shown(before.get(key))} -> {_shown(now.get(key))}"
            found.append(Change("config", key, before.get(key), now.get(key), f"config `{key}` changed {shown}"))
    return found + _changed_inputs(old["inputs"], inputs, made_by)


def _changed_inputs(old: Mapping[str, Any], inputs: Inputs, made_by: Mapping[str, Artifact]) -> list[Change]:
    found = []
    before = flat(old)
    now = {key: item for name, value in inputs.items() for key, item in named(name, value)}
    for key in sorted(before.keys() | now.keys()):
        item = now.get(key)
        if item is None:
            found.append(Change("input", key, before[key], None, f"input `{key}` is no longer there"))
        elif not item.exists:
            text = f"input `{key}` will be made anew (step {item.given})"
            found.append(Change("input", key, before.get(key), None, text))
        elif before.get(key) != item.digest:
            what = "is new" if key not in before else "changed"
            source = f"step {item.given}" if item.given in made_by else item.given
            found.append(Change("input", key, before.get(key), item.digest, f"input `{key}` {what} ({source})"))
    return found


def other_versions(artifact: Artifact) -> list[tuple[str, str, str]]:
    """(package, then, now) of the libraries that are not those which made `artifact`; they are not part of its key."""
    try:
        record = read_json_object(artifact.path / "run.json")
    except DataError:
        return []
    found = []
    versions = record.get("versions")
    for name, then in (versions if isinstance(versions, dict) else {}).items():
        try:
            now = version(name)
        except PackageNotFoundError:
            now = "none"
        if then is not None and str(then) != now:
            found.append((name, str(then), now))
    return found


def last_output(pointer: Path) -> Artifact | None:
    """What a step made last: the artifact that its link shows to, if it is still there."""
    try:
        return open_artifact(pointer.resolve()) if pointer.is_symlink() and is_artifact(pointer) else None
    except DataError:
        return None


def named(name: str, value: Input | tuple[Input, ...] | dict[str, Input] | None) -> list[tuple[str, Input]]:
    """The inputs of one field with dotted names."""
    if value is None:
        return []
    if isinstance(value, Input):
        return [(name, value)]
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return [(f"{name}.{key}", item) for key, item in pairs]


def _shown(value: object) -> str:
    return "default" if value is None else str(value)
