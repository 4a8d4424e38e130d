"""`${name}` in the values of a recipe."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from langadapt.core.errors import ConfigError
from langadapt.recipe.axes import Axes, Point
from langadapt.recipe.document import Recipe, did_you_mean

# `$${` is a literal `${`.
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}")


class Unset:
    """Value of `${name}` where the variable is null: the field keeps its default."""

    def __init__(self, name: str) -> None:
        self.name = name


@dataclass(frozen=True)
class Variables:
    """The variables of a recipe, ready to be filled in."""

    values: Mapping[str, Any]
    typed: frozenset[str]
    axes: Axes = field(default_factory=Axes)
    point: Point = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Recipe) -> "Variables":
        """Variables with the command line laid over them."""
        return cls(recipe.vars, recipe.typed_vars, recipe.axes)

    def at(self, point: Point) -> "Variables":
        """The same for a step at one point of the matrix: its axes are variables there."""
        return replace(self, values={**self.values, **self.axes.variables(point)}, point=point)

    def spread(self, key: str) -> list["Variables"]:
        """A key of a map that names axes which the step is not over stands for one entry a value of them."""
        named = [name.partition(".")[0] for name in names_in(key)]
        free = [name for name in dict.fromkeys(named) if name in self.axes.values and name not in self.point]
        return [self.at(point) for point in self.axes.points(free, self.point)] if free else [self]

    def fill(self, value: Any, where: str | None = None) -> Any:
        """Replace every `${name}`; a value that is exactly `${name}` keeps the variable's type.

        A null variable gives Unset at the top and drops the member inside a list or a map. ConfigError for an
        unknown name, for a null or a list inside text, and for two map keys that become the same.
        """
        if isinstance(value, str):
            return self._fill_text(value, where)
        if isinstance(value, list):
            filled = [self.fill(item, where) for item in value]
            return [item for item in filled if not isinstance(item, Unset)]
        if isinstance(value, dict):
            result: dict[str, Any] = {}
            for key, item in value.items():
                for here in self.spread(key):
                    name, inner = here.fill_key(key, where), here.fill(item, where)
                    if name in result:
                        raise ConfigError(f"two keys become `{name}`", where=where)
                    if not isinstance(inner, Unset):
                        result[name] = inner
            return result
        return value

    def fill_key(self, key: str, where: str | None = None) -> str:
        """Fill a key of a map: always text."""
        return self._inside_text(key, where)

    def uses_typed(self, value: Any) -> bool:
        """Does any part of `value` come from a variable given on the command line?"""
        return any(name in self.typed for name in names_in(value))

    def _fill_text(self, text: str, where: str | None) -> Any:
        match = _REFERENCE.fullmatch(text)
        if match is not None and match[1] is not None:
            value = self._get(match[1], where)
            return Unset(match[1]) if value is None else value
        return self._inside_text(text, where)

    def _inside_text(self, text: str, where: str | None) -> str:
        def replace(match: re.Match[str]) -> str:
            if match[1] is None:
                return "${"
            value = self._get(match[1], where)
            if value is None:
                raise ConfigError(f"variable `{match[1]}` is not set", where=where, hint=f"give `-o {match[1]}=...`")
            if isinstance(value, list | dict):
                raise ConfigError(f"variable `{match[1]}` holds a list, it cannot stand inside text", where=where)
            return str(value).lower() if isinstance(value, bool) else str(value)

        return _REFERENCE.sub(replace, text)

    def _get(self, name: str, where: str | None) -> Any:
        axis = name.partition(".")[0]
        if name not in self.values and axis in self.axes.values and axis not in self.point:
            raise ConfigError(
                f"`{axis}` is an axis of the matrix, and this step is not made over it",
                where=where,
                hint=f"add `matrix: [{', '.join([*self.point, axis])}]` to the step, or collect: "
                f'{{"${{{axis}}}": STEP}}',
            )
        if name not in self.values:
            raise ConfigError(f"unknown variable `{name}`", where=where, hint=did_you_mean(name, list(self.values)))
        return self.values[name]


def names_in(value: Any) -> Iterator[str]:
    """The names of all `${name}` in plain data, keys of maps included."""
    if isinstance(value, str):
        yield from (match[1] for match in _REFERENCE.finditer(value) if match[1] is not None)
    elif isinstance(value, list):
        for item in value:
            yield from names_in(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from names_in(key)
            yield from names_in(item)
