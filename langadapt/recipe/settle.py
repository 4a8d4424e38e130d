"""Text typed after `-o` gets the type that its place in a step asks for: `-o target=no` is a language."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from langadapt.core import sources
from langadapt.core.errors import ConfigError
from langadapt.core.verb import Verb
from langadapt.core.yaml import parse_value
from langadapt.recipe.document import Problems, Raw, Recipe


def settle(recipe: Recipe, verbs: Mapping[str, Verb], problems: Problems) -> Recipe:
    """The recipe without Raw values; a variable takes the type of the first field that is exactly `${name}`."""
    variables = dict(recipe.vars)
    for name, value in recipe.vars.items():
        if isinstance(value, Raw):
            with problems.collecting():
                variables[name] = _variable(name, value, recipe, verbs)
    steps = {}
    for step in recipe.steps.values():
        fields = dict(step.fields)
        when = step.when
        with problems.collecting():
            if isinstance(when, Raw):
                when = {"true": True, "false": False}.get(when.text.strip(), when.text)
            for key, value in step.fields.items() if step.id in verbs else ():
                fields[key] = _fit(value, verbs[step.id], key)
        steps[step.id] = replace(step, fields=fields, when=when)
    return replace(recipe, vars=variables, steps=steps)


def _variable(name: str, raw: Raw, recipe: Recipe, verbs: Mapping[str, Verb]) -> Any:
    for step in [step for step in recipe.steps.values() if step.id in verbs]:
        for key, template in step.fields.items():
            for path in _places(template, "${" + name + "}", key):
                return _typed(verbs[step.id], path, raw)
    if isinstance(raw.before, str):
        return raw.text
    return parse_value(raw.text, raw.origin)


def _places(template: Any, wanted: str, path: str) -> Iterator[str]:
    """Dotted places at which exactly `wanted` stands; the key of a map does not matter for the type."""
    if template == wanted:
        yield path
    elif isinstance(template, dict):
        for item in template.values():
            yield from _places(item, wanted, f"{path}.key")
    elif isinstance(template, list) and wanted in template:
        yield f"{path}.0"


def _typed(verb: Verb, path: str, raw: Raw) -> Any:
    try:
        return sources.parse_assignment(verb.config, f"{path}={raw.text}")[1]
    except ConfigError as error:
        raise ConfigError(error.message, where=raw.origin, hint=error.hint) from error


def _fit(value: Any, verb: Verb, path: str) -> Any:
    if isinstance(value, Raw):
        if "${" in value.text:  # filled in later, with the type of the variable
            return value.text
        return _typed(verb, path, value)
    if isinstance(value, dict):
        return {key: _fit(item, verb, f"{path}.{key}") for key, item in value.items()}
    return value
