"""Show the steps of a run or workspace: done, running, stale, partial or missing, and why."""

from pathlib import Path
from typing import Annotated, Any

import typer

from langadapt.cli.options import shared
from langadapt.cli.output import screen
from langadapt.core.sources import show_value
from langadapt.core.types import Table


def register(app: typer.Typer) -> None:
    """Add `status` to the app."""
    app.command("status", help=__doc__, epilog=EXAMPLE, rich_help_panel="Commands")(shared(status))


EXAMPLE = "Example:\n\nlangadapt status work/quickstart-hu"


def status(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="Folder of a run, or a workspace; by default the one that is here."),
    ] = None,
) -> None:
    """Look at every step without running any."""
    show_status(run)


def show_status(run: Path | None) -> None:
    """The steps of a run or workspace, and the settings that are not from the recipe."""
    from langadapt.recipe import plan as planning
    from langadapt.recipe import workspace

    graph, folder, settings = workspace.find_run(run)
    plan = planning.plan(graph, folder, estimates=False)
    steps: list[dict[str, Any]] = [
        {
            "step": look.step.id,
            "verb": look.step.verb.name,
            "state": look.standing,
            "reason": look.reason,
            "path": None if look.artifact is None else str(look.artifact.path),
            "point": dict(look.step.point),
        }
        for look in plan.looks
    ]
    rows = [(str(step["step"]), str(step["state"]), str(step["reason"])) for step in steps]
    rows += [(name, "off", "switched off in the recipe") for name in plan.off]
    tables = [Table(f"{graph.recipe.name} ({folder})", ("step", "state", "why"), tuple(rows))]
    given = {item.key.removeprefix("vars."): item.shown for item in settings}
    replaced = {
        item.key.removeprefix("vars."): f"instead of {show_value(value)} in {where}"
        for item, value, where in workspace.against(graph.recipe.path, settings)
    }
    if given:
        settled = [(name, _plainly(value), replaced.get(name, "")) for name, value in given.items()]
        tables.append(Table("settings outside the recipe", ("setting", "value", ""), tuple(settled)))
    data = {"schema": "langadapt/status/1", "run": str(folder), "recipe": str(graph.recipe.path), "steps": steps}
    # in a pipe one row a step and nothing else
    screen.emit(data | {"off": list(plan.off), "settings": given}, tables=tables if screen.human else tables[:1])


def _plainly(value: Any) -> str:
    """A value for people: a list of one text as that text."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else show_value(value)
