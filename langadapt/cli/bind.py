"""A verb's declaration becomes a command; the command collects its settings and has the verb carried out."""

import inspect
import sys
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from langadapt.cli.flags import Binding, bindings
from langadapt.cli.job import OPTIONS as JOB
from langadapt.cli.options import shared, switch
from langadapt.core.config import StepConfig
from langadapt.core.errors import ConfigError
from langadapt.core.sources import Settings, build, merge, print_config
from langadapt.core.verb import Verb, load
from langadapt.core.yaml import load_file

WORKSPACE = Path("langadapt.yaml")
PANEL = "Run"
OWN: dict[str, Any] = {
    "out": Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Folder that will hold the result.", rich_help_panel=PANEL),
    ],
    "config": Annotated[
        str | None,
        typer.Option("--config", "-c", metavar="FILE", help="YAML file with settings.", rich_help_panel=PANEL),
    ],
    "assignments": Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            metavar="KEY=VALUE",
            help="Any setting by its name, also one without a flag (repeatable).",
            rich_help_panel=PANEL,
        ),
    ],
    "dry_run": Annotated[bool, switch("--dry-run", help="Show what this would cost; write nothing.", panel=PANEL)],
    "overwrite": Annotated[
        bool, switch("--overwrite", help="Move an old result aside instead of refusing.", panel=PANEL)
    ],
    "print_config": Annotated[
        bool, switch("--print-config", help="Show every setting and where it came from; do nothing.", panel=PANEL)
    ],
    **JOB,
}
_TEXTS = ("out", "config", "assignments", "time", "stop_before")


def register_verb(app: typer.Typer, name: str) -> None:
    """Import one verb and add it to the app as a command."""
    verb = load(name)
    app.command(name, help=describe(verb), epilog=examples(verb), rich_help_panel="Verbs", no_args_is_help=False)(
        command(verb)
    )


def describe(verb: Verb) -> str:
    """The module docstring of a verb, its paragraphs kept, safe against markup."""
    paragraphs = (verb.module.__doc__ or verb.summary).strip().split("\n\n")
    return escape("\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs))


def examples(verb: Verb) -> str | None:
    """`EXAMPLES` of the verb's module, one line each."""
    lines: tuple[str, ...] = getattr(verb.module, "EXAMPLES", ())
    return escape("\n\n".join(["Examples:", *lines])) if lines else None


def command(verb: Verb) -> Any:
    """The function that Typer calls: its signature is made from the verb's config."""
    bound = bindings(verb.config)

    def run(**given: Any) -> None:
        own = {name: given.pop(name) for name in OWN}
        _run(verb, bound, given, own)

    parameters = [binding.parameter() for binding in bound]
    parameters += [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None if name in _TEXTS else False,
                  annotation=annotation)
        for name, annotation in OWN.items()
    ]  # fmt: skip
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    run.__name__ = verb.name.replace("-", "_")
    return shared(run)


def _run(verb: Verb, bound: list[Binding], given: dict[str, Any], own: dict[str, Any]) -> None:
    from langadapt.cli import execute

    settings = collect(verb.config, bound, given, own)
    if WORKSPACE.is_file() and not _inputs_given(bound, settings):
        execute.in_workspace(verb, settings, own)
        return
    if own["print_config"]:
        execute.show_config(verb, settings, print_config(verb.config, settings, verb.name))
        return
    missing = [item.label for item in bound if item.reads and item.reads.required and item.name not in settings.values]
    if missing:
        usage = " ".join(item.label for item in bound if item.positional)
        wrong = _named_in_place(bound, settings)
        raise ConfigError(
            f"missing input: {wrong.label}; `{settings.values[wrong.name]}` stands in its place"
            if wrong
            else f"missing input: {', '.join(missing)}",
            hint=f"give the inputs: `langadapt {verb.name} {usage} --out DIR`\n"
            f"or, in a folder made by `langadapt init`, run `langadapt {verb.name}` without inputs",
        )
    if not own["out"]:
        raise ConfigError("missing option: --out", hint=f"say where the {verb.kind} should go: `--out DIR`")
    with execute.standard_input(verb.config, settings):
        config = build(verb.config, settings, verb.name)
        place = Path(own["out"])
        if own["sbatch"]:
            execute.sbatch(verb, config)
        elif own["dry_run"]:
            execute.dry_run(verb, config, place, overwrite=own["overwrite"])
        else:
            execute.perform(verb, config, place, own=own, command=sys.argv)


def _named_in_place(bound: list[Binding], settings: Settings) -> Binding | None:
    """The single input in whose place a NAME=PATH stands that belongs to a later one: it was left out."""
    for item in bound:
        given = settings.values.get(item.name)
        if item.positional and item.shape == "one" and isinstance(given, str) and "=" in given:
            return None if Path(given).exists() else item
    return None


def _inputs_given(bound: list[Binding], settings: Settings) -> bool:
    """Is any input there that the verb cannot do without? (Any at all, if it needs none.)"""
    inputs = [item for item in bound if item.reads]
    needed = [item for item in inputs if item.reads and item.reads.required] or inputs
    return any(item.name in settings.values for item in needed)


def collect(config: type[StepConfig], bound: list[Binding], given: dict[str, Any], own: dict[str, Any]) -> Settings:
    """All sources of a command laid over each other: flag > -o > file > default."""
    flags = {}
    for binding in bound:
        value = binding.plain(given[binding.name])
        if value is not None:
            flags[binding.name] = value
    file = load_file(Path(own["config"])) if own["config"] else None
    return merge(config, file=file, assignments=own["assignments"] or (), flags=flags)
