"""Plain values, as YAML or JSON gives them, to a config; what is wrong with them in one error."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from langadapt.core.config import Options, OptionsOf, StepConfig, marker, nearest
from langadapt.core.errors import ConfigError
from langadapt.core.registry import load_method, method_names

Config = TypeVar("Config", bound=Options)


def _place_among_options(config: type[BaseModel], key: str, values: Mapping[str, Any]) -> str | None:
    """Where an unknown key belongs, if it is an option of a method that the settings name."""
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
                keys = f"known keys: {', '.join(known)}" if known else "there is none to set here: leave it out"
                hint = hint or (f"did you mean `{near}`?" if near else keys)
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
