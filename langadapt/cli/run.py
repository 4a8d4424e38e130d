"""Run a recipe: skip what is up to date, go on with what was stopped, run what changed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langadapt.cli.job import Sbatch, StopBefore, Time, limited, script
from langadapt.cli.listener import listening
from langadapt.cli.options import shared, switch
from langadapt.cli.output import screen
from langadapt.core import interrupt
from langadapt.core.errors import ConfigError
from langadapt.core.io import read_json_object
from langadapt.core.sources import show_value
from langadapt.core.types import Table
from langadapt.core.units import show_bytes, show_seconds

if TYPE_CHECKING:
    from langadapt.recipe.document import Setting
    from langadapt.recipe.plan import Plan
    from langadapt.recipe.runner import RunDone

PANEL = "Run"
EXAMPLES = (
    "Examples:\n\n"
    "langadapt run recipes/quickstart-hu.yaml --dry-run -o model=M -o target_text=hu.txt -o source_text=en.txt\n\n"
    "langadapt run recipes/quickstart-hu.yaml -o cpt.learning_rate=1e-4 --out work/slower\n\n"
    "langadapt run --why --from cpt"
)
# What a continuation may take of a terminal's line; the whole text is in report.html.
SHOWN_LETTERS = 300


def _steps(flag: str, text: str) -> Any:
    return typer.Option(flag, metavar="STEP", help=f"{text} (repeatable).", rich_help_panel=PANEL)


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
    why: Annotated[
        bool,
        switch("--why", help="Show for every step which part of its key changed since its last output; run nothing.",
               panel=PANEL),
    ] = False,
    until: Annotated[list[str] | None, _steps("--until", "Run no further than this step")] = None,
    first: Annotated[
        list[str] | None, _steps("--from", "Run this step and what comes after it; what they need is used as it is")
    ] = None,
    only: Annotated[
        list[str] | None, _steps("--only", "Run this step alone; what it needs is used as it is")
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", metavar="N", min=1, max=256, rich_help_panel=PANEL,
                          help="Run up to N independent steps side by side.")
    ] = 1,
    heavy_jobs: Annotated[
        int, typer.Option("--heavy-jobs", metavar="N", min=1, max=256, rich_help_panel=PANEL,
                          help="Of them up to N that train or evaluate: each takes all threads and much memory.")
    ] = 1,
    keep_going: Annotated[
        bool, switch("--keep-going", "-k", help="After a failure still run the steps that do not need what failed.",
                     panel=PANEL)
    ] = False,
    forget: Annotated[
        list[str] | None,
        typer.Option("--forget", metavar="KEY", rich_help_panel=PANEL,
                     help="Only drop a setting that the workspace has recorded: `cpt.steps`, `cpt`, or `all`.")
    ] = None,
    time: Time = None,
    stop_before: StopBefore = None,
    sbatch: Sbatch = False,
) -> None:  # fmt: skip
    """Build the graph, then plan or run it, and show the outcome."""
    from langadapt.recipe import plan as planning
    from langadapt.recipe import runner, workspace
    from langadapt.recipe.document import Setting

    settings = tuple(Setting.parse(text) for text in assignments or ())
    if forget:
        if dry_run or why or sbatch or settings:
            raise ConfigError(
                "`--forget` drops what is recorded and does nothing else",
                hint="run it alone, then `langadapt run` with the other options",
            )
        show_forgotten(recipe, workspace.forget(recipe, forget))
        return
    folder = workspace.run_folder(recipe, out)
    with interrupt.signals_as_flag(), listening(screen) as listener, limited(time, stop_before):
        graph = workspace.load(recipe, settings, listener)
        chosen = graph.select(first=first or (), only=only or (), until=until or ())
        if dry_run or sbatch or why:
            plan = planning.plan(chosen, folder, estimates=not why, listener=listener)
        else:
            if settings and out is None:
                workspace.remember_settings(graph, settings, listener)
            side_by_side = runner.Jobs(jobs, heavy_jobs, keep_going)
            done = runner.run(chosen, folder, settings=settings, listener=listener, jobs=side_by_side)
    if sbatch:
        text = script(plan.total, f"langadapt-{recipe.stem}")
        screen.emit({"schema": "langadapt/sbatch/1", "script": text}, lines=text.splitlines())
    elif why:
        screen.emit(plan.why(), tables=[plan.why_table()])
    elif dry_run:
        show_plan(plan)
    else:
        show_run(done)


def show_forgotten(recipe: Path, dropped: "tuple[Setting, ...]") -> None:
    """What `--forget` dropped."""
    names = [item.key.removeprefix("vars.") for item in dropped]
    data = {"schema": "langadapt/forget/1", "recipe": str(recipe), "forgotten": names}
    screen.emit(data, lines=[f"forgotten: {name}={show_value(item.value)}" for name, item in zip(names, dropped,
                strict=True)])  # fmt: skip


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
