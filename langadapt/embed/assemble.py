"""From row maps to a model folder: tables with their new rows, config and generation config to match."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from langadapt.core.boundary import Reading
from langadapt.core.errors import DataError
from langadapt.core.io import read_json_object
from langadapt.core.progress import Progress
from langadapt.core.types import TokenMatch
from langadapt.embed.ids import names_ids, remapped, without_ids
from langadapt.embed.moments import mean_of
from langadapt.embed.rowmap import RowMap
from langadapt.embed.types import Floats, Ints
from langadapt.model.facts import HEADS, text_config
from langadapt.model.kinds import generates
from langadapt.model.roles import role_ids
from langadapt.model.save import write_model
from langadapt.model.tables import Tables
from langadapt.model.token_table import TokenTable

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Layout:
    """Which row of the new tables is what: row `kept_new[i]` is the base's row `kept_old[i]`, bit for bit.

    `reused` are new ids that take over rows of the base (spare ones, or those of dropped tokens); `padding` are rows of
    no token that are not the base's: added for a multiple, or holes between the ids of a new tokenizer. `kept_ids` maps
    the ids of tokens. A `plain` layout has the base's rows first, all of them, and new ones after them.
    """

    old_rows: int
    rows: int
    new_ids: tuple[int, ...]
    reused: tuple[int, ...]
    padding: tuple[int, ...]
    kept_old: "torch.Tensor" = field(repr=False, compare=False)
    kept_new: "torch.Tensor" = field(repr=False, compare=False)
    kept_ids: Mapping[int, int] = field(repr=False)
    dropped: tuple[int, ...] = ()
    renumbered: bool = False

    @property
    def plain(self) -> bool:
        """Do old rows stand where they stood, and new ones behind them?"""
        return not self.renumbered and not self.reused

    def origin(self) -> "np.ndarray[Any, np.dtype[np.int32]]":
        """For each row [rows] the row of the base that it is; -1 for a new token, -2 for padding."""
        found = np.full(self.rows, -2, dtype=np.int32)
        found[list(self.new_ids)] = -1
        found[self.kept_new.numpy()] = self.kept_old.numpy()
        return found


def layout(tokens: TokenMatch, pad_to_multiple_of: int | None) -> Layout:
    """Lay out the rows: kept tokens at their ids, new tokens at theirs (spare rows first), then padding.

    Rows of an extended vocabulary are never lost, spare ones included; those of a renumbered one follow its tokens.
    """
    import torch

    needed = tokens.new_rows if tokens.renumbered else max(tokens.old_rows, tokens.new_rows)
    step = pad_to_multiple_of or 1
    rows = -(-needed // step) * step
    new_ids = tuple(sorted(token.id for token in tokens.new_tokens))
    if tokens.renumbered:
        pairs = sorted((new, old) for old, new in tokens.kept.items())
        kept_new = torch.tensor([new for new, _ in pairs], dtype=torch.long)
        kept_old = torch.tensor([old for _, old in pairs], dtype=torch.long)
        reused: tuple[int, ...] = ()
    else:
        reused = tuple(id for id in new_ids if id < tokens.old_rows)
        stay = torch.ones(tokens.old_rows, dtype=torch.bool)
        stay[list(reused)] = False
        kept_old = kept_new = torch.nonzero(stay).flatten()
    padding = sorted(set(range(rows)) - set(new_ids) - set(kept_new.tolist()))
    return Layout(
        old_rows=tokens.old_rows,
        rows=rows,
        new_ids=new_ids,
        reused=reused,
        padding=tuple(padding),
        kept_old=kept_old,
        kept_new=kept_new,
        kept_ids=tokens.kept,
        dropped=tokens.dropped,
        renumbered=tokens.renumbered,
    )


def assemble(
    tables: Tables,
    plan: Layout,
    maps: Mapping[str, RowMap],
    tokenizer_folder: Path,
    out: Path,
    *,
    progress: Progress | None = None,
) -> None:
    """Write the model folder. `maps` holds `input`, and `head` when the model is not tied.

    Rows are computed in float32 and cast once, to the stored dtype; old rows are copied as stored.
    """
    stored = tables.stored
    replace = {stored.input: lambda: longer(tables, stored.input, maps["input"], plan)}
    if stored.head is not None:
        head = stored.head
        replace[head] = lambda: longer(tables, head, maps["head"], plan)
    if stored.bias is not None:
        bias = stored.bias
        replace[bias] = lambda: longer_bias(tables, bias, maps["head" if "head" in maps else "input"], plan)
    # a head that is the input table needs no second copy; other files hold one, and so will these
    drop = tuple(name for name, main in tables.copies.items() if tables.tied and name in HEADS and main == stored.input)
    replace |= {name: replace[main] for name, main in tables.copies.items() if name not in drop}
    roles = role_ids(TokenTable.from_folder(tokenizer_folder)) if plan.renumbered or plan.dropped else {}
    inner, outer = _config_ids(tables.config, plan, roles)
    write_model(
        tables.folder,
        out,
        replace,
        config_updates={"vocab_size": plan.rows} | inner,
        outer_updates=outer,
        generation_updates=_generation(tables, plan, roles),
        tokenizer_folder=tokenizer_folder,
        resized=tuple(replace),
        drop=drop,
        progress=progress,
    )


@dataclass(frozen=True)
class _Widened:
    """A stored table whose rows become float32 when they are asked for: whole it would take twice its own memory."""

    table: "torch.Tensor" = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.table.shape)

    def __getitem__(self, ids: Ints) -> Floats:
        import torch

        rows: Floats = self.table[torch.from_numpy(ids)].float().numpy()
        return rows


def longer(tables: Tables, name: str, rows: RowMap, plan: Layout) -> "torch.Tensor":
    """The stored table `name` with its new rows and padding [rows, width], in the stored dtype."""
    import torch

    old = tables.weights.read(name)
    longer = torch.empty((plan.rows, old.shape[1]), dtype=old.dtype)
    _put_kept(longer, old, plan)
    values = cast("Floats", _Widened(old))
    new = torch.tensor(plan.new_ids, dtype=torch.long)
    for start, part in rows.parts(values):
        longer[new[start : start + len(part)]] = torch.from_numpy(part).to(old.dtype)
    if plan.padding:
        # never zero: where all logits lie far below zero, a zero row would win the soft-max
        longer[list(plan.padding)] = torch.from_numpy(mean_of(values, rows.population)).to(old.dtype)
    return longer


def longer_bias(tables: Tables, name: str, rows: RowMap, plan: Layout) -> "torch.Tensor":
    """The same for the head's bias, in its stored shape."""
    import torch

    old = tables.weights.read(name).flatten()
    longer = torch.empty(plan.rows, dtype=old.dtype)
    _put_kept(longer, old, plan)
    longer[list(plan.new_ids)] = torch.from_numpy(rows.apply_bias(old.float().numpy())).to(old.dtype)
    # the least likely of the old tokens: padding must not be generated
    longer[list(plan.padding)] = old[torch.from_numpy(rows.population)].min()
    return longer.reshape(1, -1) if tables.weights.tensors[name].shape[:-1] else longer


