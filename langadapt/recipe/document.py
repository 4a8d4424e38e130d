"""A recipe file as it is written: variables and steps, each with the line it stands on; nothing is filled in yet."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langadapt.core.config import nearest
from langadapt.core.errors import ConfigError
from langadapt.recipe.axes import Axes, Point

# Between the id of a step and its values on the axes of a matrix; no id may hold it.
EXPANDED = "@"
# An id names a folder (`<id>-<fingerprint>`), so it must not be able to look like one of those.
LOOKS_LIKE_OUTPUT = re.compile(r".*-[0-9a-f]{10}")
# A problem of a step over a matrix is told once, not for each of its points.
_POINT = re.compile(r"(?<=[\w-])@[A-Za-z0-9._+,-]+")


@dataclass(frozen=True)
class StepText:
    """One step as written; `where` maps a dotted key inside the step to `file:line` (or `-o`, or a file of overrides).

    `typed` holds the field names whose value came from the command line. `axes` are those of the matrix that the step
    is made over; once it is expanded `base` is its id in the file and `point` its values on them.
    """

    id: str
    verb: str
    when: Any
    fields: Mapping[str, Any]
    where: Mapping[str, str]
    place: str
    typed: frozenset[str] = frozenset()
    axes: tuple[str, ...] = ()
    base: str = ""
    point: Point = field(default_factory=dict)

    @property
    def written(self) -> str:
        """The id as it stands in the file."""
        return self.base or self.id


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
    axes: Axes = field(default_factory=Axes)

    @property
    def folder(self) -> Path:
        """The folder that paths in the recipe start from and may not leave."""
        return self.path.parent

    def expanded(self, written: str) -> list[StepText]:
        """The steps that a step in the file stands for: itself, or one for each of its points."""
        return [step for step in self.steps.values() if step.written == written]


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
        self._told: set[tuple[str, str | None]] = set()

    def add(self, message: str, where: str | None = None, hint: str | None = None) -> None:
        """Remember one problem."""
        self.keep(ConfigError(message, where=where, hint=hint))

    def keep(self, error: ConfigError) -> None:
        """Remember a problem, once."""
        key = (_POINT.sub("", error.message), error.where)
        if key not in self._told:
            self._told.add(key)
            self.found.append(error)

    def unset(self, name: str, what: str, where: str) -> None:
        """Remember a variable that `what` needs and that has no value; each is told once."""
        self.missing.setdefault(name, (what, where))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Remember a ConfigError of the block instead of raising it."""
        try:
            yield
        except ConfigError as error:
            self.keep(error)

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
