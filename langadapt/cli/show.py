"""Show what an artifact is, or what a method takes.

`langadapt show FOLDER` and `langadapt show method NAME`; for a workspace or the folder of a run it is `status`.
With --token the rows of a model are explained, with --verify every file is compared with its digest.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from langadapt.cli.flags import show_default
from langadapt.cli.options import shared, switch
from langadapt.cli.output import screen
from langadapt.core.artifact import Artifact, is_artifact, open_artifact, partial_folder
from langadapt.core.config import nearest
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.io import read_json_object
from langadapt.core.listing import method_rooms, verb_names
from langadapt.core.registry import Method, load_method, method_names
from langadapt.core.sources import show_value
from langadapt.core.types import Table
from langadapt.core.units import show_bytes, show_seconds

# Values that say nothing; `false` and 0 say something.
_EMPTY: tuple[Any, ...] = (None, "", [], {})


def register(app: typer.Typer) -> None:
    """Add `langadapt show`."""
    app.command("show", help=__doc__, rich_help_panel="Commands")(shared(show))


def show(
    what: Annotated[str, typer.Argument(help="Folder of an artifact, or the word `method`.", metavar="WHAT")],
    name: Annotated[str | None, typer.Argument(help="Name of the method.", metavar="[NAME]")] = None,
    verify: Annotated[
        bool, switch("--verify", help="Compare every file with its SHA-256; exit 3 if one differs.", panel="Input")
    ] = False,
    token: Annotated[
        list[str] | None,
        typer.Option(
            "--token",
            help="Say how the row of this token was made, in a model of init-embeddings: its text, string or id. "
            "(repeatable)",
            metavar="TEXT",
            show_default=False,
            rich_help_panel="Input",
        ),
    ] = None,
) -> None:
    """Describe an artifact or a method."""
    if token:
        if name is not None or verify:
            raise ConfigError(
                "`--token` goes with one folder and nothing else", hint="langadapt show MODEL --token TEXT"
            )
        from langadapt.cli.show_token import show_tokens

        show_tokens(Path(what), token)
    elif what == "method" and name is not None:
        show_method(name)
    elif name is not None:
        raise ConfigError(f"`langadapt show {what} {name}`: expected one folder, or `method NAME`")
    else:
        show_artifact(Path(what), verify=verify)


def show_artifact(path: Path, *, verify: bool) -> None:
    """Manifest, origin and files of an artifact; DataError (exit 3) if it is incomplete or was changed."""
    if not path.exists() and not partial_folder(path).is_dir():
        known = any(str(path) in method_names(room) for room in method_rooms())
        raise DataError(
            f"`{path}` does not exist", hint=f"for the method: `langadapt show method {path}`" if known else None
        )
    if not is_artifact(path) and any((path / name).is_file() for name in ("langadapt.yaml", "run.jsonl")):
        from langadapt.cli.status import show_status

        show_status(path)  # a workspace, or the folder of a run
        return
    artifact = open_artifact(path)
    if verify:
        artifact.verify()
    run = path / "run.json"
    record = read_json_object(run) if run.is_file() else {}
    manifest = artifact.manifest
    data = {
        "schema": "langadapt/artifact/1",
        "path": str(path),
        "digest": artifact.digest,
        "verified": verify,
        "manifest": manifest,
        "run": record,
    }
    screen.emit(data, tables=_artifact_tables(artifact, record, verify=verify))


def _artifact_tables(artifact: Artifact, record: dict[str, Any], *, verify: bool) -> list[Table]:
    manifest, files = artifact.manifest, artifact.manifest["files"]
    size = sum(entry["bytes"] for entry in files.values())
    given = record.get("config", {})
    rows = [
        ("kind", artifact.kind),
        ("made by", f"{manifest['verb']} (schema {manifest.get('schema', '?')})"),
        ("fingerprint", artifact.fingerprint),
        ("digest", artifact.digest),
        ("files", f"{len(files)}, {show_bytes(size)}" + (", all as they were written" if verify else "")),
    ]
    if "time" in record:
        rows.append(("finished", f"{record['time']} on {record.get('host', '?')}"))
    if "seconds" in record:
        held = {"": record.get("peak_memory_bytes"), " of the GPU": record.get("peak_device_memory_bytes")}
        words = [f"{show_bytes(memory)}{where} at most" for where, memory in held.items() if memory]
        rows.append(("took", ", ".join([show_seconds(record["seconds"]), *words])))
    rows += [
        (f"input {key}", f"{_short(given.get(key))} ({_short(value)})")
        for key, value in manifest["inputs"].items()
        if value not in _EMPTY
    ]
    tables = [Table(str(artifact.path), ("", ""), tuple(rows))]
    for title, key, values in (("settings", "setting", manifest["config"]), ("facts", "fact", artifact.facts)):
        found = tuple((name, _short(value)) for name, value in _flat(values) if value not in _EMPTY)
        if found:
            tables.append(Table(title, ("", ""), found, key=key))
    return [*tables, *_own_table(artifact)]


def _own_table(artifact: Artifact) -> list[Table]:
    """What the verb itself shows of its result, if this version of langadapt has the verb as it was then."""
    if artifact.manifest["verb"] not in verb_names():
        return []
    from langadapt.core.verb import load

    verb = load(str(artifact.manifest["verb"]))
    if verb.table is None or (verb.kind, verb.schema) != (artifact.kind, artifact.manifest.get("schema")):
        return []
    table = verb.table(artifact)
    return list(table) if isinstance(table, list | tuple) else [table]


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _short(value: Any, limit: int = 100) -> str:
    if isinstance(value, str) and len(value) == 64 and all(letter in "0123456789abcdef" for letter in value):
        return value[:16]
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return ", ".join(_short(item) for item in value[:5]) + (f" and {len(value) - 5} more" if len(value) > 5 else "")
    text = value if isinstance(value, str) else f"{value:,}" if type(value) is int else show_value(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def show_method(name: str) -> None:
    """Description, options and source of a method; ConfigError with the nearest name if there is none."""
    where = [(room, known) for room in method_rooms() for known in method_names(room)]
    methods = [(room, load_method(room, known)) for room, known in where if known == name]
    if not methods:
        near = nearest(name, [known for _, known in where])
        hint = f"did you mean `langadapt show method {near}`?" if near else "see `langadapt list methods`"
        raise ConfigError(f"unknown method `{name}`", hint=hint)
    data = {"schema": "langadapt/method/1", "name": name, "methods": [_method_data(*item) for item in methods]}
    screen.emit(data, tables=[_method_table(*item) for item in methods])


def _method_data(room: str, method: Method) -> dict[str, Any]:
    options = {
        key: ({"required": True} if field.is_required() else {"default": field.get_default(call_default_factory=True)})
        | {"help": field.description or ""}
        for key, field in method.options.model_fields.items()
    }
    facts = {"needs": list(method.facts.needs), "cite": method.facts.cite}
    return {"room": room, "summary": method.summary, "options": options, **facts}


def _method_table(room: str, method: Method) -> Table:
    rows = [("what it does", method.summary), ("room", room)]
    text = (method.function.__doc__ or "").strip()
    if text:
        rows.append(("how", " ".join(text.split())))
    if method.facts.needs:
        rows.append(("needs", ", ".join(method.facts.needs)))
    if method.facts.cite:
        rows.append(("source", method.facts.cite))
    for key, field in method.options.model_fields.items():
        default = None if field.is_required() else show_default(field.get_default(call_default_factory=True))
        ending = "[required]" if default is None else f"[default: {default}]"
        rows.append((f"option {key}", f"{field.description or ''} {ending}".strip()))
    return Table(method.name, ("", ""), tuple(rows))
