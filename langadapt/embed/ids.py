"""The token ids that a model's settings name, after its tokens got other ids."""

from collections.abc import Collection, Mapping
from typing import Any

from langadapt.core.errors import DataError
from langadapt.model.roles import ROLES, partner

# Keys of generation_config.json that hold lists of ids without saying so in their name.
_LISTS = ("suppress_tokens", "begin_suppress_tokens")
_LISTS_OF_LISTS = ("bad_words_ids", "force_words_ids")


def names_ids(key: str) -> bool:
    """Does this key of a config hold a token id, or a list of them?"""
    return key.endswith(("_token_id", "_token_index"))


def remapped(
    content: Mapping[str, Any], kept: Mapping[int, int], roles: Mapping[str, int], what: str
) -> dict[str, Any]:
    """Those entries of a config that hold token ids, with the new ids.

    `kept` maps old id -> new id, `roles` are the parts that the new tokenizer declares. An id that is gone gives way
    to the token that plays its part in the new tokenizer, else to none. DataError if a token is gone that the model
    cannot do without (an image placeholder, say).
    """
    found: dict[str, Any] = {}
    for key, value in content.items():
        if names_ids(key) and value is not None:
            found[key] = _moved(key, value, kept, roles, what)
        elif key in _LISTS and value:
            found[key] = sorted({kept[id] for id in value if id in kept}) or None
        elif key in _LISTS_OF_LISTS and value:
            found[key] = [[kept[id] for id in ids] for ids in value if kept.keys() >= set(ids)] or None
    return found


def without_ids(content: Mapping[str, Any], new: Collection[int]) -> dict[str, Any]:
    """Those lists of a config that hold ids in `new`, without them: they forbade ids that no token had."""
    found: dict[str, Any] = {}
    for key in _LISTS:
        if set(content.get(key) or ()) & set(new):
            found[key] = [id for id in content[key] if id not in new] or None
    for key in _LISTS_OF_LISTS:
        if any(set(ids) & set(new) for ids in content.get(key) or ()):
            found[key] = [ids for ids in content[key] if not set(ids) & set(new)] or None
    return found


def _moved(key: str, value: Any, kept: Mapping[int, int], roles: Mapping[str, int], what: str) -> Any:
    role = key.removesuffix("_token_id")
    many = isinstance(value, list)
    ids = [kept[id] for id in (value if many else [value]) if id in kept]
    if not ids and (stand_in := partner(role, roles)) is not None:
        ids = [stand_in]
    if not ids and role not in ROLES:
        raise DataError(
            f"`{what}` needs token {value} for `{key}`, and the new tokenizer does not have it",
            hint="keep this token, or set the key to null if nothing uses it",
        )
    return ids if many else ids[0] if ids else None
