"""A workspace is a folder with a recipe `langadapt.yaml`: verbs work there as they stand, flags are remembered."""

from collections.abc import Mapping
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
from langadapt.recipe import runner
from langadapt.recipe.document import Setting
from langadapt.recipe.graph import Graph, Step, build
from langadapt.recipe.plan import Plan, plan
from langadapt.recipe.record import HISTORY
from langadapt.recipe.runner import RunDone, StepDone

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
    replace_durably(path, pretty_json(kept))


def load(recipe: Path, settings: tuple[Setting, ...], listener: Listener = ignore) -> Graph:
    """The checked graph of a recipe under recorded and given settings (given ones win); says what was recorded."""
    old = recorded(recipe)
    given = {setting.key for setting in settings}
    used = [setting for setting in old if setting.key not in given]
    if used:
        shown = ", ".join(f"{setting.key.removeprefix('vars.')}={show_value(setting.shown)}" for setting in used)
        listener(Note(text=f"recorded settings are used ({recipe.parent / OVERRIDES}): {shown}"))
    return build(recipe, old + settings)


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
    values = {target.id: _portable(target, overrides) for target in targets}
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


def _portable(step: Step, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides as they are recorded: paths absolute, since the next command may come from another folder."""
    inputs = {item.name for item in input_fields(step.verb.config)}

    def absolute(value: Any) -> Any:
        if isinstance(value, str) and Path(value).exists():
            return str(Path(value).absolute())
        if isinstance(value, dict):
            return {name: absolute(item) for name, item in value.items()}
        return [absolute(item) for item in value] if isinstance(value, list | tuple) else value

    return {key: absolute(value) if key in inputs else value for key, value in overrides.items()}


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


def _only_run() -> Path:
    if Path(RECIPE).is_file() or Path(HISTORY).is_file():
        return Path()
    runs = sorted(path.parent for path in Path("work").glob(f"*/{HISTORY}"))
    if len(runs) == 1:
        return runs[0]
    hint = f"give one: {', '.join(str(path) for path in runs)}" if runs else "run a recipe: langadapt run RECIPE"
    raise ConfigError(f"there is no {RECIPE} here, and {len(runs)} runs below `work/`", hint=hint)
