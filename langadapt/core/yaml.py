"""Strict YAML: YAML 1.2 scalars, plain data, a place (`file:line`) for every key; everything clever is refused.

ruamel's safe loader accepts aliases, tags, directives and dates, so only its parser is used: the document is built
here from the parser's events, and scalars follow the core schema of YAML 1.2 (`no` is text, `010` is ten).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langadapt.core.errors import ConfigError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 50
MAX_NODES = 20_000

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([Tt ].*)?")
_TAB_INDENT = re.compile(r"^ *\t", re.MULTILINE)

# Everything that ruamel was seen to raise on broken text; its own errors are YAMLError.
_PARSER_FAULTS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, AssertionError)


@dataclass(frozen=True)
class Loaded:
    """Plain data (dict, list, str, int, float, bool, None) and where each dotted key of it stands."""

    values: dict[str, Any]
    places: dict[str, str]
    name: str


def load_file(path: Path) -> Loaded:
    """Read a YAML file that holds a mapping; ConfigError (file:line) for everything that is not plain."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"cannot read `{path}`: {reason}") from error
    return load_bytes(data, str(path))


def load_bytes(data: bytes, name: str) -> Loaded:
    """`load_file` for content that is already here; `name` is what errors call it."""
    if len(data) > MAX_BYTES:
        raise ConfigError(f"more than {MAX_BYTES:,} bytes", where=name, hint="is this really a YAML file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("not UTF-8 text", where=f"{name}:{line}", hint="save the file as UTF-8") from error
    builder = _Builder(name)
    value = builder.build(text)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise ConfigError("expected `key: value` lines", where=f"{name}:1")
    return Loaded(value, builder.places, name)


def parse_value(text: str, name: str, *, as_text: bool = False) -> Any:
    """One value in YAML flow style (`0.1`, `[a, b]`, `{en: 0.2}`); with `as_text` all its scalars stay text."""
    return _Builder(name, as_text=as_text, numbered=False).build(text)


def resolve_scalar(text: str, where: str) -> str | int | float | bool | None:
    """A plain scalar by the core schema of YAML 1.2; ConfigError for dates and for integers beyond 64 bits."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text) or _BASED.fullmatch(text):
        return _integer(text, where)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text.replace(".", ""))
    if _DATE.fullmatch(text):
        raise ConfigError(f"`{text}` would be a date", where=where, hint=f'write it in quotes: "{text}"')
    return text


def _integer(text: str, where: str) -> int:
    if len(text) <= 40:
        value = int(text, 0) if text.startswith(("0o", "0x")) else int(text, 10)
        if -(2**63) <= value < 2**63:
            return value
    raise ConfigError(f"the number `{text[:40]}` does not fit into 64 bits", where=where)


@dataclass
class _Open:
    """A mapping or list that is being filled; `key` is the mapping's key that waits for its value."""

    value: dict[str, Any] | list[Any]
    path: str
    key: str | None = None


@dataclass
class _Builder:
    name: str
    as_text: bool = False
    numbered: bool = True
    places: dict[str, str] = field(default_factory=dict)
    stack: list[_Open] = field(default_factory=list)
    root: Any = None
    documents: int = 0
    nodes: int = 0

    def build(self, text: str) -> Any:
        tab = _TAB_INDENT.search(text)
        if tab:
            line = text.count("\n", 0, tab.start()) + 1
            raise ConfigError("a tab in the indentation", where=self.where(line), hint="indent with spaces")
        with self.parser_errors():
            for event in _events(text):
                self.take(event)
        return self.root

    @contextmanager
    def parser_errors(self) -> Iterator[None]:
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        try:
            yield
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = self.where(mark.line + 1) if mark else self.name
            raise ConfigError(f"not valid YAML: {error.problem or error.context}", where=where) from error
        except YAMLError as error:
            position = getattr(error, "character", None)
            what = f"character {position!r} is not allowed" if position is not None else "not valid YAML"
            raise ConfigError(what, where=self.name) from error
        except _PARSER_FAULTS as error:
            raise ConfigError("not valid YAML", where=self.name) from error

    def where(self, line: int) -> str:
        return f"{self.name}:{line}" if self.numbered else self.name

    def take(self, event: Any) -> None:
        kind = type(event).__name__
        where = self.where(event.start_mark.line + 1 if event.start_mark else 1)
        if kind == "AliasEvent":
            raise ConfigError(f"alias `*{event.anchor[:40]}`", where=where, hint="write the value out")
        if getattr(event, "anchor", None) is not None:
            raise ConfigError(
                f"anchor `&{event.anchor[:40]}`", where=where, hint="write the value out where it is needed"
            )
        if kind == "DocumentStartEvent":
            self.start_document(event, where)
        elif kind in ("MappingStartEvent", "SequenceStartEvent", "ScalarEvent"):
            if _tagged(event):
                raise ConfigError(
                    f"tag `{str(event.tag or '!')[:40]}`", where=where, hint="write plain values, without `!`"
                )
            self.nodes += 1
            if self.nodes > MAX_NODES:
                raise ConfigError(f"more than {MAX_NODES:,} values", where=where)
            if kind == "ScalarEvent":
                self.scalar(event.value, quoted=event.style is not None, where=where)
            else:
                self.open({} if kind == "MappingStartEvent" else [], where)
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self.stack.pop()

    def start_document(self, event: Any, where: str) -> None:
        self.documents += 1
        if self.documents > 1:
            raise ConfigError("a second document (`---`)", where=where, hint="keep one document per file")
        if event.version is not None or event.tags:
            raise ConfigError("a `%` directive", where=where, hint="delete the line; YAML 1.2 is what is read")

    def open(self, value: dict[str, Any] | list[Any], where: str) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise ConfigError(f"nested deeper than {MAX_DEPTH} levels", where=where)
        if self.expects_key():
            raise ConfigError("a key that is a list or a mapping", where=where, hint="keys are plain text")
        path = self.add(value, where)
        self.stack.append(_Open(value, path))

    def scalar(self, text: str, *, quoted: bool, where: str) -> None:
        if self.expects_key():
            self.set_key(text, quoted=quoted, where=where)
        else:
            self.add(text if quoted or self.as_text else resolve_scalar(text, where), where)

    def expects_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None

    def set_key(self, text: str, *, quoted: bool, where: str) -> None:
        top = self.stack[-1]
        if not quoted and text == "<<":
            raise ConfigError("merge key `<<`", where=where, hint="write the keys out")
        if not quoted and not self.as_text and not isinstance(resolve_scalar(text, where), str):
            raise ConfigError(f"the key `{text}` is not text", where=where, hint=f'write it in quotes: "{text}"')
        if text in top.value:
            first = self.places.get(_join(top.path, text), "")
            raise ConfigError(f"the key `{text}` is there twice (first in {first})", where=where, hint="delete one")
        top.key = text
        self.places[_join(top.path, text)] = where

    def add(self, value: Any, where: str) -> str:
        """Put a value where it belongs and return its dotted path."""
        if not self.stack:
            self.root = value
            return ""
        top = self.stack[-1]
        if isinstance(top.value, list):
            path = _join(top.path, str(len(top.value)))
            top.value.append(value)
            self.places[path] = where
            return path
        key, top.key = str(top.key), None
        top.value[key] = value
        return _join(top.path, key)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _tagged(event: Any) -> bool:
    # `!` alone (the non-specific tag) is reported through `implicit`, not through `tag`
    if event.tag is not None or getattr(event, "ctag", None) is not None:
        return True
    return type(event).__name__ == "ScalarEvent" and event.style is None and not event.implicit[0]


def _events(text: str) -> Iterator[Any]:
    from ruamel.yaml import YAML

    yield from YAML(typ="safe", pure=True).parse(text)
