"""How the tokens of an extended tokenizer relate to the rows of a model's table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langadapt.core.errors import DataError
from langadapt.core.io import read_json_lines
from langadapt.core.types import NewToken, TokenMatch
from langadapt.model.token_table import TokenTable

VOCABULARY_MAP = "vocab_map.jsonl"


def match(base: TokenTable, new: TokenTable, *, base_rows: int) -> TokenMatch:
    """Compare token by token, as (kind, bytes). Old tokens must have kept their ids; all other ids are new tokens.

    An id is also a new token's if the vocabulary map says that it took over that of the token the base has there.
    DataError when the new tokenizer renumbers or lacks other tokens of the base.
    """
    told = _told(new.folder / VOCABULARY_MAP, base)
    taken = {id for id, entry in told.items() if 0 <= id < base.size and entry.get("old_piece", "") == base.pieces[id]}
    changed = [id for id in range(base.size) if base.kind_of(id) != "hole" and not _same(base, new, id)]
    moved = [id for id in changed if id not in taken]
    if moved:
        raise DataError(
            f"`{new.folder}` does not extend the vocabulary of `{base.folder}`: {len(moved):,} of its {base.size:,} "
            f"tokens are not there under the same id, such as {moved[0]} `{base.piece(moved[0])}`",
            hint=f"extend this model's own vocabulary: langadapt extend-vocab {base.folder} CORPUS --out DIR",
        )
    tokens, kept = [], {}
    for id in range(new.size):
        kind = new.kind_of(id)
        if kind == "hole":
            continue
        if id < base.size and base.kind_of(id) != "hole" and id not in taken:
            kept[id] = id
            continue
        entry = told.get(id, {})
        reason = str(entry.get("reason", kind))
        tokens.append(NewToken(id, new.piece(id), new.bytes_of(id), int(entry.get("count", 0)), reason))
    return TokenMatch(base_rows, max(base_rows, new.size), kept, tuple(tokens))


def _same(base: TokenTable, new: TokenTable, id: int) -> bool:
    return id < new.size and base.pieces[id] == new.pieces[id] and base.kinds[id] == new.kinds[id]


def _told(path: Path, base: TokenTable) -> Mapping[int, dict[str, Any]]:
    """What extend-vocab wrote about each new token; empty for a tokenizer that was made elsewhere."""
    if not path.is_file():
        return {}
    told = {}
    for number, entry in enumerate(read_json_lines(path)):
        if number == 0 and "old_tokens" in entry:
            if entry["old_tokens"] != base.size:
                raise DataError(
                    f"`{path.parent}` was made for another model: its base has {entry['old_tokens']:,} tokens, "
                    f"`{base.folder}` has {base.size:,}",
                    hint=f"extend this model's own vocabulary: langadapt extend-vocab {base.folder} CORPUS --out DIR",
                )
            continue
        if type(entry.get("id")) is int:
            told[int(entry["id"])] = entry
    return told
