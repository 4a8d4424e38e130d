"""`langadapt show MODEL --token TEXT`: which old rows a token's row was made of, and why."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.cli.output import screen
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.types import Table

if TYPE_CHECKING:
    from langadapt.embed.rowmap import RowMap
    from langadapt.model.token_table import TokenTable


def show_tokens(path: Path, texts: Sequence[str]) -> None:
    """Explain the rows of tokens of a model that init-embeddings made.

    A token is meant by its text (with or without a space before it), by its string in tokenizer.json, or by its id.
    """
    from langadapt.embed.rowmap import load_maps
    from langadapt.model.row_origin import origin_of
    from langadapt.model.token_table import TokenTable

    if not path.is_dir():
        raise DataError(f"`{path}` is no folder here", hint="give the folder of a model that init-embeddings made")
    maps = load_maps(path)
    tokens, origin = TokenTable.from_folder(path), origin_of(path)
    found: list[dict[str, Any]] = []
    tables = []
    for text in texts:
        for id in _meant(tokens, text):
            old = id if origin is None else int(origin[id])
            one = _one(maps, tokens, id, old)
            found.append(one)
            tables.append(_table(one))
    screen.emit({"schema": "langadapt/token-rows/1", "path": str(path), "tokens": found}, tables=tables)


def _meant(tokens: "TokenTable", text: str) -> list[int]:
    """Ids of the tokens that a person means. DataError with the pieces of a text that is no token."""
    if not text:
        raise ConfigError("`--token` is empty", hint="give a token's text, its string in tokenizer.json, or its id")
    wanted = (text.encode(), b" " + text.encode())
    named = [(id, piece) for id, piece in enumerate(tokens.pieces) if piece is not None]
    ids = [id for id, piece in named if piece == text or tokens.bytes_of(id) in wanted]
    if not ids and text.isdecimal() and int(text) < tokens.size and tokens.pieces[int(text)] is not None:
        ids = [int(text)]
    if ids:
        return ids
    spelled = " + ".join(f"`{_readable(tokens, tokens.piece(id))}`" for id in tokens.spell(text.encode()))
    raise DataError(
        f"`{text}` is no token of `{tokens.folder}`",
        hint=f"its pieces are {spelled}" if spelled else "give a token's text, its string in tokenizer.json, or its id",
    )


def _one(maps: "dict[str, RowMap]", tokens: "TokenTable", id: int, old: int) -> dict[str, Any]:
    from langadapt.embed.explain import explain, line_of

    content = tokens.bytes_of(id)
    found: dict[str, Any] = {"id": id, "piece": tokens.piece(id), "hex": content.hex()}
    found["text"] = content.decode("utf-8", "backslashreplace")
    for name, rows in maps.items():
        line = line_of(rows, id)
        if line is None:
            found[name] = {"method": None, "old_id": old, "formula": f"row {old:,} of the base, bit for bit"}
            continue
        told = explain(rows, line)
        formula = told.formula(lambda piece: _readable(tokens, piece))
        found[name] = {key: value for key, value in asdict(told).items() if key not in ("id", "piece", "content")}
        found[name]["formula"] = formula
    return found


def _table(one: dict[str, Any]) -> Table:
    rows = [("text", f"`{one['text']}`"), ("id", f"{one['id']:,}"), ("string in tokenizer.json", one["piece"])]
    for name in ("input", "head"):
        if name in one:
            told = one[name]
            rows.append((f"row of the {name}", told["formula"]))
            if told["method"] is not None:
                rows += [("method", told["method"]), ("why", told["why"])]
    return Table(f"row of `{one['text']}`", ("", ""), tuple(rows))


def _readable(tokens: "TokenTable", piece: str) -> str:
    """Text of a piece where it is byte-level and whole letters; else the piece as it stands."""
    from langadapt.model.bytes_alphabet import to_bytes

    if tokens.family != "byte-bpe":
        return piece
    try:
        return to_bytes(piece).decode()
    except (DataError, UnicodeDecodeError):
        return piece
