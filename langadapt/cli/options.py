"""Options that every command has, declared once: `--json --table --progress -q -v --debug --no-color`."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any, get_args

import typer

from langadapt.cli.output import ProgressMode, screen

PANEL = "Output"


def switch(*names: str, help: str, panel: str, **more: Any) -> Any:
    """A flag without a value."""
    return typer.Option(*names, help=help, metavar="", show_default=False, rich_help_panel=panel, **more)


def action(known: Collection[str]) -> Any:
    """The argument of a command that does one of several things."""
    return typer.Argument(metavar="ACTION", help=f"{', '.join(known)}.", autocompletion=lambda: list(known))


def check_action(command: str, given: str, known: Collection[str]) -> None:
    """ConfigError with the nearest one for an action that the command does not have."""
    from langadapt.core.config import nearest
    from langadapt.core.errors import ConfigError

    if given not in known:
        near = nearest(given, list(known)) or next(iter(known))
        raise ConfigError(f"`{command} {given}` is not known", hint=f"did you mean `langadapt {command} {near}`?")


SHARED: dict[str, Any] = {
    "json": Annotated[bool, switch("--json", help="Print one JSON object on stdout.", panel=PANEL)],
    "table": Annotated[bool, switch("--table", help="Print tables in a pipe too, as for a person.", panel=PANEL)],
    "progress": Annotated[
        ProgressMode,
        typer.Option(
            "--progress",
            metavar="|".join(get_args(ProgressMode)),
            help="How stderr shows progress: auto is bars on a terminal, else a line every 30 s; json is one object "
            "a line (docs/events.md).",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ],
    "quiet": Annotated[bool, switch("--quiet", "-q", help="No progress and no notes.", panel=PANEL)],
    "verbose": Annotated[int, switch("--verbose", "-v", count=True, help="Say more on stderr.", panel=PANEL)],
    "debug": Annotated[bool, switch("--debug", help="Show the traceback of an error.", panel=PANEL)],
    "no_color": Annotated[bool, switch("--no-color", help="No colours; `NO_COLOR` does the same.", panel=PANEL)],
}

DEFAULTS: dict[str, Any] = {"verbose": 0, "progress": "auto"}


def shared(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the shared options; its own body sees their effect in `output.screen` only."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS.get(name, False), annotation=kind)
        for name, kind in SHARED.items()
    ]

    @functools.wraps(function)
    def command(**given: Any) -> None:
        screen.json = given.pop("json")
        screen.tables = given.pop("table")
        screen.progress = given.pop("progress")
        screen.quiet = given.pop("quiet")
        screen.verbose = given.pop("verbose")
        screen.debug = given.pop("debug")
        screen.color = not given.pop("no_color")
        function(**given)

    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + extra
    command.__dict__["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__dict__.pop("__wrapped__", None)
    return command
