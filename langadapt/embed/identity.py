"""Is a row that was kept the row of the same token? Asked of the two folders, not of the plan that moved the rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langadapt.core.io import read_json_object
from langadapt.embed.assemble import Layout
from langadapt.embed.ids import names_ids
from langadapt.model.facts import text_config
from langadapt.model.roles import partner, role_ids
from langadapt.model.save import chat_template
from langadapt.model.tables import Tables
from langadapt.model.token_table import TokenTable

# (name, what breaks it, must it hold)
Finding = tuple[str, list[str], bool]


def identity_checks(base: Tables, saved: Tables, plan: Layout) -> list[Finding]:
    """What is said of tokens and ids, where a tokenizer may have been replaced."""
    roles = role_ids(base.tokens), role_ids(saved.tokens)
    return [
        ("every kept row belongs to the same token", _strangers(base.tokens, saved.tokens, plan, *roles), True),
        ("settings name the tokens that they named", _stale(base, saved, plan, *roles), True),
        ("special strings of the chat template are tokens", lost_strings(base.tokens, saved.tokens), False),
    ]


def _strangers(
    base: TokenTable, saved: TokenTable, plan: Layout, old_roles: Mapping[str, int], new_roles: Mapping[str, int]
) -> list[str]:
    """Kept tokens whose bytes are not those of the token at their new id, or whose row stands elsewhere.

    A special token may have another string if it plays the same part.
    """
    parts: dict[int, set[int | None]] = {}
    for role, id in new_roles.items():
        parts.setdefault(id, set()).add(partner(role, old_roles))
    came_from = dict(zip(plan.kept_new.tolist(), plan.kept_old.tolist(), strict=True))
    found = []
    for old, new in plan.kept_ids.items():
        same = new < saved.size and saved.pieces[new] is not None and base.bytes_of(old) == saved.bytes_of(new)
        if not (same or old in parts.get(new, ())):
            found.append(f"{old} `{base.piece(old)}` -> {new}")
        elif came_from.get(new) != old:
            found.append(f"{old} `{base.piece(old)}`: row {new} is not its row")
    return found


def _stale(
    base: Tables, saved: Tables, plan: Layout, old_roles: Mapping[str, int], new_roles: Mapping[str, int]
) -> list[str]:
    """Ids in config.json and generation_config.json that do not stand for the token that they stood for."""
    strings = {piece: id for id, piece in enumerate(saved.tokens.pieces) if piece is not None}
    found = []
    for name in ("config.json", "generation_config.json"):
        before, after = _ids(base.folder / name), _ids(saved.folder / name)
        for key, value in before.items():
            now = after.get(key)
            if not (plan.renumbered or plan.dropped):
                if now != value:
                    found.append(f"{name}: {key} {value} -> {now}")
                continue
            role = key.rpartition(".")[2].removesuffix("_token_id")
            allowed = {partner(role, new_roles)}
            for id in _many(value):
                piece = base.tokens.pieces[id] if 0 <= id < base.tokens.size else None
                allowed.add(strings.get(piece) if piece is not None else None)
                allowed |= {partner(part, new_roles) for part, holder in old_roles.items() if holder == id}
            allowed.discard(None)
            if not set(_many(now)) <= allowed or (not _many(now) and allowed):
                found.append(f"{name}: {key} {value} -> {now}")
    return found


def _ids(path: Path) -> dict[str, Any]:
    """Entries of a config file that hold token ids; those of the language model's own part as `text.<key>`."""
    content = read_json_object(path) if path.is_file() else {}
    inner = text_config(content)
    found = {key: value for key, value in content.items() if names_ids(key) and value is not None}
    if inner is not content:
        found |= {f"text.{key}": value for key, value in inner.items() if names_ids(key) and value is not None}
    return found


def _many(value: Any) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def lost_strings(base: TokenTable, new: TokenTable) -> list[str]:
    """Special and added tokens of the base that its chat template writes and that are no tokens any more."""
    template = chat_template(base.folder)
    if template is None:
        return []
    text = str(template)
    there = {new.piece(id) for id in range(new.size) if new.kind_of(id) in ("special", "added")}
    mine = [base.piece(id) for id in range(base.size) if base.kind_of(id) in ("special", "added")]
    return [piece for piece in mine if piece in text and piece not in there]
