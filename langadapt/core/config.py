"""How a verb declares what it takes: frozen, strict models; markers say what is an input and what becomes a flag."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from langadapt.core.errors import ConfigError

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


def _place_among_options(config: type[BaseModel], key: str, values: Mapping[str, Any]) -> str | None:
    """Where an unknown key belongs, if it is an option of a method that the settings name."""
    from langadapt.core.registry import load_method, method_names

    for name, field in config.model_fields.items():
        options = marker(field, OptionsOf)
        if options is None:
            continue
        chosen = values.get(options.chooser, config.model_fields[options.chooser].default)
        several = not isinstance(chosen, str)
        known = method_names(options.room)
        for method in [one for one in ((chosen or known) if several else [chosen]) if one in known]:
            if key in load_method(options.room, method).options.model_fields:
                return f"{name}.{method}.{key}" if several else f"{name}.{key}"
    return None


Config = TypeVar("Config", bound=Options)


def validate(
    config: type[Config],
    values: Mapping[str, Any],
    where: Mapping[str, str] | None = None,
    what: str = "",
    above: type[StepConfig] | None = None,
) -> Config:
    """Build `config` from plain values (as YAML or JSON gives them).

    `where` maps a dotted key to the place it came from (`recipe.yaml:31`, `--size`). All problems are reported at
    once in one ConfigError; an unknown key is shown with the nearest known one, or with the place that it belongs to:
    among the options of the method that `values` name, or, if these are such options, in the step's config `above`.
    """
    places = where or {}
    try:
        # JSON mode: strict about types, but a list may fill a tuple
        return config.model_validate_json(json.dumps(dict(values), allow_nan=True))
    except ValidationError as error:
        lines, hint, first = [], None, None
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            place = places.get(key) or places.get(key.split(".")[0])
            first = first or place
            if problem["type"] == "extra_forbidden":
                known = sorted(config.model_fields)
                near = nearest(key, known)
                if (place_of_key := _place_among_options(config, key, values)) is not None:
                    hint = hint or f"it is an option of the method: `{place_of_key}`"
                elif above is not None and key in above.model_fields:
                    hint = hint or f"it is a setting of the step and no option of its method: `{key}`"
                hint = hint or (f"did you mean `{near}`?" if near else f"known keys: {', '.join(known)}")
                text = f"unknown key `{key}`"
            elif problem["type"] == "missing":
                text = f"`{key}` is missing"
            else:
                text = f"`{key}`: {problem['msg'].removeprefix('Value error, ')}"
                shown = problem.get("input")
                if not isinstance(shown, dict | list) and shown is not None:
                    text += f" (got `{shown}`)"
            lines.append(text + (f" ({place})" if place and place != first else ""))
        message = (f"in {what}: " if what else "") + "; ".join(lines)
        raise ConfigError(message, where=first, hint=hint) from error
    except TypeError as error:
        raise ConfigError(f"values that JSON cannot hold: {error}") from error