def _put_kept(longer: "torch.Tensor", old: "torch.Tensor", plan: Layout) -> None:
    if plan.renumbered:
        longer[plan.kept_new] = old[plan.kept_old]
    else:
        longer[: plan.old_rows] = old


def _config_ids(
    config: Mapping[str, Any], plan: Layout, roles: Mapping[str, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """New ids for the language model's part of config.json, and for what stands around it (several modalities)."""
    if not (plan.renumbered or plan.dropped):
        return {}, {}
    inner = text_config(dict(config))
    outer = {} if inner is config or inner == config else remapped(config, plan.kept_ids, roles, "config.json")
    return remapped(inner, plan.kept_ids, roles, "config.json"), outer


def _generation(tables: Tables, plan: Layout, roles: Mapping[str, int]) -> dict[str, Any]:
    """Padding rows may never be generated; rows that had no token and now have one may."""
    path = tables.folder / "generation_config.json"
    content = read_json_object(path) if path.is_file() else {}
    _check_roles(path, content, tables, plan)
    _check_roles(tables.folder / "config.json", text_config(tables.config), tables, plan)
    changed: dict[str, Any] = {}
    with Reading(f"the lists of ids in `{path}` cannot be used"):
        if plan.renumbered or plan.dropped:
            changed = remapped(content, plan.kept_ids, roles, "generation_config.json")
        if not plan.renumbered:
            changed |= without_ids(content | changed, frozenset(plan.new_ids))
        if not generates(tables.config):
            return changed
        before = (content | changed).get("suppress_tokens") or []
        wanted = sorted(set(before) | set(plan.padding))
    return changed if wanted == sorted(before) else changed | {"suppress_tokens": wanted or None}


def _check_roles(path: Path, content: Mapping[str, Any], tables: Tables, plan: Layout) -> None:
    """DataError if a role has an id that no token of the base has, and that is or will be another's."""
    taken = frozenset() if plan.renumbered else frozenset(plan.new_ids)
    for key, value in content.items():
        if not names_ids(key) or value is None:
            continue
        for id in value if isinstance(value, list) else [value]:
            if type(id) is not int:
                raise DataError(f"`{key}` is {id!r:.80}, not the id of a token", where=str(path))
            # below 0 means none in old files of Llama
            if id >= plan.old_rows or (id in taken and (id >= tables.tokens.size or tables.tokens.pieces[id] is None)):
                raise DataError(
                    f"`{key}` is {id:,}, the tables have {plan.old_rows:,} rows, the tokenizer "
                    f"{tables.tokens.size:,} ids",
                    where=str(path),
                    hint="correct it in the base model: a new token would get that id, and this role",
                )
