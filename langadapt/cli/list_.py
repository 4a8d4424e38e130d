"""List what there is: verbs, methods, languages, recipes.

With a NAME only what contains it. In a pipe: one row a line, tab-separated, no headings; without WHAT the first column
is the kind.
"""

from pathlib import Path
from typing import Annotated

import typer

from langadapt.cli.options import shared
from langadapt.cli.output import screen
from langadapt.core import listing
from langadapt.core.errors import ConfigError
from langadapt.core.types import Table

KINDS = ("verbs", "methods", "langs", "recipes")
# Nobody wants 250 languages between the methods and the recipes.
_BY_DEFAULT = ("verbs", "methods", "recipes")
_COLUMNS = {
    "verbs": ("name", "what it does"),
    "methods": ("name", "for", "what it does"),
    "langs": ("code", "language"),
    "recipes": ("name", "what it does"),
}
_KEYS = {
    "verbs": ("name", "summary"),
    "methods": ("name", "room", "summary"),
    "langs": ("code", "name"),
    "recipes": ("name", "summary"),
}


def register(app: typer.Typer) -> None:
    """Add `langadapt list`."""
    app.command("list", help=__doc__, epilog=EXAMPLES, rich_help_panel="Commands")(shared(list_things))


EXAMPLES = "Examples:\n\nlangadapt list methods\n\nlangadapt list langs sami"


def list_things(
    what: Annotated[
        str | None,
        typer.Argument(
            help="verbs, methods, langs or recipes; all but langs if left out.",
            metavar="[WHAT]",
            autocompletion=lambda: list(KINDS),
        ),
    ] = None,
    name: Annotated[str | None, typer.Argument(help="Only what contains this.", metavar="[NAME]")] = None,
) -> None:
    """Show names and descriptions without importing what they name."""
    if what is not None and what not in KINDS:
        from langadapt.core.config import nearest

        near = nearest(what, list(KINDS))
        raise ConfigError(f"cannot list `{what}`", hint=f"did you mean `langadapt list {near or KINDS[0]}`?")
    found = {kind: _matching(find(kind), name) for kind in ((what,) if what is not None else _BY_DEFAULT)}
    if what is not None and name is not None and not found[what]:
        raise _nothing(what, name)
    mixed = what is None and not screen.human
    tables = [
        Table(
            kind,
            (("kind",) if mixed else ()) + _COLUMNS[kind],
            tuple((kind, *row) if mixed else row for row in rows),
        )
        for kind, rows in found.items()
        if rows
    ]
    if what == "methods" and name is not None and len(found[what]) == 1:
        screen.say(f"its options: langadapt show method {found[what][0][0]}")
    data = {kind: [dict(zip(_KEYS[kind], row, strict=True)) for row in rows] for kind, rows in found.items()}
    screen.emit({"schema": "langadapt/list/1", **data}, tables=tables)


def _matching(rows: list[tuple[str, ...]], name: str | None) -> list[tuple[str, ...]]:
    """Rows of which a column holds `name`, in any case; one that is called so comes alone."""
    if name is None:
        return rows
    wanted = name.strip().casefold()
    exact = [row for row in rows if row[0].casefold() == wanted]
    return exact or [row for row in rows if any(wanted in cell.casefold() for cell in row)]


def _nothing(what: str, name: str) -> ConfigError:
    if what == "langs":
        from langadapt.core.languages import display_name, normalise

        try:
            code = normalise(name)
        except ConfigError as error:
            return ConfigError(f"no language here is called `{name}`", hint=error.hint)
        return ConfigError(
            f"`{name}` is a valid code ({display_name(code)}), it has only no name here", hint=f"use it: --lang {code}"
        )
    return ConfigError(f"none of the {what} contains `{name}`", hint=f"see all: langadapt list {what}")


def find(kind: str) -> list[tuple[str, ...]]:
    """The rows of one kind, in the order of its keys."""
    if kind == "verbs":
        return [(name, listing.summary("langadapt.steps", name)) for name in listing.verb_names()]
    if kind == "langs":
        from langadapt.core.languages import known_languages

        return [(code, name) for code, name in known_languages()]
    if kind == "recipes":
        return [(str(path), recipe_summary(path)) for path in recipe_files()]
    from langadapt.core.registry import method_names

    return [
        (name, room, listing.summary(f"langadapt.{room}", name))
        for room in listing.method_rooms()
        for name in method_names(room)
    ]


def recipe_files() -> list[Path]:
    """Recipes of this folder, and those that come with a source checkout of langadapt."""
    shipped = listing.folder("langadapt").parent / "recipes"
    folders = list(dict.fromkeys([Path("recipes").resolve(), shipped.resolve()]))
    own = [Path("langadapt.yaml")] if Path("langadapt.yaml").is_file() else []
    return own + [_short(path) for folder in folders for path in sorted(folder.glob("*.yaml"))]


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def recipe_summary(path: Path) -> str:
    """The first comment line of a recipe."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line, _ in zip(file, range(20), strict=False):
            if line.startswith("#") and line.strip("# \n"):
                return line.strip("# \n").rstrip(".")
    return ""
