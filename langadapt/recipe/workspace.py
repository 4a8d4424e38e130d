"""A workspace is a folder with a recipe `langadapt.yaml`: verbs work there as they stand, flags are remembered."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.core.artifact import Artifact
from langadapt.core.config import input_fields
from langadapt.core.errors import ConfigError
from langadapt.core.io import pretty_json, read_json_lines, read_json_object, replace_durably
from langadapt.core.languages import normalise
from langadapt.core.progress import Listener, Note, ignore
from langadapt.core.sources import show_value
from langadapt.core.yaml import load_file
from langadapt.recipe import runner
from langadapt.recipe.document import EXPANDED, Setting, did_you_mean
from langadapt.recipe.graph import Graph, Step, build
from langadapt.recipe.plan import Plan, plan
from langadapt.recipe.record import HISTORY
from langadapt.recipe.runner import RunDone, StepDone
from langadapt.recipe.why import last_output

RECIPE = "langadapt.yaml"
OVERRIDES = "overrides.json"


def run_folder(recipe: Path, out: Path | None) -> Path:
    """Where a recipe runs: `out`, for a workspace the workspace itself, else `work/<name of the file>`."""
    if out is not None:
        return out
    return recipe.parent if recipe.name == RECIPE else Path("work") / recipe.stem


def recorded(recipe: Path) -> tuple[Setting, ...]:
    """Settings that earlier commands in the workspace of `recipe` recorded (none for any other recipe)."""
    path = recipe.parent / OVERRIDES
    if recipe.name != RECIPE or not path.is_file():
        return ()
    found = []
    for step, values in read_json_object(path).items():
        if not isinstance(values, dict):
            raise ConfigError(f"`{step}` should hold keys and values", where=str(path), hint=f"edit or delete {path}")
        found += [Setting(f"{step}.{key}", value, str(path)) for key, value in values.items()]
    return tuple(found)


def remember(folder: Path, values: Mapping[str, Mapping[str, Any]]) -> None:
    """Add settings {step id (or `vars`): {key: value}} to those recorded in a workspace."""
    path = folder / OVERRIDES
    kept = read_json_object(path) if path.is_file() else {}
    for step, pairs in values.items():
        if pairs:
            kept[step] = {**kept.get(step, {}), **pairs}
        # a setting of one point of a matrix holds against that of all of them, unless the latter is newer
        for other in [name for name in kept if name.startswith(f"{step}{EXPANDED}")]:
            kept[other] = {key: value for key, value in kept[other].items() if key not in pairs}
    kept = {step: pairs for step, pairs in kept.items() if pairs}
    replace_durably(path, pretty_json(kept))


def forget(recipe: Path, names: Iterable[str]) -> tuple[Setting, ...]:
    """Drop recorded settings: `cpt.steps`, all of `cpt`, a variable, or `all`; ConfigError for what is not recorded."""
    path = recipe.parent / OVERRIDES
    there = recorded(recipe)
    dropped: list[Setting] = []
    for name in names:
        fits = [
            item
            for item in there
            if name == "all" or item.key.removeprefix("vars.") == name or item.key.startswith(f"{name}.")
        ]
        if not fits:
            known = [item.key.removeprefix("vars.") for item in there]
            raise ConfigError(f"`{name}` is not recorded in `{path}`", hint=did_you_mean(name, known))
        dropped += [item for item in fits if item not in dropped]
    kept: dict[str, dict[str, Any]] = {}
    for step, values in (read_json_object(path) if path.is_file() else {}).items():
        left = {key: value for key, value in values.items() if f"{step}.{key}" not in {item.key for item in dropped}}
        kept |= {step: left} if left else {}
    if dropped:
        replace_durably(path, pretty_json(kept))
    return tuple(dropped)


def remember_settings(graph: Graph, settings: tuple[Setting, ...], listener: Listener = ignore) -> None:
    """Record what was typed after `-o` in the workspace of a graph, as flags of verbs are; nothing for other recipes.

    Values are recorded with the type that their place has given them, existing paths as absolute ones.
    """
    recipe = graph.recipe
    if recipe.path.name != RECIPE:
        return
    for setting in settings:
        step, _, key = _split(graph, setting.key)
        if step == "vars":
            value = recipe.vars[key] if key in recipe.vars else list(recipe.axes.values[key])
            place = key if _feeds_input(graph, key) else ""
        else:
            text = next(item for item in recipe.steps.values() if step in (item.id, item.written))
            verb = graph.verbs[text.id]
            place = key if key.partition(".")[0] in {item.name for item in input_fields(verb.config)} else ""
            value = text.when if key == "when" else _at(text.fields, key.split("."))
        remember(recipe.path.parent, {step: {key: _absolute(value) if place else value}})
    listener(Note(text=f"recorded for later commands in `{recipe.path.parent / OVERRIDES}`"))


def _split(graph: Graph, key: str) -> tuple[str, str, str]:
    """(step, `.`, field) of the key of a setting; values on axes may hold dots."""
    name = key.removeprefix("vars.")
    if "." not in name:
        return "vars", ".", name
    ids = [item for step in graph.recipe.steps.values() for item in (step.id, step.written)]
    step = max((item for item in ids if name.startswith(f"{item}.")), key=len)
    return step, ".", name[len(step) + 1 :]


def _feeds_input(graph: Graph, variable: str) -> bool:
    wanted = "${" + variable + "}"
    return any(
        wanted in str(text.fields.get(item.name, ""))
        for text in graph.recipe.steps.values()
        for item in input_fields(graph.verbs[text.id].config)
    )


def _at(values: Any, path: list[str]) -> Any:
    for part in path:
        values = values[part]
    return values


def _absolute(value: Any) -> Any:
    """Existing paths as absolute ones, since the next command may come from another folder."""
    if isinstance(value, str) and Path(value).exists():
        return str(Path(value).absolute())
    if isinstance(value, dict):
        return {name: _absolute(item) for name, item in value.items()}
    return [_absolute(item) for item in value] if isinstance(value, list | tuple) else value


def load(recipe: Path, settings: tuple[Setting, ...], listener: Listener = ignore) -> Graph:
    """The checked graph of a recipe under recorded and given settings (given ones win); says what was recorded.

    A recorded setting that holds against a later edit of the recipe is a warning.
    """
    old = recorded(recipe)
    given = {setting.key.removeprefix("vars.") for setting in settings}
    used = [setting for setting in old if setting.key.removeprefix("vars.") not in given]
    if used:
        path = recipe.parent / OVERRIDES
        shown = ", ".join(f"{setting.key.removeprefix('vars.')}={show_value(setting.shown)}" for setting in used)
        listener(Note(text=f"recorded settings are used ({path}): {shown}"))
        edited = recipe.stat().st_mtime_ns > path.stat().st_mtime_ns
        for setting, value, where in against(recipe, used) if edited else ():
            name = setting.key.removeprefix("vars.")
            text = f"`{name}={show_value(setting.shown)}` is recorded and holds, not `{show_value(value)}` in {where}"
            listener(Note(text=f"{text}; to drop it: langadapt run --forget {name}", level="warning"))
    return build(recipe, old + settings)


def against(recipe: Path, settings: Iterable[Setting]) -> list[tuple[Setting, Any, str]]:
    """The settings that replace another value in the file, with that value and its place."""
    loaded = load_file(recipe)
    found = []
    for setting in settings:
        step, _, key = setting.key.partition(".")
        top = ["vars", key] if step == "vars" else ["steps", step.partition(EXPANDED)[0], *key.split(".")]
        value: Any = loaded.values
        for part in top:
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None and value != setting.value:
            found.append((setting, value, loaded.places.get(".".join(top), str(recipe))))
    return found


@dataclass(frozen=True)
class VerbDone:
    """A verb that was run in a workspace: its step's result, and the whole run that led to it."""

    step: StepDone
    run: RunDone

    @property
    def artifact(self) -> Artifact:
        """What the verb made."""
        return self.step.artifact

    @property
    def state(self) -> str:
        """`new`, `continue` or `up to date`."""
        return self.step.state

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should look at."""
        return tuple(text for step in self.run.steps for text in step.warnings)


def run_verb(
    verb: str,
    overrides: Mapping[str, Any],
    *,
    lang: str | None = None,
    dry_run: bool = False,
    listener: Listener = ignore,
    folder: Path | None = None,
) -> VerbDone | Plan:
    """Run the recipe of the workspace (the current folder) up to the steps that use `verb`.

    `overrides` are set in those steps and recorded for later commands. ConfigError if the recipe has no such step or
    does not know `lang`.
    """
    recipe = (folder or Path()) / RECIPE
    graph = load(recipe, (), listener if not overrides else ignore)
    targets = _targets(graph, verb, lang)
    values = {_name_of(target, targets, graph): _portable(target, overrides) for target in targets}
    if overrides:
        flags = [
            Setting(f"{name}.{key}", value, "--" + key.replace("_", "-"))
            for name, pairs in values.items()
            for key, value in pairs.items()
        ]
        graph = load(recipe, tuple(flags), listener)
    chosen = graph.up_to(target.id for target in targets)
    if dry_run:
        return plan(chosen, recipe.parent, listener=listener)
    if overrides:
        remember(recipe.parent, values)
        listener(Note(text=f"recorded for later commands in `{recipe.parent / OVERRIDES}`"))
    done = runner.run(chosen, recipe.parent, listener=listener)
    first = next((target.id for target in targets if target.id == verb), targets[0].id)
    return VerbDone(next(step for step in done.steps if step.id == first), done)


def _name_of(target: Step, targets: list[Step], graph: Graph) -> str:
    """What a setting is recorded for: a step as it is written if all that the matrix makes of it are meant."""
    whole = {step.id for step in graph.steps.values() if step.written == target.written}
    return target.written if whole <= {step.id for step in targets} else target.id


def _portable(step: Step, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides as they are recorded: paths absolute, since the next command may come from another folder."""
    inputs = {item.name for item in input_fields(step.verb.config)}
    return {key: _absolute(value) if key in inputs else value for key, value in overrides.items()}


