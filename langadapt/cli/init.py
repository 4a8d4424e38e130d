"""Make a workspace: a folder with a commented recipe for your model, language and text."""

from pathlib import Path
from typing import Annotated

import typer

from langadapt.cli.options import shared
from langadapt.cli.output import screen
from langadapt.core.errors import ConfigError

PANEL = "Workspace"


def register(app: typer.Typer) -> None:
    """Add `init` to the app."""
    app.command("init", help=__doc__, epilog=EXAMPLE, rich_help_panel="Commands")(shared(init))


EXAMPLE = "Example:\n\nlangadapt init greek --lang el --text el.txt --model ./smollm2 --source-text en.txt"


def init(
    lang: Annotated[str | None, typer.Option("--lang", help="Language to adapt to.", rich_help_panel=PANEL)] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="FILE", help="Text in that language (repeatable).", rich_help_panel=PANEL),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model: a folder, a .gguf file or a hub id.", rich_help_panel=PANEL),
    ] = None,
    source_lang: Annotated[
        str, typer.Option("--source-lang", help="Language that the model knows.", rich_help_panel=PANEL)
    ] = "en",
    source_text: Annotated[
        list[str] | None,
        typer.Option(
            "--source-text",
            metavar="FILE",
            help="Text in that language, mixed in against forgetting (repeatable).",
            rich_help_panel=PANEL,
        ),
    ] = None,
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder; made if needed.")] = Path(),
) -> None:
    """Check what was given, write the recipe, say what to do next."""
    from langadapt.recipe.scaffold import Wish, write_workspace

    missing = [flag for flag, value in (("--lang", lang), ("--text", text), ("--model", model)) if not value]
    if lang is None or model is None or missing:
        raise ConfigError(f"missing option: {', '.join(missing)}", hint=EXAMPLE.rpartition("\n")[2])
    wish = Wish(lang, tuple(text or ()), model, source_lang, tuple(source_text or ()))
    recipe = write_workspace(folder, wish)
    if not wish.source_text:
        screen.warn("no --source-text: nothing will guard what the model knows, nor measure what it forgets")
    change = "" if folder == Path() else f"cd {folder} && "
    screen.say(f"next: {change}langadapt run --dry-run")
    screen.emit(
        {"schema": "langadapt/init/1", "path": str(folder), "recipe": str(recipe)},
        path=folder,
        lines=(f"wrote {recipe}",),
    )
