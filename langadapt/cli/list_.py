"""List what there is: verbs, methods, recipes.

In a pipe the rows are separated by tabs.
"""

from pathlib import Path
from typing import Annotated

import typer

from langadapt.cli.options import shared
from langadapt.cli.output import screen
from langadapt.core import listing
from langadapt.core.errors import ConfigError
from langadapt.core.types import Table

KINDS = ("verbs", "methods", "recipes")


def register(app: typer.Typer) -> None:
    """Add `langadapt list`."""
    app.command("list", help=__doc__, rich_help_panel="Commands")(shared(list_things))


def list_things(
    what: Annotated[
        str | None,
        typer.Argument(
            help="verbs, methods or recipes; all of them if left out.",
            metavar="[WHAT]",
            autocompletion=lambda: list(KINDS),
        ),
    ] = None,
) -> None:
    """Show names and descriptions without importing what they name."""
    if what is not None and what not in KINDS:
        from langadapt.core.config import nearest

        near = nearest(what, list(KINDS))
        raise ConfigError(f"cannot list `{what}`", hint=f"did you mean `langadapt list {near or KINDS[0]}`?")
    found = {kind: _find(kind) for kind in KINDS if what in (None, kind)}
    tables = [
        Table(kind, ("name", *(["for"] if kind == "methods" else []), "what it does"), tuple(rows))
        for kind, rows in found.items()
        if rows
    ]
    data = {kind: [_entry(kind, row) for row in rows] for kind, rows in found.items()}
    screen.emit({"schema": "langadapt/list/1", **data}, tables=tables)


def _find(kind: str) -> list[tuple[str, ...]]:
    if kind == "verbs":
        return [(name, listing.summary("langadapt.steps", name)) for name in listing.verb_names()]
    if kind == "recipes":
        return [(str(path), recipe_summary(path)) for path in recipe_files()]
    from langadapt.core.registry import method_names

    return [
        (name, room, listing.summary(f"langadapt.{room}", name))
        for room in listing.method_rooms()
        for name in method_names(room)
    ]


def _entry(kind: str, row: tuple[str, ...]) -> dict[str, str]:
    keys = ("name", "room", "summary") if kind == "methods" else ("name", "summary")
    return dict(zip(keys, row, strict=True))


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
