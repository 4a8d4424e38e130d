"""Tokens of two tokenizers under common names, so that cuts of a text can be compared where ids say nothing."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from langadapt.core.errors import DataError
from langadapt.model.pairing import pair
from langadapt.model.token_table import TokenTable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What a token is: its bytes, or for a special one the tokenizer and id that it first stood in.
Key = bytes | tuple[str, int] | None


def token_keys(base: TokenTable, new: TokenTable) -> tuple[list[Key], list[Key]]:
    """The key of every id of both; equal keys are the same token (bytes, or string and part of a special token).

    Text and added tokens go by their bytes, also where a vocabulary has the same bytes twice; special ones are paired
    as init-embeddings pairs them. A hole has None.
    """
    mine, theirs = _own(base, "base"), _own(new, "new")
    for old, id in pair(base, new).kept.items():
        if "special" in (base.kind_of(old), new.kind_of(id)):
            theirs[id] = mine[old]
    return mine, theirs


def keys_or_strings(
    folders: tuple[Path, Path], tokenizers: "tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]"
) -> tuple[Sequence[Hashable], Sequence[Hashable]]:
    """The keys of two folders, which `tokenizers` were loaded from; strings of tokens where a family cannot be read."""
    try:
        return token_keys(*map(TokenTable.from_folder, folders))
    except DataError:
        base, new = (one.convert_ids_to_tokens(list(range(1 + max(one.get_vocab().values())))) for one in tokenizers)
        return base, new


def _own(table: TokenTable, name: str) -> list[Key]:
    keys: list[Key] = []
    for id in range(table.size):
        kind = table.kind_of(id)
        keys.append(None if kind == "hole" else (name, id) if kind == "special" else table.bytes_of(id))
    return keys
