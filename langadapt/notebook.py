"""Verbs as Python functions: same names, same arguments in the same order, same artifacts as on the command line."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from pathlib import Path
from typing import Any, get_type_hints

from langadapt.core import verb as verbs
from langadapt.core.artifact import Artifact
from langadapt.core.config import InputField, Shape, input_fields, nearest
from langadapt.core.deadline import time_limit
from langadapt.core.errors import ConfigError
from langadapt.core.progress import Listener, Progress, ignore
from langadapt.core.validate import validate
from langadapt.core.verb import Verb

_Place = str | Path | Artifact
_INPUTS: dict[Shape, Any] = {"one": _Place, "many": _Place | Sequence[_Place], "map": Mapping[str, _Place]}
_NONE = Parameter.empty


def bind(name: str) -> Callable[..., Artifact]:
    """The function of one verb: `f(inputs, out=folder, **fields of its config)` returns the artifact."""
    verb = verbs.load(name)
    public = name.replace("-", "_")
    signature = _signature(verb)
    inputs = {item.name: item for item in input_fields(verb.config)}

    def call(*given: Any, **named: Any) -> Artifact:
        values = _by_name(public, signature, given, named)
        own = {key: values.pop(key) for key in ("out", "overwrite", "listener") if key in values}
        plain = {key: _input(_plain(value), inputs.get(key)) for key, value in values.items()}
        config = validate(verb.config, plain, what=f"{public}()")
        progress = Progress(own.get("listener", ignore))
        with time_limit():
            return verbs.perform(
                verb, config, Path(own["out"]), overwrite=own.get("overwrite", False), progress=progress
            ).artifact

    call.__name__ = call.__qualname__ = public
    call.__doc__ = _described(verb, public, signature)
    call.__dict__["__signature__"] = signature
    return call


def _signature(verb: Verb) -> inspect.Signature:
    """Inputs that are arguments on the command line come first, as there; then `out`, and all else by name."""
    inputs = {item.name: item for item in input_fields(verb.config)}
    first, rest = [], []
    plain = get_type_hints(verb.config)  # without the validators that pydantic is told of
    for name, field in verb.config.model_fields.items():
        item = inputs.get(name)
        kind: Any = _INPUTS[item.shape] if item is not None else plain[name]
        default = _NONE if field.is_required() else field.get_default(call_default_factory=True)
        if item is not None and item.positional:
            first.append(Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind))
        else:
            kind = kind if item is None or item.required else kind | None
            rest.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind))
    out = Parameter("out", Parameter.KEYWORD_ONLY, annotation=str | Path)
    own = [
        Parameter("overwrite", Parameter.KEYWORD_ONLY, default=False, annotation=bool),
        Parameter("listener", Parameter.KEYWORD_ONLY, default=ignore, annotation=Listener),
    ]
    # what has to be given before what may be left out
    rest.sort(key=lambda parameter: parameter.default is not _NONE)
    return inspect.Signature([*first, out, *rest, *own], return_annotation=Artifact)


def _by_name(
    public: str, signature: inspect.Signature, given: Sequence[Any], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments by their names; ConfigError for one too many, one given twice, an unknown name, or no `out`."""
    first = [name for name, one in signature.parameters.items() if one.kind is Parameter.POSITIONAL_OR_KEYWORD]
    usage = _usage(public, signature)
    if len(given) > len(first):
        raise ConfigError(
            f"{public}() takes {len(first)} argument(s) without a name ({', '.join(first)}), {len(given)} were given",
            hint=f"{usage}; several inputs of one kind are a list",
        )
    for name in named:
        if name not in signature.parameters:
            near = nearest(name, list(signature.parameters))
            raise ConfigError(
                f"{public}() has no argument `{name}`",
                hint=f"did you mean `{near}`?" if near else f"help(langadapt.{public}) lists all of them",
            )
    twice = [name for name in first[: len(given)] if name in named]
    if twice:
        raise ConfigError(f"{public}(): `{twice[0]}` is given twice, by its place and by its name", hint=usage)
    values = dict(zip(first, given, strict=False)) | dict(named)
    missing = [name for name, one in signature.parameters.items() if one.default is _NONE and name not in values]
    if missing:
        raise ConfigError(f"{public}(): missing: {', '.join(f'`{name}`' for name in missing)}", hint=usage)
    return values


def _usage(public: str, signature: inspect.Signature) -> str:
    """What has to be given: `langadapt.extend_vocab(model, corpus, out=..., size=...)`."""
    parts = [
        name if one.kind is Parameter.POSITIONAL_OR_KEYWORD else f"{name}=..."
        for name, one in signature.parameters.items()
        if one.default is _NONE
    ]
    return f"langadapt.{public}({', '.join(parts)})"


def _described(verb: Verb, public: str, signature: inspect.Signature) -> str:
    own = {
        "out": "Folder that will hold the result.",
        "overwrite": "Move an old result aside instead of refusing.",
        "listener": "Called with each event of progress.",
    }
    lines = [verb.summary if verb.summary.endswith(".") else f"{verb.summary}.", "", _usage(public, signature), ""]
    for name in signature.parameters:
        text = own[name] if name in own else verb.config.model_fields[name].description or ""
        lines.append(f"{name}: {' '.join(text.split())}")
    return "\n".join(lines)


def _input(value: Any, item: InputField | None) -> Any:
    """Where several inputs may be given, one may stand without a list."""
    return [value] if item is not None and item.shape == "many" and isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Artifact):
        return str(value.path)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
