"""Methods and verbs are found by listing a folder: file name = public name, first docstring line = its description."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, TypeVar

from langadapt.core.config import Options, nearest
from langadapt.core.errors import ConfigError
from langadapt.core.listing import method_rooms, source_names, summary, verb_names
from langadapt.core.types import Portion

__all__ = ["Facts", "Method", "load_method", "load_verb", "method", "method_names", "summary", "verb_names"]

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Facts:
    """What a method says about itself: what it needs beside the base model, and where it was published.

    `defaults` are settings of the verb that suit it better than the verb's own; what the user sets comes first.
    `laws` are promises that the contract tests of its room hold it to. `portion` says how much of any model a strategy
    lets move, from its options alone: what a run costs is known before the model is.
    """

    needs: tuple[str, ...] = ()
    cite: str = ""
    defaults: Mapping[str, float] = field(default_factory=dict)
    laws: tuple[str, ...] = ()
    portion: Callable[[Any], Portion] | None = None


@dataclass(frozen=True)
class Method:
    """A loaded method: call it with inputs and an instance of `options`."""

    name: str
    summary: str
    function: Callable[..., Any]
    options: type[Options]
    facts: Facts

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def method(
    *,
    needs: tuple[str, ...] = (),
    cite: str = "",
    defaults: Mapping[str, float] | None = None,
    laws: tuple[str, ...] = (),
    portion: Callable[[Any], Portion] | None = None,
) -> Callable[[Function], Function]:
    """Mark the one public function of a method file."""

    def mark(function: Function) -> Function:
        function.__dict__["langadapt_method"] = Facts(needs, cite, defaults or {}, laws, portion)
        return function

    return mark


def method_names(room: str) -> list[str]:
    """Public names of the methods of a room: its own files that mark one, then entry points `langadapt.<room>`."""
    own = _own_names(room)
    return own + sorted(point.name for point in entry_points(group=f"langadapt.{room}") if point.name not in own)


def _own_names(room: str) -> list[str]:
    return source_names(f"langadapt.{room}", containing="\n@method(")


def load_verb(name: str) -> ModuleType:
    """Import `steps/<name>.py`; ConfigError with the nearest name if there is none."""
    _check_name(name, verb_names(), "verb")
    return importlib.import_module(f"langadapt.steps.{name.replace('-', '_')}")


def load_method(room: str, name: str, word: str = "") -> Method:
    """Import one method of a room; ConfigError with the nearest name if there is none. `word` is what its user says."""
    if name in _own_names(room):
        module = importlib.import_module(f"langadapt.{room}.{name.replace('-', '_')}")
    else:
        _check_name(name, method_names(room), word or f"method of `{room}`", methods=True)
        points = {point.name: point for point in entry_points(group=f"langadapt.{room}")}
        module = importlib.import_module(points[name].module)
    for value in vars(module).values():
        facts = getattr(value, "__dict__", {}).get("langadapt_method")
        if isinstance(facts, Facts) and value.__module__ == module.__name__:
            text = (module.__doc__ or "").strip().splitlines()
            return Method(name, text[0].rstrip(".") if text else "", value, getattr(module, "Options", Options), facts)
    raise ConfigError(f"`{module.__name__}` marks no function with `@method(...)`")


def _check_name(name: str, known: list[str], what: str, *, methods: bool = False) -> None:
    """ConfigError for a name that is not known; of `methods`, with the room that has one of this name."""
    if name in known:
        return
    rooms = [room for room in method_rooms() if name in method_names(room)] if methods else []
    near = nearest(name, known)
    if rooms:
        hint = f"that is a method of `{rooms[0]}`; see `langadapt list methods`"
    else:
        hint = f"did you mean `{near}`?" if near else f"known: {', '.join(known)}"
    raise ConfigError(f"unknown {what} `{name}`", hint=hint)
