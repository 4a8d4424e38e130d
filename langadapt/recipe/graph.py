"""From a recipe to steps in the order of their dependencies. Everything that can be wrong is found here, before any
step runs: unknown names, cycles, missing inputs, configs that do not hold."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from langadapt.core import verb as verbs
from langadapt.core.config import InputField, StepConfig, input_fields, validate
from langadapt.core.errors import ConfigError
from langadapt.core.verb import Verb
from langadapt.recipe import document, sources
from langadapt.recipe.document import Problems, Recipe, Setting, StepText, did_you_mean
from langadapt.recipe.settle import settle
from langadapt.recipe.sources import FromPath, FromStep, Source
from langadapt.recipe.values import Unset, Variables, switched_on

Wiring = Source | tuple[Source, ...] | dict[str, Source]


@dataclass(frozen=True)
class Step:
    """One step with its values filled in; `wiring` says where each of its inputs comes from."""

    id: str
    verb: Verb
    values: Mapping[str, Any]
    wiring: Mapping[str, Wiring]
    where: Mapping[str, str]

    @property
    def needs(self) -> list[str]:
        """Ids of the steps it reads, in the order of its fields."""
        found = [item.step for value in self.wiring.values() for item in members(value) if isinstance(item, FromStep)]
        return list(dict.fromkeys(found))

    def config(self, place_of: Callable[[str], str]) -> StepConfig:
        """The verb's config with inputs as paths; `place_of(step id)` is the folder of another step's artifact."""

        def path(source: Source) -> str:
            return place_of(source.step) if isinstance(source, FromStep) else source.path

        values = dict(self.values)
        for name, wiring in self.wiring.items():
            if isinstance(wiring, tuple):
                values[name] = [path(item) for item in wiring]
            elif isinstance(wiring, dict):
                values[name] = {key: path(item) for key, item in wiring.items()}
            else:
                values[name] = path(wiring)
        return validate(self.verb.config, values, self.where, f"step `{self.id}` ({self.verb.name})")


def members(wiring: Wiring) -> Iterator[Source]:
    """The single inputs of a field."""
    if isinstance(wiring, tuple):
        yield from wiring
    elif isinstance(wiring, dict):
        yield from wiring.values()
    else:
        yield wiring


@dataclass(frozen=True)
class Graph:
    """A valid recipe: its steps in an order in which they can run, and the ids of those switched off."""

    recipe: Recipe
    steps: Mapping[str, Step]
    off: tuple[str, ...]

    def up_to(self, targets: Iterable[str]) -> "Graph":
        """Only `targets` and what they need."""
        wanted, todo = set[str](), list(targets)
        while todo:
            name = todo.pop()
            if name not in wanted:
                wanted.add(name)
                todo += self.steps[name].needs
        return Graph(self.recipe, {name: step for name, step in self.steps.items() if name in wanted}, self.off)


def build(path: Path, settings: tuple[Setting, ...] = (), *, cwd: Path | None = None) -> Graph:
    """Read, fill in and check a recipe. ConfigError lists all problems, SafetyError a path that leads out.

    `cwd` is where relative paths among `settings` start from, if not the current folder.
    """
    recipe = document.read(path, settings)
    recipe = recipe if cwd is None else replace(recipe, cwd=cwd)
    problems = Problems(path)
    loaded = _load_verbs(recipe, problems)
    problems.raise_if_any()
    recipe = settle(recipe, loaded, problems)
    variables = Variables.of(recipe)
    active = _active(recipe, variables, problems)
    problems.raise_if_any()
    steps: dict[str, Step] = {}
    for name in active:
        builder = _StepBuilder(recipe, recipe.steps[name], loaded[name], variables, set(active), problems)
        steps[name] = builder.build()
    problems.raise_if_any()
    for step in steps.values():
        _check(step, steps, problems)
    order = _order(steps, problems)
    problems.raise_if_any()
    off = tuple(name for name in recipe.steps if name not in steps)
    return Graph(recipe, {name: steps[name] for name in order}, off)


def _load_verbs(recipe: Recipe, problems: Problems) -> dict[str, Verb]:
    loaded = {}
    for step in recipe.steps.values():
        try:
            verb = verbs.load(step.verb)
        except ConfigError as error:
            problems.add(f"step `{step.id}`: {error.message}", step.where.get("use", step.place), error.hint)
            continue
        loaded[step.id] = verb
        fields = list(verb.config.model_fields)
        for key in step.fields:
            if key not in fields:
                place = step.where.get(key, step.place)
                problems.add(f"unknown key `{key}` in step `{step.id}` ({verb.name})", place, did_you_mean(key, fields))
    return loaded


def _active(recipe: Recipe, variables: Variables, problems: Problems) -> list[str]:
    active = []
    for step in recipe.steps.values():
        try:
            if switched_on(step.when, variables, step.where.get("when", step.place)):
                active.append(step.id)
        except ConfigError as error:
            problems.add(f"step `{step.id}`: {error.message}", error.where, error.hint)
    return active


@dataclass
class _StepBuilder:
    """Fills in one step."""

    recipe: Recipe
    step: StepText
    verb: Verb
    variables: Variables
    active: set[str]
    problems: Problems

    def build(self) -> Step:
        values: dict[str, Any] = {}
        wiring: dict[str, Wiring] = {}
        inputs = {field.name: field for field in input_fields(self.verb.config)}
        for key, template in self.step.fields.items():
            try:
                if key in inputs:
                    self.wire(inputs[key], template, values, wiring)
                else:
                    self.fill(key, template, values)
            except ConfigError as error:
                self.problems.add(f"step `{self.step.id}`: {error.message}", error.where, error.hint)
        return Step(self.step.id, self.verb, values, wiring, self.where())

    def where(self) -> dict[str, str]:
        """Places by dotted key, also under the keys as they are after filling in."""
        places = {"": self.step.place}
        for key, place in self.step.where.items():
            places[key] = place
            if "${" in key:
                try:
                    places[self.variables.fill_key(key)] = place
                except ConfigError:  # told where the key itself is filled in
                    continue
        return places

    def place(self, key: str) -> str:
        return self.step.where.get(key, self.step.place)

    def fill(self, key: str, template: Any, values: dict[str, Any]) -> None:
        value = self.variables.fill(template, self.place(key))
        if not isinstance(value, Unset):
            values[key] = value
        elif self.verb.config.model_fields[key].is_required():
            self.unset(key, value)

    def unset(self, key: str, value: Unset) -> None:
        self.problems.unset(value.name, f"step `{self.step.id}` needs `{key}`", self.place(key))

    def wire(self, field: InputField, template: Any, values: dict[str, Any], wiring: dict[str, Wiring]) -> None:
        """Wire one input field; what is not text is left for pydantic to judge."""
        typed = field.name in self.step.typed or self.variables.uses_typed(template)
        value = self.variables.fill(template, self.place(field.name))
        if field.shape == "many" and isinstance(value, str):
            value = [value]
        dropped: list[str] = []
        if isinstance(value, Unset):
            if field.required:
                self.unset(field.name, value)
        elif isinstance(value, str) and field.shape == "one":
            for source in self.sources([value], field, typed, dropped):
                wiring[field.name] = source
        elif isinstance(value, list) and field.shape == "many" and _all_text(value):
            wiring[field.name] = tuple(self.sources(value, field, typed, dropped))
        elif isinstance(value, dict) and field.shape == "map" and _all_text(value.values()):
            named = {name: list(self.sources([item], field, typed, dropped)) for name, item in value.items()}
            wiring[field.name] = {name: found[0] for name, found in named.items() if found}
        else:
            values[field.name] = value
        empty = not wiring.get(field.name)
        if field.required and empty and field.name not in values and not isinstance(value, Unset):
            what = f"only to what is switched off: {', '.join(dropped)}" if dropped else "to nothing"
            self.problems.add(f"step `{self.step.id}`: `{field.name}` refers {what}", self.place(field.name))

    def sources(self, texts: list[str], field: InputField, typed: bool, dropped: list[str]) -> Iterator[Source]:
        for text in texts:
            source = sources.find(
                text,
                field,
                folder=self.recipe.cwd if typed else self.recipe.folder,
                steps=list(self.recipe.steps),
                typed=typed,
                where=self.place(field.name),
            )
            if isinstance(source, FromStep) and source.step not in self.active:
                dropped.append(source.step)
            else:
                yield source


def _all_text(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _check(step: Step, steps: Mapping[str, Step], problems: Problems) -> None:
    """The whole config, with the ids of steps as placeholders for paths; and the kinds of what is wired."""
    try:
        step.config(lambda name: name)
    except ConfigError as error:
        problems.add(error.message, error.where or step.where[""], error.hint)
    for field in input_fields(step.verb.config):
        wiring = step.wiring.get(field.name)
        for source in members(wiring) if wiring is not None else ():
            if not isinstance(source, FromStep) or not field.reads.kinds:
                continue
            kind = steps[source.step].verb.kind
            if kind not in field.reads.kinds:
                expected = " or ".join(field.reads.kinds)
                place = step.where.get(field.name, step.where[""])
                message = f"step `{step.id}`: `{field.name}` expects a {expected}, step `{source.step}` makes a {kind}"
                problems.add(message, place)


def _order(steps: Mapping[str, Step], problems: Problems) -> list[str]:
    """Dependency order, as close to the order of the file as possible; a cycle is reported as a path."""
    order: list[str] = []
    left = list(steps)
    while left:
        ready = next((name for name in left if all(need in order for need in steps[name].needs)), None)
        if ready is None:
            cycle = _cycle(steps, left)
            path = " -> ".join(f"`{name}`" for name in [*cycle, cycle[0]])
            what = f"step {path[: len(cycle[0]) + 2]} reads its own output" if len(cycle) == 1 else f"cycle: {path}"
            problems.add(what, steps[cycle[0]].where[""], "a step can only read what an earlier one has made")
            return order
        order.append(ready)
        left.remove(ready)
    return order


def _cycle(steps: Mapping[str, Step], left: list[str]) -> list[str]:
    """One cycle among steps of which none is ready, in reading direction: each step feeds the next."""
    path = [left[0]]
    while True:
        blocker = next(need for need in steps[path[-1]].needs if need in left)
        if blocker in path:
            cycle = path[path.index(blocker) :][::-1]
            first = min(range(len(cycle)), key=lambda index: list(steps).index(cycle[index]))
            return cycle[first:] + cycle[:first]
        path.append(blocker)


__all__ = ["FromPath", "FromStep", "Graph", "Step", "build", "members"]
