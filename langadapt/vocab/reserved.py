"""Ids that stand for nothing: holes, spare rows of the table, and tokens that were only ever kept in reserve."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.core.errors import ConfigError
from langadapt.core.io import read_json_object
from langadapt.vocab.slots import Slot
from langadapt.vocab.tokenizer_file import COMPANIONS, TEMPLATE_FOLDER, TokenizerFile

# How families name tokens that no training text holds: Llama 3, Gemma, BERT, Phi and Qwen, Mistral, Falcon 3.
_RESERVED = (
    r"<\|reserved_special_token_\d+\|>",
    r"<unused_?\d+>",
    r"\[unused_?\d+\]",
    r"<\|(?:reserved|unused|dummy|placeholder|extra)_?\d+\|>",
    r"<(?:SPECIAL|reserved)_\d+>",
    r"\[control_\d+\]",
    r">>UNUSED_\d+<<",
)
# Lists of tokens that have no role in them; everything else in a tokenizer's settings gives a token one.
_LISTS = {"added_tokens_decoder", "additional_special_tokens"}


@dataclass(frozen=True)
class Named:
    """What other files of a model folder point at: `text` is where pieces would stand, `ids` are numbers of tokens."""

    text: str
    ids: frozenset[int]


def named_in(folder: Path, base: TokenizerFile) -> Named:
    """Read settings, chat templates and post-processor of a model folder for pieces, config files for ids.

    Ids of roles that the settings give are among the numbers. Of config files it takes all numbers under a key with
    `token` in it (`eos_token_id`, `suppress_tokens`): a few too many, which costs nothing.
    """
    text = [json.dumps(part, ensure_ascii=False) for key, part in base.spec.items() if key not in _NOT_PIPELINE]
    text.append(str(base.model.get("unk_token")))
    ids: set[int] = set()
    for name in COMPANIONS:
        if (folder / name).is_file() and name.endswith(".json") and name != "added_tokens.json":
            content = read_json_object(folder / name)
            ids |= _roles_in(content, base)
            text.append(json.dumps(_with_roles(content), ensure_ascii=False))
        elif (folder / name).is_file() and name.endswith(".jinja"):
            text.append((folder / name).read_text(encoding="utf-8"))
    for path in sorted((folder / TEMPLATE_FOLDER).glob("*.jinja")):
        text.append(path.read_text(encoding="utf-8"))
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            ids |= _ids_in(read_json_object(folder / name), False)
    return Named("\n".join(text), frozenset(ids))


_NOT_PIPELINE = {"model", "added_tokens"}


def _with_roles(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in settings.items()
        if key not in _LISTS and not (key == "extra_special_tokens" and isinstance(value, list))
    }


def _roles_in(settings: dict[str, Any], base: TokenizerFile) -> set[int]:
    """Ids of `pad_token` and the like; a role may be given to an ordinary token."""
    values = [value for key, value in settings.items() if key.endswith("_token")]
    pieces = [value.get("content") if isinstance(value, dict) else value for value in values]
    return {base.pieces[piece] for piece in pieces if isinstance(piece, str) and piece in base.pieces}


def _ids_in(value: Any, counts: bool) -> set[int]:
    if isinstance(value, dict):
        return {number for key, item in value.items() for number in _ids_in(item, "token" in key)}
    if isinstance(value, list):
        return {number for item in value for number in _ids_in(item, counts)}
    return {value} if counts and type(value) is int else set()


def in_reserve(
    base: TokenizerFile, rows: int, named: Named, *, met: Collection[str] = (), pattern: str | None = None
) -> tuple[list[Slot], int]:
    """The free ids, and how many reserved tokens are in use after all and stay.

    First holes between ids, then spare rows behind the last one (nothing is lost by these), then reserved tokens by
    id. A reserved token stays if a role, a template or the post-processor names it, if a config file names its id, or
    if it was `met` in the target's or the protected text. `pattern` is one more regular expression for whole pieces.
    Where ids are places in a list (Unigram) there are no holes, and spare rows are taken up to the first that is named.
    """
    try:
        reserved = re.compile("|".join(f"(?:{one})" for one in (*_RESERVED, *([pattern] if pattern else ()))))
    except re.error as error:
        raise ConfigError(f"`reserved_pattern` is no regular expression: {error}") from error
    taken = set(base.pieces.values())
    slots = [Slot(number) for number in range(rows) if number not in taken and number not in named.ids]
    if isinstance(base.model["vocab"], list):
        slots = [slot for place, slot in enumerate(slots, base.next_id) if slot.id == place]
    parts = {part for merge in base.merges for part in merge}
    found = sorted((number, piece) for piece, number in base.pieces.items() if reserved.fullmatch(piece))
    stay = {
        number
        for number, piece in found
        if number in named.ids or piece in met or piece in parts or _quoted(piece, named.text)
    }
    slots += [Slot(number, piece) for number, piece in found if number not in stay]
    return slots, len(stay)


def _quoted(piece: str, text: str) -> bool:
    """Does the piece stand in the text, as it is or as JSON writes it?"""
    return piece in text or json.dumps(piece, ensure_ascii=False)[1:-1] in text
