"""Which token plays which part (begins a text, ends it, pads...), as a tokenizer folder declares it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.io import read_json_object

if TYPE_CHECKING:
    from langadapt.model.token_table import TokenTable

# Most important first: where one token has several parts, this one says which it is.
ROLES = ("eos", "bos", "unk", "pad", "sep", "cls", "mask")
# Encoders begin and end a text with tokens of other names.
_STAND_INS = {"cls": "bos", "bos": "cls", "sep": "eos", "eos": "sep"}


def roles_of(folder: Path) -> dict[str, str]:
    """Role -> string of its token, from `tokenizer_config.json`, else from `special_tokens_map.json`."""
    found: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        content = read_json_object(folder / name) if (folder / name).is_file() else {}
        for role in ROLES:
            token = _string(content.get(f"{role}_token"))
            if token is not None:
                found.setdefault(role, token)
    return found


def role_ids(tokens: "TokenTable") -> dict[str, int]:
    """Role -> id, most important role first; the ids in config.json of the same folder where no file names a token."""
    ids = {piece: id for id, piece in enumerate(tokens.pieces) if piece is not None}
    named = {role: ids[piece] for role, piece in roles_of(tokens.folder).items() if piece in ids}
    path = tokens.folder / "config.json"
    config = read_json_object(path) if path.is_file() else {}
    for role in ROLES:
        id = config.get(f"{role}_token_id")
        if type(id) is int and 0 <= id < tokens.size and tokens.pieces[id] is not None:
            named.setdefault(role, id)
    return {role: named[role] for role in ROLES if role in named}


def partner(role: str, roles: Mapping[str, int]) -> int | None:
    """The id that plays `role`, or the part that is the same in another kind of model (cls begins as bos does)."""
    return roles.get(role, roles.get(_STAND_INS.get(role, "")))


def _string(token: Any) -> str | None:
    """Settings name a token by its string, or by an object with its flags."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
