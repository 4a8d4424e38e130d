"""From the fields of a config to arguments and flags of a command, and back from what was typed to plain values."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import AfterValidator, BeforeValidator
from pydantic.fields import FieldInfo
from rich.markup import escape

from langadapt.core.config import Flag, InputField, Shape, StepConfig, input_fields, marker
from langadapt.core.errors import ConfigError
from langadapt.core.languages import Lang
from langadapt.core.sources import alternatives, fit_text, show_value
from langadapt.core.units import parse_bytes, parse_count, parse_count_or_auto, parse_seconds

# What stands behind a flag in the help, by the function that reads the quantity.
_QUANTITIES: dict[Callable[[object], object], tuple[str, str]] = {
    parse_count: ("COUNT", "e.g. 4000, 4k or 4Ki"),
    parse_count_or_auto: ("COUNT|auto", "e.g. 4000, 4k, 4Ki or auto"),
    parse_bytes: ("BYTES", "e.g. 500kB, 2MB or 1GiB"),
    parse_seconds: ("TIME", "e.g. 90s, 15min or 8h"),
    get_args(Lang)[1].func: ("LANG", ""),
}
# Fields that hold the name of a method, and the room whose methods they choose from.
_METHOD_ROOMS = {"strategy": "select", "method": "embed", "head_method": "embed", "methods": "embed"}


@dataclass(frozen=True)
class Binding:
    """One field of a config on the command line."""

    name: str
    field: FieldInfo
    shape: Shape
    reads: InputField | None
    positional: bool

    @property
    def flag(self) -> str:
        """`--size`; a repeatable flag is named in the singular."""
        name = self.name.replace("_", "-")
        if self.shape != "one" and name.endswith("s") and not name.endswith(("ss", "us")):
            name = name[:-1]
        return f"--{name}"

    @property
    def label(self) -> str:
        """What it is called in help and messages: `MODEL`, `TEXT...`, `NAME=CORPUS...`, `--size`."""
        if not self.positional:
            return self.flag
        name = self.name.upper()
        if self.shape == "one":
            return name
        return (
            f"NAME={name.removesuffix('S') if name != 'CORPORA' else 'CORPUS'}..."
            if self.shape == "map"
            else f"{name}..."
        )

    @property
    def is_switch(self) -> bool:
        """A yes/no flag."""
        return bool in alternatives(self.field.annotation)

    def plain(self, given: Any) -> tuple[Any, str] | None:
        """(plain value, origin) of what Typer passes; None if the flag was not given."""
        if given is None or given == []:
            return None
        if self.is_switch:
            return given, self.flag if given else f"--no-{self.flag[2:]}"
        origin = self.label if self.positional else self.flag
        if self.shape == "one":
            return (given if self.reads else fit_text(given, self.field.annotation, f"{self.flag} {given}")), origin
        inner = _inner(self.field.annotation)
        if self.shape == "many":
            return [text if self.reads else fit_text(text, inner, f"{self.flag} {text}") for text in given], origin
        pairs: dict[str, Any] = {}
        for text in given:
            name, equals, value = text.partition("=")
            if not equals or not name:
                raise ConfigError(
                    f"`{text}` is not of the form NAME={'DIR' if self.reads else 'VALUE'}",
                    where=origin,
                    hint=f"give it a name, e.g. `en={text.strip('=') or ('DIR' if self.reads else 'VALUE')}`",
                )
            if name in pairs:
                raise ConfigError(f"the name `{name}` is given twice", where=origin)
            pairs[name] = value if self.reads else fit_text(value, inner, f"{self.flag} {text}")
        return pairs, origin

    def parameter(self) -> Parameter:
        """The parameter of the Typer command; its default is None so that other sources can speak."""
        text = self.help()
        kind: Any
        if self.positional:
            kind = list[str] if self.shape != "one" else str
            info: Any = typer.Argument(help=text, metavar=self.label, show_default=False, rich_help_panel="Input")
        else:
            panel = "More input" if self.reads else "Settings"
            names = [f"{self.flag}/--no-{self.flag[2:]}"] if self.is_switch else [self.flag]
            flag = marker(self.field, Flag)
            names += [flag.short] if flag is not None and flag.short else []
            kind = bool if self.is_switch else str if self.shape == "one" else list[str]
            info = typer.Option(
                *names,
                help=text,
                metavar="" if self.is_switch else self.metavar(),
                show_default=False,
                rich_help_panel=panel,
                autocompletion=self.completion(),
            )
        return Parameter(self.name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, info])

    def completion(self) -> Callable[[], list[Any]] | None:
        """What a shell offers: the values of a Literal, or the methods of the room that the field names one of."""
        values = _literals(self.field.annotation)
        flag = marker(self.field, Flag)
        room = flag.room if flag is not None and flag.room else _METHOD_ROOMS.get(self.name)
        if room is not None and not values:
            from langadapt.cli.candidates import methods

            return lambda: methods(room)
        return (lambda: values) if values else None

    def metavar(self) -> str:
        """What stands behind the flag in the help."""
        if self.reads:
            word = "PATH"
        else:
            quantity = _quantity(self.field)
            values = _literals(self.field.annotation)
            kinds = alternatives(_inner(self.field.annotation) if self.shape != "one" else self.field.annotation)
            word = (
                quantity[0] if quantity
                else "|".join(values) if values
                else "NUMBER" if float in kinds
                else "INTEGER" if int in kinds
                else "TEXT"
            )  # fmt: skip
        return f"NAME={word}" if self.shape == "map" else word

    def help(self) -> str:
        """Help text: the field's docstring, its unit and its default; safe against markup."""
        parts = [" ".join((self.field.description or "").split())]
        quantity = None if self.reads else _quantity(self.field)
        if quantity and quantity[1]:
            parts.append(f"({quantity[1]})")
        if self.shape != "one" and not self.positional:
            parts.append("(repeatable)")
        default = self.field.get_default(call_default_factory=True) if not self.field.is_required() else None
        if default not in (None, (), {}, [], ""):
            parts.append(f"[default: {show_default(default)}]")
        elif self.field.is_required() and not self.positional:
            parts.append("[required]")
        return escape(" ".join(part for part in parts if part))


