"""Prove again what was promised: the files of an artifact, the tokens of a vocabulary, the shield of a training.

`artifact DIR` reads every file of an artifact, and of those inside it, and compares it with its digest (exit 3 if one
differs). `vocab BASE EXTENDED` compares a tokenizer, or a model with it, with what it was made from; `shield BASE
TUNED` compares a trained model with the one its training began with, bit by bit (exit 1 if a promise does not hold).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from langadapt.cli.listener import listening
from langadapt.cli.options import action as one_action
from langadapt.cli.options import check_action, shared
from langadapt.cli.output import screen, visible
from langadapt.core.errors import ConfigError, DataError, LangadaptError
from langadapt.core.progress import Progress
from langadapt.core.types import Table
from langadapt.core.units import parse_bytes, show_bytes

if TYPE_CHECKING:
    from langadapt.core.intact import Condition
    from langadapt.steps.verify_vocab import Verified

PANEL = "Input"
ACTIONS = {"artifact": ("DIR", 1), "vocab": ("BASE EXTENDED", 2), "shield": ("BASE TUNED", 2)}
EXAMPLES = (
    "Examples:\n\n"
    "langadapt verify artifact runs/cpt\n\n"
    "langadapt verify vocab models/smollm2 runs/tokenizer --text data/en\n\n"
    "langadapt verify vocab models/smollm2 runs/init\n\n"
    "langadapt verify shield runs/init runs/cpt --selection runs/selection"
)


def register(app: typer.Typer) -> None:
    """Add `langadapt verify`."""
    app.command("verify", help=__doc__, epilog=EXAMPLES, rich_help_panel="Commands")(shared(verify))


def verify(
    action: Annotated[str, one_action(ACTIONS)],
    places: Annotated[
        list[str], typer.Argument(metavar="ARTIFACT...", help="Folders; of `vocab` also a .gguf file or a hub id.")
    ],
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="FILE", rich_help_panel=PANEL,
                     help="vocab: text file, folder or corpus artifact. That of the guard must keep its ids, other "
                     "text is measured (repeatable)."),
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option("--selection", metavar="DIR", show_default=False, rich_help_panel=PANEL,
                     help="shield: what was allowed to move; by default what the trained model says itself."),
    ] = None,
    max_bytes: Annotated[
        str, typer.Option("--max-bytes", metavar="BYTES", help="vocab: measure on about the first so many bytes.",
                          rich_help_panel=PANEL)
    ] = "20MB",
) -> None:  # fmt: skip
    """Do one of them."""
    check_action("verify", action, ACTIONS)
    words, count = ACTIONS[action]
    if len(places) != count:
        raise ConfigError(f"`verify {action}` takes {words}, not {len(places)}")
    if text and action != "vocab":
        raise ConfigError(f"`verify {action}` takes no --text")
    if selection is not None and action != "shield":
        raise ConfigError(f"`verify {action}` takes no --selection")
    if not all(given.strip() for given in (*places, *(text or ()), *([] if selection is None else [selection]))):
        # `Path("")` is the current folder: never what `"$UNSET"` means
        raise DataError("a path is empty", hint="is a variable of the shell not set?")
    if action == "artifact":
        _artifact(Path(_resolved(places[0])))
    elif action == "shield":
        _shield(places[0], places[1], selection)
    else:
        _vocab(places[0], places[1], text or [], max_bytes)


def _artifact(folder: Path) -> None:
    from langadapt.core.intact import conditions

    if not folder.exists():
        raise DataError(f"`{folder}` does not exist")
    with listening(screen, "verify") as listener:
        found = conditions(folder, Progress(listener))
    damaged = [(one, text) for one in found for text in one.damaged]
    rows = tuple(
        (one.place, one.kind or "?", str(one.files), show_bytes(one.bytes), text)
        for one in found
        for text in (*one.damaged,) or ("as written",)
    )
    notes = tuple(
        f"{one.place}: {len(one.unlisted)} files are not of the artifact, such as `{one.unlisted[0]}`"
        for one in found
        if one.unlisted
    )
    data = {
        "schema": "langadapt/verify-artifact/1",
        "path": str(folder),
        "intact": not damaged,
        "artifacts": [_record(one) for one in found],
    }
    screen.emit(data, tables=[Table(str(folder), ("artifact", "kind", "files", "bytes", "state"), rows, notes)])
    if damaged:
        first, text = damaged[0]
        more = f", and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise DataError(
            f"`{folder / first.place}` is damaged: {text}{more}",
            hint="copy it again from where it came, or make it again with `--overwrite`",
        )


def _record(one: "Condition") -> dict[str, object]:
    kept = {"place": one.place, "kind": one.kind or None, "files": one.files, "bytes": one.bytes}
    return kept | {"damaged": list(one.damaged), "unlisted": list(one.unlisted)}


def _vocab(base: str, extended: str, texts: list[str], max_bytes: str) -> None:
    from langadapt.steps.verify_vocab import record, verify_vocab

    try:
        limit = int(str(parse_bytes(max_bytes)))
    except ValueError as error:
        raise ConfigError(str(error), where="--max-bytes") from error
    with listening(screen, "verify") as listener:
        given = [Path(text) for text in texts]
        found = verify_vocab(_resolved(base), _resolved(extended), given, limit=limit, progress=Progress(listener))
    data = {"schema": "langadapt/verify-vocab/1", "base": base, "extended": extended, **record(found)}
    screen.emit(data, tables=_vocab_tables(found))
    if found.broken:
        text = "; ".join(
            f"{_said(one.name)}: {len(one.broken):,} of {one.examined:,} do not, e.g. {one.broken[0]}"
            for one in found.broken
        )
        raise LangadaptError(f"{len(found.broken)} of {len(found.outcomes)} promises do not hold. {visible(text)}")


def _resolved(name: str) -> str:
    """A step of the recipe that is here is one of its outputs."""
    from langadapt.recipe.workspace import step_output

    return name if Path(name).exists() else str(step_output(name) or name)


def _said(name: str) -> str:
    from langadapt.steps.verify_vocab import SAID

    return SAID.get(name, name)


def _vocab_tables(found: "Verified") -> list[Table]:
    rows = tuple(
        (_said(one.name), f"{one.examined:,}", "holds" if not one.broken else f"{len(one.broken):,} broken",
         visible(one.broken[0]) if one.broken else "")
        for one in found.outcomes
    )  # fmt: skip
    tables = [Table(f"promises ({found.mode})", ("", "looked at", "", "for example"), rows, found.notes)]
    if found.measured:
        measured = tuple(
            (item.text, f"{item.words:,}", f"{item.words_changed:,}", f"{item.lines:,}",
             f"{item.lines_same / item.lines:.2%}" if item.lines else "n/a",
             visible(item.examples[0]) if item.examples else "")
            for item in found.measured
        )  # fmt: skip
        columns = ("text", "words", "with other ids", "lines", "with the same ids", "for example")
        tables.append(Table("text that is not the guard's: nothing is promised", columns, measured))
    return tables


def _shield(base: str, tuned: str, selection: str | None) -> None:
    from langadapt.steps import verify_shield as steps

    place = None if selection is None else Path(_resolved(selection))
    with listening(screen, "verify") as listener:
        found = steps.verify_shield(_resolved(base), _resolved(tuned), place, progress=Progress(listener))
    data = {"schema": "langadapt/verify-shield/1", "base": base, "tuned": tuned, **steps.record(found)}
    screen.emit(data, tables=[steps.table(found)])
    steps.insist(found)
