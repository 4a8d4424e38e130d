"""What is another than in the run that lies there: the settings, inputs or version that a refusal names."""

from collections.abc import Mapping
from typing import Any

# More than these are counted, not listed.
_MOST = 4


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested plain data as {dotted key: scalar}."""
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    found: dict[str, Any] = {}
    for key, item in parts:
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(item, Mapping | list | tuple):
            found |= flat(item, name)
        else:
            found[name] = item
    return found


def named_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """One line for two records with `verb`, `schema`, `config` and `inputs`, in the words of the settings."""
    if before.get("verb") != now["verb"]:
        return f"made by `{before.get('verb')}`, not by `{now['verb']}`"
    found = []
    if before.get("schema") != now["schema"]:
        found.append(f"version {before.get('schema')} of `{now['verb']}`, now {now['schema']}")
    old, new = flat(before.get("config")), flat(now["config"])
    found += [
        f"`{key}` was {_shown(old.get(key))}, is {_shown(new.get(key))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    old, new = flat(before.get("inputs")), flat(now["inputs"])
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            change = "is new" if key not in old else "is no longer there" if key not in new else "has other content"
            found.append(f"input `{key}` {change}")
    more = f", and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return "; ".join(found[:_MOST]) + more


def _shown(value: object) -> str:
    return "not given" if value is None else f"{value!s:.60}"
