"""JSON schema of recipes, made from the declarations of the verbs: editors complete and check with it."""

import re
from typing import Any

from langadapt.core import registry
from langadapt.core import verb as verbs
from langadapt.core.config import input_fields
from langadapt.core.verb import Verb

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# A variable may stand for any value, and quantities are text as well: `4k`, `8h`, `24GiB`.
_VARIABLE = {"type": "string", "pattern": r"\$\{[^}]+\}"}
_QUANTITY = {"type": "string", "pattern": r"^[0-9.][0-9_,.]*\s*[A-Za-z]*$"}
_SCALARS = ("integer", "number", "boolean")


def recipe_schema() -> dict[str, Any]:
    """The schema; it accepts every recipe that is valid, and a few that `recipe check` refuses (references, ranges)."""
    names = registry.verb_names()
    definitions: dict[str, Any] = {}
    for name in names:
        definitions |= _verb(verbs.load(name))
    plain = {"type": ["string", "number", "integer", "boolean", "null", "array"]}
    axis = {"type": ["string", "number", "integer", "boolean", "array", "object"]}
    step = {
        "type": ["object", "null"],
        "properties": {"use": {"enum": names, "description": "The verb; by default the id of the step."}},
        "allOf": [
            {"if": {"properties": {"use": {"const": name}}, "required": ["use"]}, "then": {"$ref": f"#/$defs/{name}"}}
            for name in names
        ],
    }
    by_id = {
        name: {"if": {"type": "object", "not": {"required": ["use"]}}, "then": {"$ref": f"#/$defs/{name}"}}
        for name in names
    }
    return {
        "$schema": DIALECT,
        "title": "A recipe of langadapt",
        "type": "object",
        "additionalProperties": False,
        "required": ["steps"],
        "properties": {
            "name": {"type": "string"},
            "about": {"type": "string"},
            "vars": {"type": ["object", "null"], "additionalProperties": plain},
            "matrix": {
                "type": ["object", "null"],
                "description": "Axes and their values; a step with `matrix: [axis]` is made once for each.",
                "properties": {"exclude": {"type": ["array", "object"]}},
                "additionalProperties": axis,
            },
            "steps": {
                "type": "object",
                "minProperties": 1,
                "properties": {name: {"allOf": [{"$ref": "#/$defs/a step"}, by_id[name]]} for name in names},
                "additionalProperties": {
                    "allOf": [{"$ref": "#/$defs/a step"}, {"type": "object", "required": ["use"]}],
                },
            },
        },
        "$defs": {"a step": step, **definitions},
    }


def _verb(verb: Verb) -> dict[str, Any]:
    """The definitions of one verb: its fields, each also as a variable, and what every step has."""
    schema = verb.config.model_json_schema()
    inner = {f"{verb.name} {name}": item for name, item in schema.pop("$defs", {}).items()}
    inputs = {item.name: item.shape for item in input_fields(verb.config)}
    properties = {name: _loose(item, verb.name) for name, item in schema["properties"].items()}
    for name, shape in inputs.items():
        if shape == "many":  # one alone needs no list
            properties[name] = {"anyOf": [{"type": "string"}, properties[name]]} | _said(properties[name])
    properties |= {
        "use": {"const": verb.name},
        "when": {"type": ["boolean", "string"], "description": "A condition on variables, or true or false."},
        "matrix": {"type": ["string", "array"], "description": "Axes that this step is made over."},
    }
    own = {
        "description": verb.summary,
        "type": "object",
        "properties": properties,
        "required": schema.get("required", []),
        "additionalProperties": False,
    }
    return {verb.name: own, **{name: _loose(item, verb.name) for name, item in inner.items()}}


def _said(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: schema[key] for key in ("description", "default") if key in schema}


def _loose(schema: Any, verb: str) -> Any:
    """A schema whose scalars may be variables, and whose whole numbers may be quantities."""
    if isinstance(schema, list):
        return [_loose(item, verb) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = re.sub(r"^#/\$defs/", "", schema["$ref"])
        return {"anyOf": [{"$ref": f"#/$defs/{verb} {name}"}, _VARIABLE]} | _said(schema)
    found = {key: item for key, item in schema.items() if key != "title"}
    for key in ("properties", "patternProperties"):
        if key in found:
            found[key] = {name: _loose(item, verb) for name, item in found[key].items()}
    for key in ("items", "prefixItems", "anyOf", "oneOf", "allOf", "additionalProperties"):
        if key in found:
            found[key] = _loose(found[key], verb)
    scalar = found.get("type") in _SCALARS or "enum" in found or "const" in found
    whole = found.get("type") in ("array", "object") and "properties" not in found
    if scalar or whole or ("pattern" in found and found.get("type") == "string"):
        said = _said(found)
        bare = {key: item for key, item in found.items() if key not in said}
        more = [_QUANTITY] if found.get("type") == "integer" else []
        return {"anyOf": [bare, *more, _VARIABLE]} | said
    return found
