"""Run a recipe: skip what is up to date, go on with what was stopped, run what changed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langadapt.cli.listener import listening
from langadapt.cli.options import shared, switch
from langadapt.cli.output import screen
from langadapt.core import interrupt
from langadapt.core.io import read_json_object
from langadapt.core.types import Table
from langadapt.core.units import show_bytes, show_seconds

if TYPE_CHECKING:
    from langadapt.recipe.plan import Plan
    from langadapt.recipe.runner import RunDone

PANEL = "Run"
EXAMPLES = (
    "Examples:\n\n"
    "langadapt run recipes/quickstart-hu.yaml --dry-run -o model=M -o target_text=hu.txt -o source_text=en.txt\n\n"
    "langadapt run recipes/quickstart-hu.yaml -o cpt.learning_rate=1e-4 --out work/slower"
)
# What a continuation may take of a terminal's line; the whole text is in report.html.
SHOWN_LETTERS = 300


def register(app: typer.Typer) -> None:
    """Add `run` to the app."""
    app.command("run", help=__doc__, epilog=EXAMPLES, rich_help_panel="Commands")(shared(run))


def run(
    recipe: Annotated[
        Path, typer.Argument(metavar="[RECIPE]", help="Recipe file; by default that of the workspace.")
    ] = Path("langadapt.yaml"),
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            metavar="KEY=VALUE",
            help="A variable of the recipe, or STEP.FIELD of a step (repeatable).",
            rich_help_panel=PANEL,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the run; by default work/NAME or the workspace.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    dry_run: Annotated[
        bool, switch("--dry-run", help="Show what would run, why, and what it costs; run nothing.", panel=PANEL)
    ] = False,
) -> None:  # fmt: skip
    """Build the graph, then plan or run it, and show the outcome."""
    from langadapt.recipe import plan as planning
    from langadapt.recipe import runner, workspace
    from langadapt.recipe.document import Setting

    settings = tuple(Setting.parse(text) for text in assignments or ())
    folder = workspace.run_folder(recipe, out)
    with interrupt.signals_as_flag(), listening(screen) as listener:
        graph = workspace.load(recipe, settings, listener)
        if dry_run:
            plan = planning.plan(graph, folder, listener=listener)
        else:
            done = runner.run(graph, folder, settings=settings, listener=listener)
    if dry_run:
        show_plan(plan)
    else:
        show_run(done)


def show_plan(plan: "Plan") -> None:
    """The table of a dry run, or with --json one object."""
    screen.emit(plan.data(), tables=[plan.table()])


def show_run(done: "RunDone") -> None:
    """The report's table and the continuations on a terminal, the run folder in a pipe, an object with --json."""
    ran = [step for step in done.steps if step.state != "up to date"]
    peak = max((step.peak_memory_bytes for step in ran), default=0)
    memory = f", the largest step took {show_bytes(peak)}" if peak else ""
    screen.say(
        f"done in {show_seconds(done.seconds)}: {len(ran)} steps run, {len(done.steps) - len(ran)} up to date{memory}"
    )
    screen.emit(done.data(), path=done.folder, tables=_tables(done) if screen.human else ())


def _tables(done: "RunDone") -> list[Table]:
    tables = done.tables()
    summary = done.folder / "summary.json"
    if done.report is not None and summary.is_file():
        tables += _continuations(read_json_object(summary).get("continuations"))
        tables.append(Table("files", ("", ""), (("report", str(done.folder / "report.html")),)))
    return tables or [Table("files", ("", ""), (("run", str(done.folder)),))]


def _continuations(lines: Any) -> list[Table]:
    """How each model goes on after the same beginning."""
    rows: list[tuple[str, str]] = []
    for line in lines if isinstance(lines, list) else ():
        rows.append(("beginning", _short(line.get("prompt"))))
        rows += [(model, _short(line[model])) for model in ("base", "adapted", "control") if line.get(model)]
    return [Table("how the models go on", ("", ""), tuple(rows))] if rows else []


def _short(text: Any) -> str:
    flat = " ".join(str(text).split())
    return flat if len(flat) <= SHOWN_LETTERS else flat[:SHOWN_LETTERS] + "..."
