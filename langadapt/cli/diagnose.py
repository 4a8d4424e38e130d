"""Is a model worth adapting to a language, and how? Several models are compared. Writes nothing.

Looks at the tokenizer, the letters and a few passages, says what to do and why, what the text and a time budget buy,
and which commands come next.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from langadapt.cli.diagnosis import tables
from langadapt.cli.listener import listening
from langadapt.cli.options import shared, switch
from langadapt.cli.output import screen
from langadapt.core import interrupt

PANEL = "Input"
EXAMPLES = (
    "Examples:\n\nlangadapt diagnose ./model --lang hu --text hu.txt\n\n"
    "langadapt diagnose small.gguf org/other-model --lang th --text th.jsonl --source-text en.jsonl --budget 8h\n\n"
    "langadapt diagnose ./model --lang el --text el.txt --parallel en-el.tsv --json"
)


def register(app: typer.Typer) -> None:
    """Add `langadapt diagnose`."""
    app.command("diagnose", help=__doc__, epilog=EXAMPLES, rich_help_panel="Commands")(shared(diagnose))


def _option(flag: str, metavar: str, text: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=text, rich_help_panel=PANEL)


def diagnose(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Folders, .gguf files or hub ids; several are compared.")
    ],
    lang: Annotated[str, _option("--lang", "CODE", "Target language, e.g. hu.")],
    text: Annotated[Path, _option("--text", "FILE", "Text in the target language: a file, a folder or a corpus.")],
    parallel: Annotated[
        Path | None, _option("--parallel", "FILE", "Sentence pairs, one a line: source, tab, target.")
    ] = None,
    source: Annotated[str, _option("--source", "CODE", "Language that the model knows and should keep.")] = "en",
    source_text: Annotated[
        Path | None, _option("--source-text", "FILE", "Text in the source language, to compare with and to protect.")
    ] = None,
    budget: Annotated[
        str | None, _option("--budget", "TIME", "Time for training, e.g. 8h; by default the text is read once.")
    ] = None,
    no_score: Annotated[
        bool, switch("--no-score", help="Leave the weights alone: no bits per byte, seconds instead of a minute.",
                     panel=PANEL)
    ] = False,
) -> None:  # fmt: skip
    """Look, and show what was found."""
    from langadapt.steps import diagnose as step

    with interrupt.signals_as_flag(), listening(screen) as listener:
        found = step.diagnose(
            models,
            lang=lang,
            text=text,
            parallel=parallel,
            source=source,
            source_text=source_text,
            budget=budget,
            score=not no_score,
            listener=listener,
        )
    screen.emit(found.data(), tables=tables(found))
    if screen.human:
        # as they are: a command that is wrapped cannot be copied
        screen.raw("next")
        for line in found.commands:
            screen.raw(f"  {line}")
        for way in found.instead:
            screen.raw(way["verdict"])
            screen.raw(f"  {way['command']}")
    elif not screen.json:
        for way in found.instead:
            screen.raw(f"{way['verdict']}\t{way['command']}")
        for line in found.commands:
            screen.raw(f"next\t{line}")
