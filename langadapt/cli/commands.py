"""Commands that are no verbs: each is a file of this room that adds itself to an app; the one asked for is read."""

import importlib
from typing import TYPE_CHECKING

from langadapt.core import listing

if TYPE_CHECKING:
    import typer


def register_command(app: "typer.Typer", command: str) -> None:
    """Import the file of one command and let it add itself to the app."""
    stem = command.replace("-", "_")
    if not (listing.folder("langadapt.cli") / f"{stem}.py").is_file():
        stem += "_"  # `list_.py`: the plain name would hide a built-in
    importlib.import_module(f"langadapt.cli.{stem}").register(app)