def _targets(graph: Graph, verb: str, lang: str | None) -> list[Step]:
    users = [step for step in graph.steps.values() if step.verb.name == verb]
    where = str(graph.recipe.path)
    if not users:
        off = [name for name in graph.off if graph.recipe.steps[name].verb == verb]
        why = f"its step `{off[0]}` is switched off" if off else "no step of the recipe uses it"
        verbs = ", ".join(dict.fromkeys(step.verb.name for step in graph.steps.values()))
        raise ConfigError(f"`{verb}` cannot run here: {why}", where=where, hint=f"the recipe uses: {verbs}")
    if lang is None:
        return users
    wanted = normalise(lang)
    known = {found for step in graph.steps.values() if (found := _lang(step)) is not None}
    if wanted not in known:
        shown = ", ".join(sorted(known)) or "none"
        raise ConfigError(
            f"the recipe does not know the language `{wanted}`; it knows: {shown}",
            where=where,
            hint=f"leave `--lang` out, or make a workspace for it: langadapt init {wanted} --lang {wanted} --text FILE",
        )
    matching = [step for step in users if _lang(step) == wanted]
    if not matching and any(_lang(step) is not None for step in users):
        langs = ", ".join(sorted({str(_lang(step)) for step in users if _lang(step) is not None}))
        raise ConfigError(f"no `{verb}` step of the recipe is for `{wanted}`", where=where, hint=f"there are: {langs}")
    return matching or users


