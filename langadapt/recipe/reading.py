"""Reads a recipe file and lays what was typed on the command line over it."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from langadapt.core import yaml
from langadapt.recipe.axes import Axes
from langadapt.recipe.document import (
    EXPANDED,
    LOOKS_LIKE_OUTPUT,
    Problems,
    Raw,
    Recipe,
    Setting,
    StepText,
    did_you_mean,
)
from langadapt.recipe.matrix import expand, narrowed, read_axes, step_axes

TOP_KEYS = ("name", "about", "vars", "matrix", "steps")
STEP_KEYS = ("use", "when", "matrix")
# It names a folder, so it must not be able to leave the one it belongs into.
_STEP_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,59}")
_VAR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")


def read(path: Path, settings: tuple[Setting, ...], problems: Problems) -> Recipe:
    """The recipe in `path` under `settings`, its matrix expanded; what is wrong goes to `problems`.

    ConfigError at once for a file that is no YAML.
    """
    loaded = yaml.load_file(path)
    data, lines = loaded.values, dict(loaded.places)
    for key in data:
        if key not in TOP_KEYS:
            problems.add(f"unknown key `{key}`", lines.get(key), did_you_mean(key, list(TOP_KEYS)))
    for key in ("name", "about"):
        if not isinstance(data.get(key, ""), str):
            problems.add(f"`{key}` should be text", lines.get(key))
    variables = _read_vars(data.get("vars"), lines, problems)
    axes = read_axes(data.get("matrix"), variables, lines, problems)
    steps = _read_steps(data.get("steps"), axes, lines, problems)
    recipe = Recipe(
        path,
        str(data.get("name", path.stem)),
        str(data.get("about", "")),
        variables,
        steps,
        where=_below("matrix", lines) | _below("vars", lines),
        axes=axes,
    )
    return _apply(recipe, settings, problems)


def _read_vars(value: Any, lines: Mapping[str, str], problems: Problems) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        problems.add("`vars` should map names to values", lines.get("vars"))
        return {}
    for name, item in value.items():
        place = lines.get(f"vars.{name}")
        if not _VAR_NAME.fullmatch(name):
            problems.add(f"`{name}` cannot be the name of a variable: letters, digits and `_`", place)
        if "${" in str(item):
            problems.add(f"variable `{name}` refers to a variable; only steps can", place)
    return value


def _read_steps(value: Any, axes: Axes, lines: Mapping[str, str], problems: Problems) -> dict[str, StepText]:
    if not isinstance(value, dict) or not value:
        problems.add("a recipe needs `steps: {id: {use: verb, ...}}`", lines.get("steps"))
        return {}
    steps = {}
    for name, body in value.items():
        place = lines.get(f"steps.{name}", lines.get("steps", ""))
        if not _STEP_ID.fullmatch(name) or LOOKS_LIKE_OUTPUT.fullmatch(name) or name == "vars":
            problems.add(f"`{name}` cannot be the id of a step: letters, digits, `-` and `_`, at most 60", place)
            continue
        body = {} if body is None else body
        if not isinstance(body, dict):
            problems.add(f"step `{name}` should map field names to values", place)
            continue
        verb = body.get("use", name)
        if not isinstance(verb, str):
            problems.add(f"`use` of step `{name}` should name a verb", lines.get(f"steps.{name}.use", place))
            continue
        fields = {key: item for key, item in body.items() if key not in STEP_KEYS}
        over = step_axes(name, body.get("matrix", []), axes, lines.get(f"steps.{name}.matrix", place), problems)
        where = _below(f"steps.{name}", lines)
        steps[name] = StepText(name, verb, body.get("when", True), fields, where, place, axes=over)
    return steps


def _below(prefix: str, lines: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(prefix + "."): place for key, place in lines.items() if key.startswith(prefix + ".")}


def _apply(recipe: Recipe, settings: tuple[Setting, ...], problems: Problems) -> Recipe:
    """Lay settings over a recipe: `name=value` sets a variable or narrows an axis, `step.field=value` sets a field.

    `cpt.steps=9` holds for all steps that the matrix makes of `cpt`, `cpt@hu.steps=9` for one of them.
    """
    variables, axes = dict(recipe.vars), recipe.axes
    typed, where = set(recipe.typed_vars), dict(recipe.where)
    fields = []
    for setting in settings:
        name = setting.key.removeprefix("vars.")
        if "." in name:
            fields.append(setting)
        elif name in variables:
            value = setting.value
            variables[name] = replace(value, before=variables[name]) if isinstance(value, Raw) else value
            typed.add(name)
            where[name] = setting.value.origin if isinstance(setting.value, Raw) else setting.origin
        elif name in axes.values:
            with problems.collecting():
                axes = narrowed(axes, replace(setting, key=name))
            where[name] = setting.origin
        else:
            known = [*variables, *axes.values, *(f"{step}.FIELD" for step in recipe.steps)]
            problems.add(f"the recipe has no variable `{name}`", setting.origin, did_you_mean(name, known))
    steps = expand(recipe.steps, axes, problems)
    for setting in fields:
        _set(steps, list(recipe.steps), setting, problems)
    return replace(recipe, vars=variables, steps=steps, typed_vars=frozenset(typed), where=where, axes=axes)


def _set(steps: dict[str, StepText], written: list[str], setting: Setting, problems: Problems) -> None:
    """Set a field in one step, or in all that the matrix made of a step."""
    first = setting.key.partition(".")[0]
    if EXPANDED in first:  # values of axes may hold dots
        fits = [name for name in steps if setting.key.startswith(f"{name}.")]
        first = max(fits, key=len, default=first)
    rest = setting.key[len(first) + 1 :]
    targets = [first] if first in steps else [step.id for step in steps.values() if step.written == first]
    if not targets and not isinstance(setting.value, Raw) and first.partition(EXPANDED)[0] in written:
        return  # recorded for a point of the matrix that is left out this time
    if not targets:
        problems.add(f"the recipe has no step `{first}`", setting.origin, did_you_mean(first, [*steps, *written]))
    elif rest in ("use", "matrix"):
        problems.add(f"`{rest}` cannot be set from outside the recipe", setting.origin)
    for name in targets:
        steps[name] = _set_field(steps[name], rest, setting)


def _set_field(step: StepText, key: str, setting: Setting) -> StepText:
    where = {place: line for place, line in step.where.items() if place != key and not place.startswith(key + ".")}
    where[key] = f"{setting.origin} {setting.key}"
    if key == "when":
        return replace(step, when=setting.value, where=where)
    head, *path = key.split(".")
    fields = dict(step.fields)
    if not path:
        fields[head] = setting.value
    else:
        inner: dict[str, Any] = dict(fields[head]) if isinstance(fields.get(head), dict) else {}
        fields[head] = inner
        for part in path[:-1]:
            inner[part] = dict(inner[part]) if isinstance(inner.get(part), dict) else {}
            inner = inner[part]
        inner[path[-1]] = setting.value
    return replace(step, fields=fields, where=where, typed=step.typed | {head})


__all__ = ["STEP_KEYS", "TOP_KEYS", "read"]
