"""A verb: its declaration (config), its work (`run`), its price (`estimate`); and how it is carried out."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from langadapt.core import registry
from langadapt.core.artifact import Artifact, Identity, Output, State, named, writing
from langadapt.core.boundary import Panics
from langadapt.core.config import StepConfig, input_fields, runtime_fields, unused_fields
from langadapt.core.errors import ConfigError, DataError, LangadaptError, OutputError
from langadapt.core.host import load as load_of_machine
from langadapt.core.inputs import Input, Inputs, digests, resolve_inputs
from langadapt.core.io import is_text
from langadapt.core.progress import Progress
from langadapt.core.types import Estimate, Table
from langadapt.core.verified import remember_written, verify_content

# A file name may have 255 bytes; an old result that is moved aside gets 25 more (`.old-20260131-235959-1a2b`).
MAX_NAME_BYTES = 230


@dataclass(frozen=True)
class Verb:
    """What `steps/<name>.py` declares: `KIND`, `SCHEMA`, `Config`, `run(config, out)`, `estimate(config, inputs)`.

    `heavy` (`HEAVY = True`): it takes all threads and much memory, so two of its kind do not run side by side unasked.
    `check(config)`, where there is one, refuses settings that cannot go together before any input is looked at.
    """

    name: str
    summary: str
    kind: str
    schema: int
    config: type[StepConfig]
    run: Callable[[Any, Output], Artifact]
    estimate: Callable[[Any, Inputs], Estimate]
    table: Callable[[Artifact], Table] | None
    module: ModuleType
    heavy: bool = False
    check: Callable[[Any], None] | None = None


@dataclass(frozen=True)
class Result:
    """How a step ended: `state` is `new`, `continue` or `up to date`."""

    artifact: Artifact
    state: State
    warnings: tuple[str, ...] = ()


def load(name: str) -> Verb:
    """Load one verb by its public name; ConfigError with the nearest name if there is none."""
    module = registry.load_verb(name)
    return Verb(
        name=name,
        summary=registry.summary("langadapt.steps", name),
        kind=module.KIND,
        schema=module.SCHEMA,
        config=module.Config,
        run=module.run,
        estimate=module.estimate,
        table=getattr(module, "table", None),
        module=module,
        heavy=getattr(module, "HEAVY", False),
        check=getattr(module, "check", None),
    )


def identity(verb: Verb, config: StepConfig, inputs: Inputs) -> Identity:
    """What this run is, apart from paths and from fields that cannot change the result."""
    hidden = {field.name for field in input_fields(verb.config)} | runtime_fields(verb.config) | unused_fields(config)
    plain = config.model_dump(mode="json", exclude=hidden)
    return Identity(verb.kind, verb.name, verb.schema, plain, digests(inputs))


def resolved(verb: Verb, config: StepConfig) -> dict[str, Input | tuple[Input, ...] | dict[str, Input] | None]:
    """The inputs of a step, after what can be refused without them."""
    if verb.check is not None:
        verb.check(config)
    return resolve_inputs(config)


def price(verb: Verb, config: StepConfig, inputs: Inputs) -> Estimate:
    """What the step will cost, and whether the machine is too busy now for that to be true."""
    estimate = verb.estimate(config, inputs)
    return replace(estimate, rows=(*estimate.rows, *busy_rows(estimate)))


def busy_rows(*estimates: Estimate) -> tuple[tuple[str, str], ...]:
    """A line for people when times of a quiet machine are shown on a busy one; what was timed says so itself."""
    quiet = any(estimate.seconds is not None and not estimate.timed for estimate in estimates)
    busy = load_of_machine() if quiet else None
    return () if busy is None else (("busy now", f"{busy}; the time is that of a quiet machine"),)


def check_place(place: Path) -> None:
    """ConfigError if the result should not have this name, whatever is there now."""
    if not is_text(place.name):
        raise ConfigError(f"`{place.name!a}` is not text in UTF-8", where="out", hint="give another `--out`")
    if place.parts[0] == "~" and not Path("~").exists():
        # a folder of this name is one that people later remove with `rm -r ~`
        raise ConfigError(
            f"`{place}` would be a folder named `~`: a shell puts your home there at the beginning of a word only",
            where="out",
            hint="write `--out ~/...` without quotes and with a space, or `$HOME`; if it is meant, `mkdir ./~` first",
        )
    if len(os.fsencode(place.name)) > MAX_NAME_BYTES:
        raise ConfigError(
            f"the name of `{place}` has more than {MAX_NAME_BYTES} bytes", where="out", hint="give a shorter `--out`"
        )


def check_outside(place: Path, inputs: Inputs) -> None:
    """OutputError if the result would lie inside an input folder: the next run would read it as input."""
    for value in inputs.values():
        items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        for item in items:
            if (
                item is not None
                and item.exists
                and item.path.is_dir()
                and item.path.resolve() in place.resolve().parents
            ):
                raise OutputError(f"`{place}` would lie inside the input `{item.given}`", hint="give another `--out`")


def check_content(inputs: Inputs) -> None:
    """DataError if an artifact among the inputs is not as it was written: its numbers would go on into the result."""
    for value in inputs.values():
        items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        for item in items:
            if item is not None and item.artifact is not None:
                verify_content(item.artifact)


def perform(
    verb: Verb,
    config: StepConfig,
    place: Path,
    *,
    progress: Progress | None = None,
    overwrite: bool = False,
    wait: bool = False,
    record: Mapping[str, Any] | None = None,
    expect: str | None = None,
) -> Result:
    """Run one step into `place`: up to date, continue, refuse, or do it.

    With `expect` the fingerprint must be that one: `place` was named after it, and inputs may have changed since.
    """
    progress, place = progress or Progress(), named(place)
    check_place(place)
    inputs = resolved(verb, config)
    check_outside(place, inputs)
    who = identity(verb, config, inputs)
    if expect is not None and who.fingerprint != expect:
        raise DataError("an input changed while the recipe was running", hint="run the same command again")
    given = {"config": config.model_dump(mode="json"), **(record or {})}
    with writing(place, who, inputs=inputs, progress=progress, overwrite=overwrite, wait=wait, record=given) as (
        state,
        target,
    ):
        if isinstance(target, Artifact):
            verify_content(target)
            return Result(target, state)
        check_content(inputs)
        if state == "continue":
            progress.note(f"continuing the unfinished run in `{target.partial}`")
        with Panics():
            artifact = verb.run(config, target)
        if artifact.path != place:
            raise LangadaptError(f"internal: `{verb.name}` did not commit its output")
        remember_written(artifact)
        return Result(artifact, state, tuple(progress.warnings))
