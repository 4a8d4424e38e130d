"""`matrix`: a step that is made once for every language, seed or strategy.

    matrix:
      lang: [hu, fi]
      strategy: {gentle: {rate: 1e-4}, bold: {rate: 5e-4}}
      exclude: [{lang: fi, strategy: bold}]
    steps:
      cpt: {matrix: [lang, strategy], learning_rate: "${strategy.rate}", ...}

makes the steps `cpt@hu,gentle`, `cpt@hu,bold` and `cpt@fi,gentle`. A reference to `cpt` from a step over the same axes
means the one with the same values.
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from langadapt.core.errors import ConfigError
from langadapt.core.yaml import parse_value, resolve_scalar
from langadapt.recipe.axes import Axes, Point, as_text
from langadapt.recipe.document import EXPANDED, LOOKS_LIKE_OUTPUT, Problems, Raw, Setting, StepText, did_you_mean

EXCLUDE = "exclude"
# More steps than this is a slip of the pen, not an experiment.
MAX_STEPS = 1000
MAX_ID = 120
_AXIS = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")
# What may stand in the name of a folder and after `-o`: no `/`, no `=`, no `,`, nothing that a shell would touch.
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")


def narrowed(axes: Axes, setting: Setting) -> Axes:
    """The axes after `-o lang=hu` or `-o seed=[4, 5]`; ConfigError for a value that an axis cannot take."""
    name, old = setting.key, axes.values[setting.key]
    given = setting.value
    if isinstance(given, Raw):
        texts = all(isinstance(value, str) for value in old)
        parsed = parse_value(given.text, given.origin, as_text=True)
        items = parsed if isinstance(parsed, list) else [parsed]
        given = [resolve_scalar(item, given.origin) if isinstance(item, str) and not texts else item for item in items]
    items = given if isinstance(given, list) else [given]
    if name in axes.brought:
        for item in items:
            if item not in old:
                known = [as_text(value) for value in old]
                raise ConfigError(
                    f"the axis `{name}` has no value `{item}`",
                    where=setting.origin,
                    hint=did_you_mean(str(item), known),
                )
    problem = _wrong_values(name, items)
    if problem is not None:
        raise ConfigError(problem, where=setting.origin, hint=f"write e.g. `-o {name}=[{as_text(old[0])}]`")
    return replace(axes, values={**axes.values, name: tuple(items)})


def _wrong_values(name: str, items: list[Any]) -> str | None:
    if not items:
        return f"the axis `{name}` has no values"
    for item in items:
        if isinstance(item, list | dict) or item is None or not _VALUE.fullmatch(as_text(item)):
            return (
                f"`{item}` cannot be a value of the axis `{name}`: values are parts of file names, so letters, digits "
                "and `._+-`, at most 40"
            )
    texts = [as_text(item).casefold() for item in items]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    return None if twice is None else f"the axis `{name}` has the value `{twice}` twice"


def read_axes(value: Any, variables: Mapping[str, Any], lines: Mapping[str, str], problems: Problems) -> Axes:
    """The `matrix` of a recipe; everything that is wrong goes to `problems`."""
    if value is None:
        return Axes()
    if not isinstance(value, dict):
        problems.add("`matrix` should map axes to lists of values", lines.get("matrix"), "e.g. matrix: {seed: [1, 2]}")
        return Axes()
    values: dict[str, tuple[Any, ...]] = {}
    brought: dict[str, dict[Any, dict[str, Any]]] = {}
    for name, given in value.items():
        where = lines.get(f"matrix.{name}")
        if name == EXCLUDE:
            continue
        if not _AXIS.fullmatch(name) or name in variables:
            why = "is a variable as well" if name in variables else "cannot be an axis: letters, digits and `_`"
            problems.add(f"`{name}` {why}", where)
            continue
        items = list(given) if isinstance(given, list | dict) else [given]
        if (problem := _wrong_values(name, items)) is not None:
            problems.add(problem, where)
            continue
        values[name] = tuple(items)
        if isinstance(given, dict):
            brought[name] = _brought(name, given, lines, problems)
    return Axes(values, brought, _excluded(value.get(EXCLUDE), values, lines, problems))


def _brought(
    name: str, given: dict[str, Any], lines: Mapping[str, str], problems: Problems
) -> dict[Any, dict[str, Any]]:
    """Variables that come with each value of an axis; all values must bring the same ones."""
    found: dict[Any, dict[str, Any]] = {}
    keys = list(dict.fromkeys(key for item in given.values() if isinstance(item, dict) for key in item))
    for value, item in given.items():
        where = lines.get(f"matrix.{name}.{value}")
        if item is not None and not isinstance(item, dict):
            problems.add(f"`{name}.{value}` should map names to values", where, f"e.g. {value}: {{rate: 1e-4}}")
            continue
        missing = [key for key in keys if key not in (item or {})]
        if missing:
            problems.add(f"`{name}.{value}` lacks `{missing[0]}`, which other values of `{name}` have", where)
        bad = [key for key in item or {} if not _AXIS.fullmatch(key) or "${" in str((item or {})[key])]
        if bad:
            problems.add(f"`{name}.{value}.{bad[0]}` cannot be used: a name and a plain value are needed", where)
        found[value] = dict(item or {})
    return found


def _excluded(
    value: Any, axes: Mapping[str, tuple[Any, ...]], lines: Mapping[str, str], problems: Problems
) -> tuple[Point, ...]:
    entries = value if isinstance(value, list) else [] if value is None else [value]
    found = []
    for number, entry in enumerate(entries):
        where = lines.get(f"matrix.{EXCLUDE}.{number}", lines.get(f"matrix.{EXCLUDE}"))
        if not isinstance(entry, dict) or not entry:
            problems.add("`exclude` should list combinations", where, "e.g. exclude: [{lang: fi, seed: 2}]")
            continue
        for name, item in entry.items():
            if name not in axes:
                problems.add(f"`exclude` names no axis of the matrix: `{name}`", where, did_you_mean(name, list(axes)))
            elif as_text(item) not in map(as_text, axes[name]):
                known = [as_text(known) for known in axes[name]]
                problems.add(
                    f"`exclude`: the axis `{name}` has no value `{item}`", where, did_you_mean(str(item), known)
                )
        found.append(entry)
    return tuple(found)


def step_axes(name: str, value: Any, axes: Axes, where: str, problems: Problems) -> tuple[str, ...]:
    """The axes that a step is made over, as its `matrix` lists them."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(item, str) for item in names):
        problems.add(f"`matrix` of step `{name}` should list axes", where, f"known: {', '.join(axes.values) or 'none'}")
        return ()
    for item in names:
        if item not in axes.values:
            known = list(axes.values)
            hint = did_you_mean(item, known) if known else "declare it at the top: matrix: {lang: [hu, fi]}"
            problems.add(f"step `{name}`: the matrix has no axis `{item}`", where, hint)
    if len(set(names)) != len(names):
        problems.add(f"step `{name}` names an axis twice", where)
    return tuple(item for item in dict.fromkeys(names) if item in axes.values)


def expand(steps: Mapping[str, StepText], axes: Axes, problems: Problems) -> dict[str, StepText]:
    """Every step once for each of its points; ids are `<id>@<value>,<value>` in the order of the step's axes."""
    made: dict[str, StepText] = {}
    for step in steps.values():
        if not step.axes:
            made[step.id] = step
            continue
        points = list(itertools.islice(axes.points(step.axes), MAX_STEPS + 1))
        if len(points) + len(made) > MAX_STEPS:
            problems.add(f"the matrix makes more than {MAX_STEPS:,} steps", step.place)
            return made
        if not points:
            problems.add(f"step `{step.id}`: `exclude` leaves nothing of it", step.place)
        for point in points:
            name = f"{step.id}{EXPANDED}{','.join(as_text(point[axis]) for axis in step.axes)}"
            if len(name) > MAX_ID or LOOKS_LIKE_OUTPUT.fullmatch(name):
                problems.add(f"`{name}` cannot be the id of a step", step.place, "use shorter values")
            made[name] = replace(step, id=name, base=step.id, point=point)
    return made
