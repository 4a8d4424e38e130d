"""Carrying out a verb from the command line: for real, as a dry run, or in a workspace."""

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from langadapt.cli.job import limited, script
from langadapt.cli.listener import listening
from langadapt.cli.output import screen
from langadapt.core import interrupt
from langadapt.core import verb as verbs
from langadapt.core.artifact import Artifact, Identity, is_artifact, named, open_artifact, output_state
from langadapt.core.config import StepConfig, input_fields
from langadapt.core.errors import ConfigError, DataError, LangadaptError, OutputError, ResourceError
from langadapt.core.io import free_disk_bytes, may_write
from langadapt.core.lock import refuse_if_held
from langadapt.core.progress import Progress
from langadapt.core.sources import Settings, show_value
from langadapt.core.types import Estimate, Table
from langadapt.core.units import show_bytes, show_seconds
from langadapt.core.verb import Verb

# Text that is piped in has to fit on the disk twice; more than this is a file already.
MAX_STDIN_BYTES = 16 * 1024**3


def perform(verb: Verb, config: StepConfig, place: Path, *, own: Mapping[str, Any], command: Sequence[str]) -> None:
    """Run the verb and show its result; `own` are the options that every verb has."""
    began = time.monotonic()
    screen.say(f"{verb.name}: {', '.join(_given(config)) or 'no inputs'} -> {place} (seed {config.seed})")
    for key, value in config.model_dump(mode="json").items():
        screen.detail(f"  {key}: {show_value(value)}")
    overwrite, record = own["overwrite"], {"command": list(command)}
    limit = limited(own["time"], own["stop_before"])
    with interrupt.signals_as_flag(), listening(screen, verb.name) as listener, limit:
        result = verbs.perform(verb, config, place, progress=Progress(listener), overwrite=overwrite, record=record)
    if result.state == "up to date":
        screen.say(f"up to date: `{place}`")
    else:
        screen.say(f"done in {show_seconds(time.monotonic() - began)}: {verb.kind} in `{place}`")
    show_result(verb, result.artifact, result.state, result.warnings)


def _given(config: StepConfig) -> list[str]:
    found = []
    for item in input_fields(type(config)):
        value = getattr(config, item.name)
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            found += [f"{name}={path}" for name, path in value.items()]
        elif value:
            found += list(value[:3]) + ([f"and {len(value) - 3} more"] if len(value) > 3 else [])
    return found


def show_result(verb: Verb, artifact: Artifact, state: str, warnings: Sequence[str] = ()) -> None:
    """The artifact: a table on a terminal, its path in a pipe, an object with --json."""
    tables: list[Table] = []
    if verb.table is not None and screen.human:
        table = verb.table(artifact)
        tables = list(table) if isinstance(table, list | tuple) else [table]
    data = {
        "schema": "langadapt/result/1",
        "verb": verb.name,
        "kind": artifact.kind,
        "path": str(artifact.path),
        "state": state,
        "fingerprint": artifact.fingerprint,
        "digest": artifact.digest,
        "facts": artifact.facts,
        "warnings": list(warnings),
    }
    screen.emit(data, path=artifact.path, tables=tables, lines=() if tables else (str(artifact.path),))


def show_config(verb: Verb, settings: Settings, text: str) -> None:
    """--print-config: the settings as YAML, or with --json as an object with the origin of each."""
    from langadapt.core.yaml import load_bytes

    values = load_bytes(text.encode(), "--print-config").values
    origins = {key: settings.origin(key) for key in values}
    data = {"schema": "langadapt/config/1", "verb": verb.name, "config": values, "origins": origins}
    screen.emit(data, lines=text.splitlines())


def in_workspace(verb: Verb, settings: Settings, own: dict[str, Any]) -> None:
    """A verb without inputs in a folder with a recipe: run the recipe up to the step that uses the verb."""
    from langadapt.recipe.workspace import VerbDone, run_verb

    for name in ("out", "overwrite", "print_config", "sbatch"):
        if own[name]:
            option = "--" + name.replace("_", "-")
            raise ConfigError(
                f"{option} needs inputs; without inputs the recipe `langadapt.yaml` decides",
                hint="give the inputs of the verb, or leave the option out; `langadapt status` shows the steps",
            )
    overrides = dict(settings.values)
    lang = overrides.pop("lang", None)
    with interrupt.signals_as_flag(), listening(screen) as listener, limited(own["time"], own["stop_before"]):
        result = run_verb(verb.name, overrides, lang=lang, dry_run=own["dry_run"], listener=listener)
    if isinstance(result, VerbDone):
        show_result(verb, result.artifact, result.state, result.warnings)
    else:
        screen.emit({**result.data(), "verb": verb.name}, tables=[result.table()])


