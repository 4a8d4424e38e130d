"""What can be known of a recipe without running it: more than its graph, less than its dry run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from langadapt.core.artifact import is_artifact, open_artifact, partial_folder
from langadapt.core.config import InputField, input_fields
from langadapt.core.errors import DataError
from langadapt.recipe.document import Problems, Setting
from langadapt.recipe.graph import Graph, build
from langadapt.recipe.sources import FromPath
from langadapt.recipe.step import Step, members
from langadapt.recipe.values import names_in


@dataclass(frozen=True)
class Checked:
    """A recipe without faults; `notes` are what a person may want to look at."""

    graph: Graph
    notes: tuple[str, ...]


def check(path: Path, settings: tuple[Setting, ...] = ()) -> Checked:
    """Graph, configs, types, existence and kinds of inputs. ConfigError lists all that is wrong, with file and line.

    Variables that are not set yet are notes: a recipe may be whole before anybody has given it a model. Models and
    texts that a name of the hub stands for are not looked up.
    """
    graph = build(path, settings, lenient=True)
    problems = Problems(path)
    notes = [f"give `-o {name}=...` to run it" for name in graph.missing]
    for step in graph.steps.values():
        for item, source in _paths(step):
            if source.path != "?":
                notes += _look(step, item, source, problems)
    problems.raise_if_any()
    return Checked(graph, tuple(dict.fromkeys([*notes, *_unused(graph)])))


def _paths(step: Step) -> Iterator[tuple[InputField, FromPath]]:
    for item in input_fields(step.verb.config):
        wiring = step.wiring.get(item.name)
        for source in members(wiring) if wiring is not None else ():
            if isinstance(source, FromPath) and source.path not in item.reads.words:
                yield item, source


def _look(step: Step, item: InputField, source: FromPath, problems: Problems) -> list[str]:
    """Problems go to `problems`; returned is what cannot be known here."""
    place, where = Path(source.path), step.where.get(item.name, step.where[""])
    what = f"step `{step.id}`: `{item.name}`"
    if not place.exists():
        return [f"{what}: `{source.path}` is not here; it is looked up when the recipe runs"]
    if is_artifact(place):
        try:
            open_artifact(place, *item.reads.kinds)
        except DataError as error:
            problems.add(f"{what}: {error.message}", where, error.hint)
    elif partial_folder(place).is_dir():
        problems.add(f"{what}: `{source.path}` is not finished", where, "run the command that makes it again")
    elif not item.reads.plain:
        expected = " or ".join(item.reads.kinds)
        problems.add(f"{what}: `{source.path}` is not an artifact of langadapt; expected a {expected}", where)
    elif place.is_dir() and not any(place.iterdir()):
        problems.add(f"{what}: the folder `{source.path}` is empty", where)
    return []


def _unused(graph: Graph) -> list[str]:
    recipe = graph.recipe
    used = {
        name.partition(".")[0]
        for step in recipe.steps.values()
        for name in names_in([dict(step.fields), step.when if isinstance(step.when, str) else ""])
    }
    notes = [
        f"variable `{name}` is used nowhere ({recipe.where.get(name, recipe.path)})"
        for name in recipe.vars
        if name not in used
    ]
    over = {axis for step in recipe.steps.values() for axis in step.axes} | used
    return notes + [f"no step is made over the axis `{name}`" for name in recipe.axes.values if name not in over]
