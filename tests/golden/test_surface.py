"""The public surface is frozen: verbs, their fields and defaults, methods and their options, exit codes."""

import json
from typing import Any

from langadapt.core import errors, registry, verb
from langadapt.core.config import Flag, marker
from tests.golden.golden import expected

ROOMS = ("embed", "select", "vocab")


def surface() -> dict[str, Any]:
    verbs = {}
    for name in registry.verb_names():
        loaded = verb.load(name)
        fields = {
            field: {
                "required": info.is_required(),
                "default": None if info.is_required() else json.loads(json.dumps(info.get_default(), default=str)),
                "flag": marker(info, Flag) is not None,
            }
            for field, info in loaded.config.model_fields.items()
            if info.default_factory is None
        }
        verbs[name] = {"kind": loaded.kind, "schema": loaded.schema, "fields": fields}
    methods = {
        room: {
            name: sorted(registry.load_method(room, name).options.model_fields) for name in registry.method_names(room)
        }
        for room in ROOMS
    }
    codes = {kind.__name__: kind.exit_code for kind in errors.LangadaptError.__subclasses__()}
    return {"verbs": verbs, "methods": methods, "exit_codes": codes}


def test_the_public_surface_is_as_it_was() -> None:
    found = surface()
    assert found == expected("surface", found)
