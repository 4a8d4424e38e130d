"""Check a recipe, show what it comes to, or print the schema that editors use.

`recipe check` finds everything that can be known without running. `recipe show` lists the steps with their values and
where each came from, and the graph. `recipe schema` is a JSON schema made from the verbs.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langadapt.cli.options import check_action, shared
from langadapt.cli.output import screen
from langadapt.core.sources import show_value
from langadapt.core.types import Table

if TYPE_CHECKING:
    from langadapt.recipe.graph import Graph
    from langadapt.recipe.step import Step

ACTIONS = ("check", "show", "schema")
EXAMPLES = (
    "Examples:\n\n"
    "langadapt recipe check recipes/quickstart-hu.yaml\n\n"
    "langadapt recipe show langadapt.yaml\n\n"
    "langadapt recipe schema > recipe.schema.json"
)


def register(app: typer.Typer) -> None:
    """Add `recipe` to the app."""
    app.command("recipe", help=__doc__, epilog=EXAMPLES, rich_help_panel="Commands")(shared(recipe))


def recipe(
    action: Annotated[
        str, typer.Argument(metavar="ACTION", help="check, show or schema.", autocompletion=lambda: list(ACTIONS))
    ],
    file: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="Recipe file; by default that of the workspace.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("-o", metavar="KEY=VALUE", help="As for `langadapt run` (repeatable).", rich_help_panel="Run"),
    ] = None,
) -> None:
    """Do one of the three."""
    check_action("recipe", action, ACTIONS)
    if action == "schema":
        from langadapt.recipe.schema import recipe_schema

        screen.raw(json.dumps(recipe_schema(), indent=1))
        return
    from langadapt.recipe import workspace
    from langadapt.recipe.document import Setting

    path = file if file is not None else Path(workspace.RECIPE)
    settings = workspace.recorded(path) + tuple(Setting.parse(text) for text in assignments or ())
    if action == "check":
        _check(path, settings)
    else:
        _show(path, settings)


def _check(path: Path, settings: tuple[Any, ...]) -> None:
    from langadapt.recipe.check import check

    found = check(path, settings)
    for note in found.notes:
        screen.say(f"note: {note}")
    graph = found.graph
    data = {
        "schema": "langadapt/check/1",
        "recipe": str(path),
        "steps": list(graph.steps),
        "off": list(graph.off),
        "missing": list(graph.missing),
        "notes": list(found.notes),
    }
    off = f", {len(graph.off)} switched off" if graph.off else ""
    screen.emit(data, lines=[f"{path}: no faults found in {len(graph.steps)} steps{off}"])


def _show(path: Path, settings: tuple[Any, ...]) -> None:
    from langadapt.recipe.graph import build

    graph = build(path, settings, lenient=True)
    shown = [_step_data(step, graph) for step in graph.steps.values()]
    data = {"schema": "langadapt/recipe/1", "recipe": str(path), "name": graph.recipe.name, "steps": shown}
    tables = []
    for step in shown:
        rows = [
            (key, show_value(item["value"]), item["from"].replace(f"{path}:", "line "))
            for key, item in step["values"].items()
        ]
        tables.append(Table(f"{step['step']} ({step['verb']})", ("", "", ""), tuple(rows)))
    lines = [_edge(step) for step in graph.steps.values()]
    off = [f"{name}  off" for name in graph.off]
    if screen.human:
        screen.emit({}, tables=tables, lines=())
        screen.emit({}, lines=["graph", *(f"  {line}" for line in [*lines, *off])])
    else:
        screen.emit(data | {"off": list(graph.off), "missing": list(graph.missing)}, lines=[*lines, *off])


def _edge(step: "Step") -> str:
    verb = "" if step.id == step.verb.name else f" ({step.verb.name})"
    return f"{step.id}{verb}" + (f"  <- {', '.join(step.needs)}" if step.needs else "")


def _step_data(step: "Step", graph: "Graph") -> dict[str, Any]:
    plain = step.plain(lambda name: name)
    values = {
        key: {"value": plain[key], "from": _origin(step, key, graph)}
        for key in step.verb.config.model_fields
        if key in plain
    }
    return {
        "step": step.id,
        "verb": step.verb.name,
        "point": dict(step.point),
        "needs": step.needs,
        "values": values,
        "defaults": [key for key in step.verb.config.model_fields if key not in values],
    }


def _origin(step: "Step", key: str, graph: "Graph") -> str:
    """Where a value comes from: its line, and for each variable in it where that was set."""
    from langadapt.recipe.values import names_in

    recipe = graph.recipe
    names = dict.fromkeys(name.partition(".")[0] for name in names_in(recipe.steps[step.id].fields.get(key)))
    set_in = [f"{name} from {recipe.where[name]}" for name in names if name in recipe.where]
    place = step.where.get(key, step.where[""])
    return f"{place} ({', '.join(set_in)})" if set_in else place
