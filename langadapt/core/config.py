"""How a verb declares what it takes: frozen, strict models; markers say what is an input and what becomes a flag."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

Shape = Literal["one", "many", "map"]


@dataclass(frozen=True)
class Flag:
    """Marks a field that people turn often: it becomes a command-line flag. `short` is e.g. `-n`.

    `room` is that of the methods which the field names one of, for shells that complete it.
    """

    short: str | None = None
    room: str | None = None


@dataclass(frozen=True)
class Reads:
    """Marks a field that holds an input: an artifact of one of `kinds`, or a plain file or folder if `plain` allows it.

    `resolver` names a function "module:name" that turns the text into a folder (models: .gguf files and hub ids).
    `flag_only` keeps it from being a positional argument. `words` are values that are no paths: the step knows them.
    """

    kinds: tuple[str, ...]
    plain: bool = False
    resolver: str | None = None
    flag_only: bool = False
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runtime:
    """Marks a field that cannot change the result (how often to save, how many threads): never fingerprinted."""


@dataclass(frozen=True)
class Later:
    """Marks a field that came to a verb later: fingerprinted only where it is not its default.

    What was made before there was the field is then what the same config makes now.
    """


@dataclass(frozen=True)
class OptionsOf:
    """Marks a field that holds options of a method of `room`; the field `chooser` names the method.

    Where `chooser` names several, the field holds the options of each below the method's name.
    """

    room: str
    chooser: str


CorpusInput = Annotated[str, Reads(("corpus",), plain=True)]
TextInput = Annotated[str, Reads((), plain=True, resolver="langadapt.corpus.hub:resolve")]
TokenizerInput = Annotated[str, Reads(("tokenizer", "model"), plain=True)]
ModelInput = Annotated[str, Reads(("model",), plain=True, resolver="langadapt.model.load:resolve")]
DataInput = Annotated[str, Reads(("data",))]
ScoresInput = Annotated[str, Reads(("scores",))]
AnyInput = Annotated[str, Reads((), plain=True)]


class Options(BaseModel):
    """Base of every `Options` class of a method and of every part of a config."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class StepConfig(Options):
    """Base of every verb's config."""

    seed: Annotated[int, Flag()] = 0
    """Root of all random streams of this step."""


@dataclass(frozen=True)
class InputField:
    """One field of a config that holds inputs."""

    name: str
    reads: Reads
    shape: Shape
    required: bool

    @property
    def positional(self) -> bool:
        """Is it an argument without a name, on the command line and in Python?"""
        return self.required and not self.reads.flag_only


def marker(field: FieldInfo, kind: type[Any]) -> Any | None:
    """The marker of class `kind` on a field, also when it sits inside a tuple, dict or optional annotation."""
    for item in field.metadata:
        if isinstance(item, kind):
            return item
    return _nested_marker(field.annotation, kind)


def _nested_marker(annotation: Any, kind: type[Any]) -> Any | None:
    if get_origin(annotation) is Annotated:
        for item in get_args(annotation)[1:]:
            if isinstance(item, kind):
                return item
    for part in get_args(annotation):
        found = _nested_marker(part, kind)
        if found is not None:
            return found
    return None


def input_fields(config: type[StepConfig]) -> list[InputField]:
    """The inputs of a config in declaration order."""
    found = []
    for name, field in config.model_fields.items():
        reads = marker(field, Reads)
        if reads is not None:
            found.append(InputField(name, reads, _shape(field.annotation), field.is_required()))
    return found


def _shape(annotation: Any) -> Shape:
    origin = get_origin(annotation)
    if origin is dict:
        return "map"
    if origin in (tuple, list):
        return "many"
    for part in get_args(annotation):
        if get_origin(part) in (dict, tuple, list):
            return _shape(part)
    return "one"


def runtime_fields(config: type[StepConfig]) -> set[str]:
    """Names of the fields that are never fingerprinted."""
    return {name for name, field in config.model_fields.items() if marker(field, Runtime) is not None}


def unused_fields(config: StepConfig) -> set[str]:
    """Names of later fields that have their defaults."""
    fields = type(config).model_fields
    later = (name for name, field in fields.items() if marker(field, Later) is not None)
    return {name for name in later if getattr(config, name) == fields[name].get_default(call_default_factory=True)}


def nearest(name: str, known: list[str]) -> str | None:
    """The known name closest to a misspelt one."""
    found = get_close_matches(name.replace("-", "_"), known, n=1, cutoff=0.5)
    return found[0] if found else None
