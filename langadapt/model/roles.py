"""Which token plays which part (begins a text, ends it, pads...), as a tokenizer folder declares it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.errors import DataError
from langadapt.core.io import read_json_object
from langadapt.model.facts import text_config

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
    config = _config(tokens.folder)
    for role in ROLES:
        id = config.get(f"{role}_token_id")
        if type(id) is int and 0 <= id < tokens.size and tokens.pieces[id] is not None:
            named.setdefault(role, id)
    return {role: named[role] for role in ROLES if role in named}


def check_role_ids(tokens: "TokenTable") -> list[str]:
    """DataError if config.json gives a part to an ordinary piece of text, or to an id that no token and no row has.

    Tokens of two tokenizers are paired by their parts, so that a wrong number gives a special token the row of a word.
    Returns sentences on parts that config.json gives to another special token than the tokenizer does: the tokenizer is
    believed, and models with two tokens that end a text are meant so.
    """
    config, named = text_config(_config(tokens.folder)), roles_of(tokens.folder)
    rows = max(tokens.size, said if type(said := config.get("vocab_size")) is int else 0)
    told = []
    for role in ROLES:
        value = config.get(f"{role}_token_id")
        for id in value if isinstance(value, list) else [value]:
            # -1 stands for none in old files; a row past the tokenizer's ids is one that no text reaches
            if type(id) is not int or id == -1 or tokens.size <= id < rows:
                continue
            piece = tokens.pieces[id] if 0 <= id < tokens.size else None
            own = named.get(role)
            if not 0 <= id < rows:
                problem = f"there is no token {id:,}, only {rows:,}"
            elif piece is None or piece == own or _is_marker(piece) or tokens.kind_of(id) != "text":
                if piece is not None and own not in (None, piece) and not isinstance(value, list):
                    told.append(f"config.json has {id} `{piece}` as {role}, the tokenizer has `{own}`, which is taken")
                continue
            else:
                problem = f"token {id} is `{piece}`, an ordinary piece of text"
            right = tokens.pieces.index(own) if own in tokens.pieces else None
            raise DataError(
                f"`{role}_token_id` is wrong: {problem}",
                where=f"{tokens.folder / 'config.json'}:{role}_token_id",
                hint=f"the tokenizer says `{own}`: correct it to {right}"
                if right is not None
                else "correct it, or set it to null if the model has no such token",
            )
    return told


def _is_marker(piece: str) -> bool:
    """Some files do not say which tokens are special, but their strings do: `<s>`, `[CLS]`, `<|endoftext|>`."""
    return re.fullmatch(r"<[^<>]+>|\[[^\[\]]+\]", piece) is not None


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return read_json_object(path) if path.is_file() else {}


def partner(role: str, roles: Mapping[str, int]) -> int | None:
    """The id that plays `role`, or the part that is the same in another kind of model (cls begins as bos does)."""
    return roles.get(role, roles.get(_STAND_INS.get(role, "")))


def _string(token: Any) -> str | None:
    """Settings name a token by its string, or by an object with its flags."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
