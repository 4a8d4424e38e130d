"""The axes of a matrix, and the points on them at which a step is made."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Point = Mapping[str, Any]


@dataclass(frozen=True)
class Axes:
    """The axes of a recipe: their values in order, the variables that a value brings along, and what is left out."""

    values: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    brought: Mapping[str, Mapping[Any, Mapping[str, Any]]] = field(default_factory=dict)
    exclude: tuple[Point, ...] = ()

    def points(self, names: Sequence[str], within: Point | None = None) -> Iterator[dict[str, Any]]:
        """All combinations of `names` (those of `within` fixed) that are not excluded; `within` is part of each."""
        fixed = dict(within or {})
        free = [name for name in names if name not in fixed]
        for combination in itertools.product(*(self.values[name] for name in free)):
            point = fixed | dict(zip(free, combination, strict=True))
            if not any(_matches(entry, point) for entry in self.exclude):
                yield point

    def variables(self, point: Point) -> dict[str, Any]:
        """What `${...}` may name at a point: the axes themselves, and `axis.key` for what a value brings along."""
        found = dict(point)
        for name, value in point.items():
            for key, item in self.brought.get(name, {}).get(value, {}).items():
                found[f"{name}.{key}"] = item
        return found


def _matches(entry: Point, point: Point) -> bool:
    return all(name in point and as_text(point[name]) == as_text(value) for name, value in entry.items())


def as_text(value: Any) -> str:
    """A scalar as it stands inside text and in the id of a step: `true`, `0.0001`, `hu`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
