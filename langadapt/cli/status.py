"""Show the steps of a run or workspace: done, stale, partial or missing, and why."""

from pathlib import Path
from typing import Annotated

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
    from langadapt.recipe import plan as planning
    from langadapt.recipe import workspace

    graph, folder, settings = workspace.find_run(run)
    plan = planning.plan(graph, folder, estimates=False)
    steps: list[dict[str, str | None]] = [
        {
            "step": look.step.id,
            "verb": look.step.verb.name,
            "state": look.standing,
            "reason": look.reason,
            "path": None if look.artifact is None else str(look.artifact.path),
        }
        for look in plan.looks
    ]
    rows = [(str(step["step"]), str(step["state"]), str(step["reason"])) for step in steps]
    rows += [(name, "off", "switched off in the recipe") for name in plan.off]
    given = {item.key.removeprefix("vars."): item.shown for item in settings}
    notes = [f"set outside the recipe: {name}={show_value(value)}" for name, value in given.items()]
    data = {"schema": "langadapt/status/1", "run": str(folder), "recipe": str(graph.recipe.path), "steps": steps}
    screen.emit(
        data | {"off": list(plan.off), "settings": given},
        tables=[Table(f"{graph.recipe.name} ({folder})", ("step", "state", "why"), tuple(rows), tuple(notes))],
    )