def show_default(value: Any) -> str:
    """A default for people: `4,000`, `full`, `yes`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return value if isinstance(value, str) else show_value(value)


def bindings(config: type[StepConfig]) -> list[Binding]:
    """The fields that are on the command line: inputs, then what is marked as a flag, then what all verbs share."""
    inputs = {item.name: item for item in input_fields(config)}
    found = []
    for name, field in config.model_fields.items():
        reads = inputs.get(name)
        if reads is not None:
            found.append(Binding(name, field, reads.shape, reads, reads.positional))
        elif marker(field, Flag) is not None:
            found.append(Binding(name, field, _shape(field.annotation), None, False))
    shared = set(StepConfig.model_fields)
    return sorted(found, key=lambda item: (item.name in shared, not item.positional, item.reads is None))


def _shape(annotation: Any) -> Shape:
    origins = {get_origin(option) for option in alternatives(annotation) if option is not type(None)}
    if origins == {dict}:
        return "map"
    return "many" if origins and origins <= {tuple, list} else "one"


def _inner(annotation: Any) -> Any:
    for option in alternatives(annotation):
        if get_origin(option) in (tuple, list):
            return get_args(option)[0]
        if get_origin(option) is dict:
            return get_args(option)[1]
    return Any


def _literals(annotation: Any) -> list[str]:
    return [
        str(value) for option in alternatives(annotation) if get_origin(option) is Literal for value in get_args(option)
    ]


def _quantity(field: FieldInfo) -> tuple[str, str] | None:
    found = [*_validators(field.annotation), *_functions(field.metadata)]
    return next((_QUANTITIES[function] for function in found if function in _QUANTITIES), None)


def _validators(annotation: Any) -> list[Any]:
    own = _functions(get_args(annotation)[1:]) if get_origin(annotation) is Annotated else []
    return own + [function for part in get_args(annotation) for function in _validators(part)]


def _functions(metadata: Any) -> list[Any]:
    return [item.func for item in metadata if isinstance(item, BeforeValidator | AfterValidator)]
