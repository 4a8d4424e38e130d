"""From a recipe to steps in the order of their dependencies. Everything that can be wrong is found here, before any
step runs: unknown names, cycles, missing inputs, configs that do not hold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from langadapt.core import verb as verbs
from langadapt.core.config import input_fields
from langadapt.core.errors import ConfigError
from langadapt.core.verb import Verb
from langadapt.recipe import reading
from langadapt.recipe.condition import switched_on
from langadapt.recipe.document import Problems, Recipe, Setting, did_you_mean
from langadapt.recipe.settle import settle
from langadapt.recipe.sources import FromPath, FromStep
from langadapt.recipe.step import Step, members
from langadapt.recipe.values import Variables
from langadapt.recipe.wiring import Builder


@dataclass(frozen=True)
class Graph:
    """A valid recipe: its steps in an order in which they can run, and the ids of those switched off.

    `taken` are steps that are not to run: what is there of them is used as it is. `missing` are the variables that
    still have to be given (only when the graph was built leniently). `verbs` knows those of the steps that are off too.
    """

    recipe: Recipe
    steps: Mapping[str, Step]
    off: tuple[str, ...]
    taken: Mapping[str, Step] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    verbs: Mapping[str, Verb] = field(default_factory=dict)

    def named(self, names: Iterable[str]) -> list[str]:
        """Ids of the steps that `names` mean: a step, or all that the matrix makes of it; ConfigError if none."""
        found: list[str] = []
        for name in names:
            fits = [step.id for step in self.steps.values() if name in (step.id, step.written)]
            if not fits:
                off = any(name in (item, self.recipe.steps[item].written) for item in self.off)
                known = [*self.steps, *(step.written for step in self.steps.values())]
                why = f"step `{name}` is switched off" if off else f"the recipe has no step `{name}`"
                raise ConfigError(why, where=str(self.recipe.path), hint=did_you_mean(name, list(dict.fromkeys(known))))
            found += fits
        return list(dict.fromkeys(found))

    def up_to(self, targets: Iterable[str]) -> "Graph":
        """Only `targets` (ids) and what they need."""
        wanted = self._closure(targets)
        return replace(self, steps={name: step for name, step in self.steps.items() if name in wanted})

    def _closure(self, targets: Iterable[str]) -> set[str]:
        wanted, todo = set[str](), list(targets)
        while todo:
            name = todo.pop()
            if name not in wanted:
                wanted.add(name)
                todo += self.steps[name].needs
        return wanted

    def select(self, *, first: Iterable[str] = (), only: Iterable[str] = (), until: Iterable[str] = ()) -> "Graph":
        """The part from `first` on, up to `until`, or `only` some steps; what those need beyond it is taken as it is.

        ConfigError for a name that means no step, and when nothing is left.
        """
        first, only, until = list(first), list(only), list(until)
        chosen = set(self.steps)
        if first:
            begins = set(self.named(first))
            chosen = {name for name in self.steps if self._closure([name]) & begins}
        if until:
            chosen &= self._closure(self.named(until))
        if only:
            chosen &= set(self.named(only))
        if not chosen:
            raise ConfigError("no step is both after the one and before the other", where=str(self.recipe.path))
        if not (first or only):
            return replace(self, steps={name: step for name, step in self.steps.items() if name in chosen})
        around = self._closure(chosen) - chosen
        return replace(
            self,
            steps={name: step for name, step in self.steps.items() if name in chosen},
            taken={name: step for name, step in self.steps.items() if name in around},
        )


def build(path: Path, settings: tuple[Setting, ...] = (), *, cwd: Path | None = None, lenient: bool = False) -> Graph:
    """Read, fill in and check a recipe. ConfigError lists all problems, SafetyError a path that leads out.

    `cwd` is where relative paths among `settings` start from, if not the current folder. With `lenient` variables that
    are not set yet are no problem; they are listed in the graph.
    """
    problems = Problems(path)
    recipe = reading.read(path, settings, problems)
    recipe = recipe if cwd is None else replace(recipe, cwd=cwd)
    loaded = _load_verbs(recipe, problems)
    recipe = settle(recipe, loaded, problems)
    variables = Variables.of(recipe)
    active = _active(recipe, variables, problems)
    steps: dict[str, Step] = {}
    sound: dict[str, bool] = {}
    for name in [name for name in active if name in loaded]:
        text = recipe.steps[name]
        builder = Builder(recipe, text, loaded[name], variables.at(text.point), set(active), problems, lenient=lenient)
        steps[name] = builder.build()
        if builder.sound:
            sound[name] = builder.whole or not lenient
    for name, whole in sound.items():
        _check(steps[name], steps, problems, whole=whole)
    order = _order(steps, problems)
    missing = tuple(problems.missing)
    if lenient:
        problems.missing = {}
    problems.raise_if_any()
    off = tuple(name for name in recipe.steps if name not in steps)
    return Graph(recipe, {name: steps[name] for name in order}, off, missing=missing if lenient else (), verbs=loaded)


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
            if switched_on(step.when, variables.at(step.point), step.where.get("when", step.place)):
                active.append(step.id)
        except ConfigError as error:
            problems.add(f"step `{step.id}`: {error.message}", error.where, error.hint)
    return active


def _check(step: Step, steps: Mapping[str, Step], problems: Problems, *, whole: bool) -> None:
    """The whole config, with the ids of steps as placeholders for paths; and the kinds of what is wired.

    What a verb refuses before it looks at any input it refuses here, unless something is still to be given: what its
    last step would refuse need not wait until all others have run.
    """
    try:
        config = step.config(lambda name: name)
    except ConfigError as error:
        problems.add(error.message, error.where or step.where[""], error.hint)
    else:
        if whole and step.verb.check is not None:
            try:
                step.verb.check(config)
            except ConfigError as error:
                place = step.where.get(error.where or "", step.where[""])
                problems.add(f"step `{step.id}` ({step.verb.name}): {error.message}", place, error.hint)
    for item in input_fields(step.verb.config):
        wiring = step.wiring.get(item.name)
        for source in members(wiring) if wiring is not None else ():
            if not isinstance(source, FromStep) or not item.reads.kinds:
                continue
            made_by = steps.get(source.step)
            kind = made_by.verb.kind if made_by is not None else ""
            if kind and kind not in item.reads.kinds:
                expected = " or ".join(item.reads.kinds)
                place = step.where.get(item.name, step.where[""])
                message = f"step `{step.id}`: `{item.name}` expects a {expected}, step `{source.step}` makes a {kind}"
                problems.add(message, place)


def _order(steps: Mapping[str, Step], problems: Problems) -> list[str]:
    """Dependency order, as close to the order of the file as possible; a cycle is reported as a path."""
    order: list[str] = []
    left = list(steps)
    while left:
        ready = next(
            (name for name in left if all(need in order or need not in steps for need in steps[name].needs)), None
        )
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
