"""One step with its values filled in, and where each of its inputs comes from."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from langadapt.core.config import StepConfig
from langadapt.core.validate import validate
from langadapt.core.verb import Verb
from langadapt.recipe.axes import Point
from langadapt.recipe.sources import FromStep, Source

Wiring = Source | tuple[Source, ...] | dict[str, Source]


@dataclass(frozen=True)
class Step:
    """One step with its values filled in; `wiring` says where each of its inputs comes from.

    `written` is its id in the file, and `point` its values on the axes of the matrix (empty for most).
    """

    id: str
    verb: Verb
    values: Mapping[str, Any]
    wiring: Mapping[str, Wiring]
    where: Mapping[str, str]
    written: str = ""
    point: Point = field(default_factory=dict)

    @property
    def needs(self) -> list[str]:
        """Ids of the steps it reads, in the order of its fields."""
        found = [item.step for value in self.wiring.values() for item in members(value) if isinstance(item, FromStep)]
        return list(dict.fromkeys(found))

    def plain(self, place_of: Callable[[str], str]) -> dict[str, Any]:
        """Its values and inputs as plain data; `place_of(step id)` stands for another step's artifact."""

        def path(source: Source) -> str:
            return place_of(source.step) if isinstance(source, FromStep) else source.path

        values = dict(self.values)
        for name, wiring in self.wiring.items():
            if isinstance(wiring, tuple):
                values[name] = [path(item) for item in wiring]
            elif isinstance(wiring, dict):
                values[name] = {key: path(item) for key, item in wiring.items()}
            else:
                values[name] = path(wiring)
        return values

    def config(self, place_of: Callable[[str], str]) -> StepConfig:
        """The verb's config with inputs as paths; `place_of(step id)` is the folder of another step's artifact."""
        return validate(self.verb.config, self.plain(place_of), self.where, f"step `{self.id}` ({self.verb.name})")


def members(wiring: Wiring) -> Iterator[Source]:
    """The single inputs of a field."""
    if isinstance(wiring, tuple):
        yield from wiring
    elif isinstance(wiring, dict):
        yield from wiring.values()
    else:
        yield wiring
