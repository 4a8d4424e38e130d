"""Train whole layers, such as the last four; the others and what lies outside them stay."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from langadapt.core.config import Options as OptionsBase
from langadapt.core.errors import ConfigError
from langadapt.core.registry import method
from langadapt.core.types import Movable, Portion
from langadapt.select.choice import TablesMove, layers_of, moving, tables_of, tables_share
from langadapt.select.inputs import SelectInputs

_PART = re.compile(r"(?P<one>-?\d+)|(?P<first>-?\d+)?:(?P<last>-?\d+)?")


def _as_written(value: Any) -> Any:
    """The text that YAML took for something else: `-4:` for a mapping with an empty value, `0` for a number."""
    if isinstance(value, dict) and len(value) == 1 and next(iter(value.values())) in (None, ""):
        return f"{next(iter(value))}:"
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, bool) or not isinstance(part, str | int) for part in parts):
        return value
    return ",".join(str(part) for part in parts)


class Options(OptionsBase):
    """Which layers, and what happens to the tables."""

    layers: Annotated[str, BeforeValidator(_as_written)] = "-4:"
    """Layers as Python counts them: `-4:` the last four, `:2,-2:` the first and the last two, `0,5,-1` these three."""

    tables: TablesMove = "new-rows"
    """Rows of input table and head that move: all but those of special tokens, those of new tokens, or none."""


@method(
    cite="Zhao et al. 2025, CoCo-CoLa: last layers choose the language that is written (arXiv 2502.12476)",
    portion=lambda options: Portion(_share(options.layers), tables_share(options.tables), whole=True),
)
def layers(inputs: SelectInputs, options: Options) -> Movable:
    """Every weight of the named layers, norms and biases among them."""
    placed = layers_of(inputs)
    if not placed:
        raise ConfigError("this model has no layers that langadapt can count", hint="use another strategy")
    wanted = picked(options.layers, max(placed.values()) + 1)
    names = {name for name, layer in placed.items() if layer in wanted}
    return moving(inputs, tables_of(inputs, options.tables), names)


def picked(text: str, count: int) -> set[int]:
    """The layers that a text like `:2,-2:` names, of `count`. ConfigError if it names none, or one too many."""
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ConfigError(f"`{text}` names no layers", hint="write e.g. `-4:`, `:2,-2:` or `0,1,-1`")
        one = match["one"]
        if one is None:
            ends = (int(end) if end else None for end in (match["first"], match["last"]))
            found.update(range(count)[slice(*ends)])
        elif not -count <= int(one) < count:
            raise ConfigError(f"there is no layer {one}: the model has {count}")
        else:
            found.add(int(one) % count)
    if not found:
        raise ConfigError(f"`{text}` names none of the {count} layers")
    return found


def _share(text: str, usual: int = 24) -> float:
    """About which share that is, before the number of layers is known."""
    try:
        return min(1.0, len(picked(text, usual)) / usual)
    except ConfigError:  # said with the model's own number of layers when it is known
        return 1.0
