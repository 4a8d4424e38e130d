"""One JSON line -> its text, or the reason why not. Everything that JSON parsers let through silently is a reason."""

import json
from typing import Any

# A whole book on one line is about 3 MB; what is larger is not a document.
MAX_JSON_LINE_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 100


class _DuplicateKeyError(ValueError):
    pass


class _NotFiniteError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateKeyError
    return found


def _constant(name: str) -> float:
    raise _NotFiniteError(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def text_of(line: str, field: str, lang_field: str | None = None) -> tuple[str | None, str, Any]:
    """(text, "", language) or (None, reason, None); `reason` is one of the keys of docs/prepare.md."""
    value, reason = _object_of(line)
    if value is None:
        return None, reason, None
    if field not in value:
        return None, "missing-field", None
    text = value[field]
    if not isinstance(text, str):
        return None, "not-a-string", None
    try:
        text.encode()
    except UnicodeEncodeError:
        # half of a character, written as a JSON escape: no tokenizer accepts it
        return None, "lone-surrogate", None
    return text, "", None if lang_field is None else value.get(lang_field)


def _object_of(line: str) -> tuple[dict[str, Any] | None, str]:
    if _too_deep(line):
        return None, "too-deep"
    try:
        value = _DECODER.decode(line)
    except _DuplicateKeyError:
        return None, "duplicate-key"
    except _NotFiniteError:
        return None, "not-finite-number"
    except RecursionError:
        return None, "too-deep"
    except ValueError:
        return None, "invalid-json"
    if not isinstance(value, dict):
        return None, "not-an-object"
    return value, ""


def _too_deep(line: str) -> bool:
    # counts brackets inside strings too, so it can only send a line to the exact check below
    if line.count("[") + line.count("{") <= MAX_DEPTH:
        return False
    depth, quoted, escaped = 0, False, False
    for letter in line:
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = quoted
        elif letter == '"':
            quoted = not quoted
        elif not quoted and letter in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif not quoted and letter in "]}":
            depth -= 1
    return False
