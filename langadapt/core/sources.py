"""Where values come from: flag > `-o key=value` > file > default, each with its origin."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel

from langadapt.core.config import Options, StepConfig, input_fields
from langadapt.core.errors import ConfigError
from langadapt.core.validate import validate
from langadapt.core.yaml import Loaded, parse_value, resolve_scalar

Config = TypeVar("Config", bound=Options)


@dataclass
class Settings:
    """Plain values that were given, and the origin of each dotted key (`--size`, `recipe.yaml:31`)."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def put(self, key: str, value: Any, origin: str) -> None:
        """Set a dotted key; a whole value replaces all that was known below it."""
        parts = key.split(".")
        place = self.values
        for depth, part in enumerate(parts[:-1], 1):
            inner = place.get(part)
            if inner is not None and not isinstance(inner, dict):
                raise ConfigError(f"`{'.'.join(parts[:depth])}` holds a value, not keys", where=origin)
            place[part] = dict(inner or {})  # a copy: the values of a file are not ours to change
            place = place[part]
        place[parts[-1]] = value
        self.origins = {name: text for name, text in self.origins.items() if not name.startswith(f"{key}.")}
        self.origins[key] = origin

    def origin(self, key: str) -> str:
        """Where the value of a dotted key came from: the key itself, or the nearest key above it."""
        while key:
            if key in self.origins:
                return self.origins[key]
            key = key.rpartition(".")[0]
        return "default"


def merge(
    config: type[Options],
    *,
    file: Loaded | None = None,
    assignments: Iterable[str] = (),
    flags: Mapping[str, tuple[Any, str]] | None = None,
) -> Settings:
    """Lay the sources over each other; `flags` maps a field to its value and the flag's spelling.

    A flag that was not given is not in `flags`. Nothing is validated here but the form of the assignments.
    """
    settings = Settings()
    if file is not None:
        settings.values |= file.values
        settings.origins |= file.places
    for text in assignments:
        key, value = parse_assignment(config, text)
        settings.put(key, value, f"-o {text}")
    for key, (value, origin) in (flags or {}).items():
        settings.put(key, value, origin)
    return settings


def build(config: type[Config], settings: Settings, what: str = "") -> Config:
    """Validate merged values; ConfigError names the origin of what is wrong."""
    origins: dict[str, str] = {}
    for key, origin in settings.origins.items():
        # a problem may be reported at a key above the one that was given (`-o size.x=3`: size is no mapping)
        origins.setdefault(key.split(".")[0], origin)
    return validate(config, settings.values, origins | settings.origins, what)


def parse_assignment(config: type[Options], text: str) -> tuple[str, Any]:
    """`a.b=c` -> (`a.b`, value). The field's type decides: where text is expected, `no` and `123` stay text."""
    key, equals, value = text.partition("=")
    key = key.strip()
    where = f"-o {text}"
    if not equals or not all(key.split(".")):
        raise ConfigError(f"`-o {text}` is not of the form key=value", hint="write e.g. `-o seed=1` or `-o a.b=2`")
    first, dot, rest = key.partition(".")
    if first not in config.model_fields and first.replace("-", "_") in config.model_fields:
        key = first.replace("-", "_") + dot + rest
    return key, fit_text(value, _annotation(config, key.split(".")), where)


def _annotation(config: Any, path: list[str]) -> Any:
    """The annotation at a dotted key, or Any where the types do not say."""
    here: Any = config
    for part in path:
        for option in alternatives(here):
            if isinstance(option, type) and issubclass(option, BaseModel) and part in option.model_fields:
                info = option.model_fields[part]
                here = Annotated[info.annotation, "field"] if info.annotation is not None else Any
                break
            if get_origin(option) is dict:
                here = get_args(option)[1]
                break
        else:
            return Any
    return here


def alternatives(annotation: Any) -> list[Any]:
    """The types an annotation allows: the members of a union, and through `Annotated`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [item for part in get_args(annotation) for item in alternatives(part)]
    return [annotation]


def fit_text(text: str, annotation: Any, where: str) -> Any:
    """A value given as text, as its type wants it: kept where text is expected, else read as YAML."""
    options = alternatives(annotation)
    if _takes_text(options):
        return None if type(None) in options and text in ("", "~", "null") else text
    value = parse_value(text, where, as_text=True)
    if isinstance(value, str) and any(get_origin(option) in (tuple, list) for option in options):
        value = [value]
    return _fit(value, annotation, where)


def _fit(value: Any, annotation: Any, where: str) -> Any:
    """Give each scalar of a parsed value (text so far) the type that its place asks for."""
    options = alternatives(annotation)
    if isinstance(value, list):
        inner = next((get_args(option)[0] for option in options if get_origin(option) in (tuple, list)), Any)
        return [_fit(item, inner, where) for item in value]
    if isinstance(value, dict):
        inner = next((get_args(option)[1] for option in options if get_origin(option) is dict), Any)
        return {key: _fit(item, inner, where) for key, item in value.items()}
    if value is None or _takes_text(options):
        return value
    return resolve_scalar(value, where)


def _takes_text(options: list[Any]) -> bool:
    for option in options:
        values = get_args(option)
        if option is str or (values and all(isinstance(value, str) for value in values)):
            return True
    return False


_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+-]*")


def show_value(value: Any) -> str:
    """A value on one line of YAML, such that reading it gives the same value."""
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) is not None and resolve_scalar(value, "") == value
        return value if plain else f'"{"".join(map(_escaped, value))}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{show_value(key)}: {show_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(show_value(item) for item in value) + "]"
    return json.dumps(value)


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return "\\" + letter
    if letter.isprintable():
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def print_config(config: type[StepConfig], settings: Settings, what: str = "") -> str:
    """The resolved config as YAML that `-c` reads back, with the origin of each value; missing inputs as comments."""
    missing = [item for item in input_fields(config) if item.required and item.name not in settings.values]
    blank: dict[str, Any] = {"one": "-", "many": ["-"], "map": {"-": "-"}}
    complete = Settings(settings.values | {item.name: blank[item.shape] for item in missing}, settings.origins)
    resolved = build(config, complete, what).model_dump(mode="json")
    lines = []
    for key, value in resolved.items():
        if any(item.name == key for item in missing):
            lines.append((f"# {key}:", "required"))
        else:
            lines += _lines(key, value, key, settings)
    width = min(40, max((len(text) for text, _ in lines), default=0))
    return "".join(f"{text:<{width}}  # {origin}\n" for text, origin in lines)


def _lines(shown: str, value: Any, key: str, settings: Settings, indent: str = "") -> list[tuple[str, str]]:
    origin = settings.origin(key)
    origin = origin if origin == "default" else f"from {one_line(origin)}"
    if isinstance(value, dict) and value:
        found = [(f"{indent}{shown}:", origin)]
        for name, item in value.items():
            found += _lines(show_value(name), item, f"{key}.{name}", settings, indent + "  ")
        return found
    return [(f"{indent}{shown}: {show_value(value)}", origin)]


def one_line(text: str) -> str:
    """Text without line breaks and control characters, for comments and messages."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
