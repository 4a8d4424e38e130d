"""A recipe file as it is written: variables and steps, each with the line it stands on; nothing is filled in yet."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from langadapt.core import yaml
from langadapt.core.config import nearest
from langadapt.core.errors import ConfigError

TOP_KEYS = ("name", "about", "vars", "steps")
STEP_KEYS = ("use", "when")
# An id names a folder (`<id>-<fingerprint>`), so it must not be able to look like one of those or leave the folder.
_STEP_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,59}")
_LOOKS_LIKE_OUTPUT = re.compile(r".*-[0-9a-f]{10}")
_VAR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")


@dataclass(frozen=True)
class StepText:
    """One step as written; `where` maps a dotted key inside the step to `file:line` (or `-o`, or a file of overrides).

    `typed` holds the field names whose value came from the command line.
    """

    id: str
    verb: str
    when: Any
    fields: Mapping[str, Any]
    where: Mapping[str, str]
    place: str
    typed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Recipe:
    """A recipe with command-line settings laid over it; `cwd` is where relative paths among those start from."""

    path: Path
    name: str
    about: str
    vars: Mapping[str, Any]
    steps: Mapping[str, StepText]
    typed_vars: frozenset[str] = frozenset()
    where: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = field(default_factory=Path.cwd)

    @property
    def folder(self) -> Path:
        """The folder that paths in the recipe start from and may not leave."""
        return self.path.parent


@dataclass(frozen=True)
class Raw:
    """Text typed on the command line whose type is decided by where it is used; `before` is what it replaces."""

    text: str
    origin: str
    before: Any = None


@dataclass(frozen=True)
class Setting:
    """`key=value` from outside the file: `model`, or `cpt.tokens`; `origin` is what an error points at."""

    key: str
    value: Any
    origin: str = "-o"

    @property
    def shown(self) -> Any:
        """The value for people: text typed on the command line as it was typed."""
        return self.value.text if isinstance(self.value, Raw) else self.value

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON; `of_plain` reads it back."""
        if isinstance(self.value, Raw):
            return {"key": self.key, "text": self.value.text, "origin": self.value.origin}
        return {"key": self.key, "value": self.value, "origin": self.origin}

    @classmethod
    def of_plain(cls, record: Mapping[str, Any]) -> "Setting":
        """The setting that `plain` wrote."""
        if "text" in record:
            return cls(record["key"], Raw(record["text"], record["origin"]))
        return cls(record["key"], record["value"], record["origin"])

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """What stands after `-o`; ConfigError if it is not `key=value`."""
        key, equals, value = text.partition("=")
        if not equals or not all(key.strip().split(".")):
            raise ConfigError(
                f"`-o {text}` is not of the form name=value", hint="write e.g. `-o target=fi` or `-o cpt.tokens=40k`"
            )
        return cls(key.strip(), Raw(value, f"-o {text}"))


class Problems:
    """Collects what is wrong with a recipe, so that everything is told at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[ConfigError] = []
        self.missing: dict[str, tuple[str, str]] = {}

    def add(self, message: str, where: str | None = None, hint: str | None = None) -> None:
        """Remember one problem."""
        self.found.append(ConfigError(message, where=where, hint=hint))

    def unset(self, name: str, what: str, where: str) -> None:
        """Remember a variable that `what` needs and that has no value; each is told once."""
        self.missing.setdefault(name, (what, where))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Remember a ConfigError of the block instead of raising it."""
        try:
            yield
        except ConfigError as error:
            self.found.append(error)

    def raise_if_any(self) -> None:
        """One problem is raised as it is, several as one error that lists them."""
        if self.missing:
            give = "give " + " ".join(f"-o {name}=..." for name in self.missing)
            for name, (what, where) in self.missing.items():
                self.add(f"{what}, but variable `{name}` is not set", where, give)
            self.missing = {}
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            lines = [f"  {error.message}" + (f"  ({error.where})" if error.where else "") for error in self.found]
            hint = next((error.hint for error in self.found if error.hint), None)
            raise ConfigError(f"{len(lines)} problems in `{self.path}`\n" + "\n".join(lines), hint=hint)


def did_you_mean(name: str, known: list[str]) -> str:
    """Hint for a misspelt name."""
    near = nearest(name, known) or nearest(name, [item.replace("-", "_") for item in known])
    near = next((item for item in known if item.replace("-", "_") == (near or "").replace("-", "_")), None)
    return f"did you mean `{near}`?" if near else f"known: {', '.join(sorted(known)) or 'none'}"


def read(path: Path, settings: tuple[Setting, ...] = ()) -> Recipe:
    """Read a recipe file and lay `settings` over it; ConfigError lists every problem with file and line."""
    loaded = yaml.load_file(path)
    problems = Problems(path)
    data, lines = loaded.values, dict(loaded.places)
    for key in data:
        if key not in TOP_KEYS:
            problems.add(f"unknown key `{key}`", lines.get(key), did_you_mean(key, list(TOP_KEYS)))
    for key in ("name", "about"):
        if not isinstance(data.get(key, ""), str):
            problems.add(f"`{key}` should be text", lines.get(key))
    variables = _read_vars(data.get("vars"), lines, problems)
    steps = _read_steps(data.get("steps"), lines, problems)
    problems.raise_if_any()
    recipe = Recipe(
        path, data.get("name", path.stem), data.get("about", ""), variables, steps, where=_below("vars", lines)
    )
    return apply(recipe, settings)


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


def _read_steps(value: Any, lines: Mapping[str, str], problems: Problems) -> dict[str, StepText]:
    if not isinstance(value, dict) or not value:
        problems.add("a recipe needs `steps: {id: {use: verb, ...}}`", lines.get("steps"))
        return {}
    steps = {}
    for name, body in value.items():
        place = lines.get(f"steps.{name}", lines.get("steps", ""))
        if not _STEP_ID.fullmatch(name) or _LOOKS_LIKE_OUTPUT.fullmatch(name) or name == "vars":
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
        steps[name] = StepText(name, verb, body.get("when", True), fields, _below(f"steps.{name}", lines), place)
    return steps


def _below(prefix: str, lines: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(prefix + "."): place for key, place in lines.items() if key.startswith(prefix + ".")}


def apply(recipe: Recipe, settings: tuple[Setting, ...]) -> Recipe:
    """Lay settings over a recipe: `name=value` sets a variable, `step.field=value` a field (or a part of one)."""
    problems = Problems(recipe.path)
    variables, steps = dict(recipe.vars), dict(recipe.steps)
    typed, where = set(recipe.typed_vars), dict(recipe.where)
    for setting in settings:
        first, _, rest = setting.key.partition(".")
        if first == "vars" and rest:
            first, rest = rest, ""
        if not rest and first in variables:
            value = setting.value
            variables[first] = replace(value, before=variables[first]) if isinstance(value, Raw) else value
            typed.add(first)
            where[first] = setting.origin
        elif not rest:
            known = [*variables, *(f"{name}.FIELD" for name in steps)]
            problems.add(f"the recipe has no variable `{first}`", setting.origin, did_you_mean(first, known))
        elif first not in steps:
            problems.add(f"the recipe has no step `{first}`", setting.origin, did_you_mean(first, list(steps)))
        elif rest == "use":
            problems.add("`use` cannot be set from outside the recipe", setting.origin)
        else:
            steps[first] = _set_field(steps[first], rest, setting)
    problems.raise_if_any()
    return replace(recipe, vars=variables, steps=steps, typed_vars=frozenset(typed), where=where)


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