def dry_run(verb: Verb, config: StepConfig, place: Path, *, overwrite: bool) -> None:
    """Show the price and what the run would do, and end as the run would end; writes nothing."""
    place = named(place)
    verbs.check_place(place)
    inputs = verbs.resolved(verb, config)
    identity = verbs.identity(verb, config, inputs)
    refusal: LangadaptError | None = None
    state = "refused"
    try:
        verbs.check_outside(place, inputs)
        state = _expected_state(place, identity, overwrite)
    except (OutputError, DataError) as error:
        refusal = error
    estimate = Estimate() if state == "up to date" else verbs.price(verb, config, inputs)
    if refusal is None and estimate.problems:
        refusal = DataError("; ".join(estimate.problems), hint="change the input or the settings")
    if refusal is None and (estimate.disk_bytes or 0) > free_disk_bytes(place.parent):
        refusal = ResourceError(
            f"needs {show_bytes(estimate.disk_bytes or 0)} of disk, {_free(place)} are free",
            hint="free some space, or give an `--out` on another disk",
        )
    _show_estimate(verb, config, place, state, estimate, refusal)
    if refusal is not None:
        raise refusal


def sbatch(verb: Verb, config: StepConfig) -> None:
    """--sbatch: the Slurm script of this command."""
    text = script(verb.estimate(config, verbs.resolved(verb, config)), f"langadapt-{verb.name}")
    screen.emit({"schema": "langadapt/sbatch/1", "script": text}, lines=text.splitlines())


def _free(place: Path) -> str:
    return show_bytes(free_disk_bytes(place.parent))


def _expected_state(place: Path, identity: Identity, overwrite: bool) -> str:
    """What `writing` would find, without touching anything."""
    parent = place.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise OutputError(f"cannot create `{place.parent}`: `{parent}` is not a folder")
    if not may_write(parent):
        if output_state(place, identity) == "up to date":
            return "up to date"
        raise OutputError(f"cannot write into `{parent}`: permission denied")
    refuse_if_held(place.parent / f"{place.name}.lock")
    if overwrite and (not place.exists() or is_artifact(place)):
        same = place.exists() and open_artifact(place).fingerprint == identity.fingerprint
        return "up to date" if same else "new"
    return output_state(place, identity)


_STATES = {
    "new": "will be made",
    "continue": "an unfinished run is there; it will go on",
    "up to date": "up to date; nothing to do",
    "refused": "refused",
}


def _show_estimate(
    verb: Verb, config: StepConfig, place: Path, state: str, estimate: Estimate, refusal: LangadaptError | None
) -> None:
    rows = list(estimate.rows)
    if state != "up to date":
        rows.append(("time", _known(estimate.seconds, show_seconds)))
        rows.append(("memory", _known(estimate.memory_bytes, show_bytes)))
        rows.append(("disk", f"{_known(estimate.disk_bytes, show_bytes)} ({_free(place)} free)"))
    rows.append((f"{verb.kind} in {place}", _STATES[state]))
    data = {
        "schema": "langadapt/dry-run/1",
        "verb": verb.name,
        "would_run": refusal is None,
        "state": state,
        "path": str(place),
        "seconds": estimate.seconds,
        "memory_bytes": estimate.memory_bytes,
        "disk_bytes": estimate.disk_bytes,
        "rows": dict(estimate.rows),
        "facts": estimate.facts,
        "problems": [refusal.message] if refusal else [],
        "config": config.model_dump(mode="json"),
    }
    screen.emit(data, tables=[Table(f"{verb.name}: what it would cost", ("", ""), tuple(rows))])


def _known(value: float | None, show: Any) -> str:
    return "not known before the inputs exist" if value is None else str(show(value))


@contextmanager
def standard_input(config: type[StepConfig], settings: Settings) -> Iterator[None]:
    """Replace `-` among text inputs by a temporary file that holds what comes from stdin."""
    places = []
    for item in input_fields(config):
        value = settings.values.get(item.name)
        if item.reads.plain and not item.reads.kinds:
            places += [item.name] * ([value] if isinstance(value, str) else list(value or ())).count("-")
    if not places:
        yield
        return
    if len(places) > 1:
        raise ConfigError("`-` (stdin) is given twice; it can be read once")
    with stdin_as_file() as place:
        path = str(place)
        value = settings.values[places[0]]
        settings.values[places[0]] = path if value == "-" else [path if item == "-" else item for item in value]
        yield


@contextmanager
def stdin_as_file() -> Iterator[Path]:
    """What comes from stdin as a temporary file."""
    with tempfile.TemporaryDirectory(prefix="langadapt-stdin-") as folder:
        yield _copy_stdin(Path(folder), sys.stdin.buffer)


def _copy_stdin(folder: Path, stream: BinaryIO) -> Path:
    """Copy stdin into a file whose name tells the format: gzip by its magic number, JSON lines by the first letter."""
    if stream.isatty():
        screen.say("reading text from the terminal; end with Ctrl-D")
    head = stream.read(1024 * 1024)
    if not head:
        raise DataError("stdin is empty", where="input `-`")
    compressed = head[:2] == b"\x1f\x8b"
    lines = not compressed and head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"
    path = folder / ("stdin.txt.gz" if compressed else "stdin.jsonl" if lines else "stdin.txt")
    size = 0
    with path.open("wb") as file:
        while head:
            size += len(head)
            if size > MAX_STDIN_BYTES:
                raise DataError(f"more than {show_bytes(MAX_STDIN_BYTES)} on stdin", hint="save it to a file first")
            file.write(head)
            head = stream.read(1024 * 1024)
    return path
