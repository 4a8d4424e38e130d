"""How the tokens of a new tokenizer relate to the rows of a model's table."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from langadapt.core.errors import DataError
from langadapt.core.io import read_json_lines
from langadapt.core.types import NewToken, TokenMatch
from langadapt.model.pairing import pair
from langadapt.model.roles import check_role_ids
from langadapt.model.token_table import TokenTable

VOCABULARY_MAP = "vocab_map.jsonl"
# What verbs that give tokens other ids call themselves in the map.
_RENUMBERED = ("trim", "new-tokenizer")
# Tables are padded to multiples of powers of two; a table whose rows no such number divides was not padded on purpose.
_LARGEST_MULTIPLE = 512


def match(base: TokenTable, new: TokenTable, *, base_rows: int) -> TokenMatch:
    """Which rows of the base's table the new tokenizer's tokens take over, and which of its tokens are new.

    A tokenizer that holds every token of the base under its id extends it, and an id may be a new token's if the
    vocabulary map says that it took over that of the token the base has there. Any other tokenizer is compared token by
    token, see pairing.py. DataError if the map says that it was made from another tokenizer, or disagrees with the two
    files.
    """
    header, told = _told(new.folder / VOCABULARY_MAP, base)
    taken = {id for id, entry in told.items() if 0 <= id < base.size and entry.get("old_piece", "") == base.pieces[id]}
    changed = [id for id in range(base.size) if base.kind_of(id) != "hole" and not _same(base, new, id)]
    moved = [id for id in changed if id not in taken]
    if moved and header and header.get("mode") not in _RENUMBERED:
        raise DataError(
            f"`{new.folder}` does not extend the vocabulary of `{base.folder}`: {len(moved):,} of its {base.size:,} "
            f"tokens are not there under the same id, such as {moved[0]} `{base.piece(moved[0])}`",
            hint=f"extend this model's own vocabulary: langadapt extend-vocab {base.folder} CORPUS --out DIR",
        )
    if not moved and base.family == new.family:
        kept = {id: id for id in range(base.size) if base.kind_of(id) != "hole" and id not in taken}
        gone = tuple(id for id in sorted(taken) if base.kind_of(id) != "hole")
        rows = max(base_rows, new.size)
        return TokenMatch(base_rows, rows, kept, _new(new, kept, told), gone, tiers={"id": len(kept)})
    check_role_ids(base), check_role_ids(new)
    pairs = pair(base, new)
    kept = dict(sorted(pairs.kept.items()))
    if not kept:
        raise DataError(f"`{new.folder}` and `{base.folder}` have no token in common")
    _agree(kept, told, new, base)
    renumbered = new.size < base.size or any(old != id for old, id in kept.items())
    step = _multiple(base_rows, base.size)
    rows = -(-new.size // step) * step if renumbered else max(base_rows, new.size)
    dropped = tuple(id for id in range(base.size) if base.kind_of(id) != "hole" and id not in kept)
    return TokenMatch(
        base_rows, rows, kept, _new(new, kept, told), dropped, renumbered, dict(sorted(pairs.tiers.items()))
    )


def with_less_overlap(found: TokenMatch, base: TokenTable, new: TokenTable, *, same_string: bool) -> TokenMatch:
    """The same match where fewer text tokens keep their rows: those of the same string, or none at all.

    Published methods compare strings (a space marker of one family counts as that of the other), and some make a row
    for every token. Special and added tokens keep theirs.
    """

    def stays(old: int, id: int) -> bool:
        if base.kind_of(old) != "text" or new.kind_of(id) != "text":
            return True
        return same_string and _bare(base.piece(old)) == _bare(new.piece(id))

    kept = {old: id for old, id in found.kept.items() if stays(old, id)}
    gone = tuple(sorted(set(found.dropped) | (found.kept.keys() - kept.keys())))
    tokens = {token.id: token for token in found.new_tokens}
    made = _new(new, kept, {})
    return replace(
        found,
        kept=kept,
        new_tokens=tuple(tokens.get(token.id, token) for token in made),
        dropped=gone,
        tiers={"string" if same_string else "special": len(kept)},
    )


def _bare(piece: str) -> str:
    return piece.replace("Ġ", "▁")


def _new(table: TokenTable, kept: Mapping[int, int], told: Mapping[int, dict[str, Any]]) -> tuple[NewToken, ...]:
    """All tokens that got no row, ascending."""
    there = set(kept.values())
    tokens = []
    for id in range(table.size):
        kind = table.kind_of(id)
        if kind != "hole" and id not in there:
            entry = told.get(id, {})
            reason = str(entry.get("reason", kind))
            tokens.append(NewToken(id, table.piece(id), table.bytes_of(id), int(entry.get("count", 0)), reason))
    return tuple(tokens)


def _same(base: TokenTable, new: TokenTable, id: int) -> bool:
    return id < new.size and base.pieces[id] == new.pieces[id] and base.kinds[id] == new.kinds[id]


def _multiple(rows: int, tokens: int) -> int:
    """The number that the base's table was padded to a multiple of; 1 if it has no spare rows."""
    return 1 if rows <= tokens else min(_LARGEST_MULTIPLE, rows & -rows)


def _told(path: Path, base: TokenTable) -> tuple[dict[str, Any], Mapping[int, dict[str, Any]]]:
    """Header and entries by new id of what the maker wrote about each token; nothing for a tokenizer made elsewhere."""
    if not path.is_file():
        return {}, {}
    header: dict[str, Any] = {}
    told = {}
    for number, entry in enumerate(read_json_lines(path)):
        if number == 0 and "vocabulary_before" in entry:
            header = entry
            if entry["vocabulary_before"] != base.size:
                raise DataError(
                    f"`{path.parent}` was made for another model: its base has {entry['vocabulary_before']:,} tokens, "
                    f"`{base.folder}` has {base.size:,}",
                    hint=f"extend this model's own vocabulary: langadapt extend-vocab {base.folder} CORPUS --out DIR",
                )
            continue
        if type(entry.get("id")) is int:
            told[int(entry["id"])] = entry
    return header, told


def _agree(kept: Mapping[int, int], told: Mapping[int, dict[str, Any]], new: TokenTable, base: TokenTable) -> None:
    """DataError if the map names another old token for a new one than the two files show."""
    olds = {id: old for old, id in kept.items()}
    for id, entry in told.items():
        if "old_id" in entry and entry["old_id"] != olds.get(id):
            raise DataError(
                f"`{new.folder / VOCABULARY_MAP}` says that {id} was {entry['old_id']} in `{base.folder}`; "
                f"by the tokenizers it was {olds.get(id, 'no token there')}",
                hint="make the tokenizer again, and leave its folder as it was written",
            )