def _lang(step: Step) -> str | None:
    value = step.values.get("lang")
    return normalise(value) if isinstance(value, str) else None


def find_run(given: Path | None) -> tuple[Graph, Path, tuple[Setting, ...]]:
    """The recipe, folder and settings of a run: of a run folder or workspace, by default the one that is here."""
    folder = given if given is not None else _only_run()
    if (folder / RECIPE).is_file():
        recipe = folder / RECIPE
        return build(recipe, recorded(recipe)), folder, recorded(recipe)
    if not (folder / HISTORY).is_file():
        raise ConfigError(
            f"`{folder}` is neither a workspace (no {RECIPE}) nor the folder of a run (no {HISTORY})",
            hint="give the folder that `langadapt run` wrote, e.g. langadapt status work/quickstart-hu",
        )
    started = [line for line in read_json_lines(folder / HISTORY) if line.get("event") == "started"]
    if not started:
        raise ConfigError(f"`{folder / HISTORY}` tells of no run")
    settings = tuple(Setting.of_plain(record) for record in started[-1]["settings"])
    recipe = Path(started[-1]["recipe"])
    if not recipe.is_file():
        raise ConfigError(f"the recipe `{recipe}` of this run is no longer there", where=str(folder / HISTORY))
    return build(recipe, settings, cwd=Path(started[-1]["cwd"])), folder, settings


def step_output(name: str) -> Path | None:
    """The current output of step `name` in the workspace or run folder that is here; None if there is none.

    The place, not the link to it: a link may be turned while someone reads.
    """
    if not (Path(RECIPE).is_file() or Path(HISTORY).is_file()) or Path(name).name != name or name in (".", ".."):
        return None
    made = last_output(Path("steps") / name)
    return None if made is None else Path("steps") / made.path.name


def _only_run() -> Path:
    if Path(RECIPE).is_file() or Path(HISTORY).is_file():
        return Path()
    runs = sorted(path.parent for path in Path("work").glob(f"*/{HISTORY}"))
    if len(runs) == 1:
        return runs[0]
    hint = f"give one: {', '.join(str(path) for path in runs)}" if runs else "run a recipe: langadapt run RECIPE"
    raise ConfigError(f"there is no {RECIPE} here, and {len(runs)} runs below `work/`", hint=hint)
