"""From row maps to a model folder: tables with their new rows, config and generation config to match."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.io import read_json_object
from langadapt.core.progress import Progress
from langadapt.core.types import TokenMatch
from langadapt.embed.rowmap import RowMap
from langadapt.model.save import write_model
from langadapt.model.tables import Tables

if TYPE_CHECKING:
    import torch

# Names under which a tied matrix may be stored a second time.
_COPIES = ("lm_head.weight", "output.weight", "embed_out.weight")


@dataclass(frozen=True)
class Layout:
    """Which row of the new tables is what. `rows` is never less than the base's.

    `reused` are new ids that take over rows which the base had but used for no token; `padding` are rows added for
    `pad_to_multiple_of` only.
    """

    old_rows: int
    rows: int
    new_ids: tuple[int, ...]
    reused: tuple[int, ...]
    padding: tuple[int, ...]


def layout(tokens: TokenMatch, pad_to_multiple_of: int | None) -> Layout:
    """Lay out the rows: old ids where they were, new tokens at their ids (spare rows first), then padding."""
    needed = max(tokens.old_rows, tokens.new_rows)
    step = pad_to_multiple_of or 1
    rows = -(-needed // step) * step
    new_ids = tuple(sorted(token.id for token in tokens.new_tokens))
    reused = tuple(id for id in new_ids if id < tokens.old_rows)
    return Layout(tokens.old_rows, rows, new_ids, reused, tuple(range(needed, rows)))


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
    replace = {stored.input: lambda: _longer(tables, stored.input, maps["input"], plan)}
    drop: tuple[str, ...] = ()
    if stored.head is not None:
        head = stored.head
        replace[head] = lambda: _longer(tables, head, maps["head"], plan)
    else:
        drop = tuple(name for name in _COPIES if name in tables.weights.tensors and name != stored.input)
    if stored.bias is not None:
        bias = stored.bias
        replace[bias] = lambda: _longer_bias(tables, bias, maps["head" if "head" in maps else "input"], plan)
    write_model(
        tables.folder,
        out,
        replace,
        config_updates={"vocab_size": plan.rows},
        generation_updates=_generation(tables.folder, plan),
        tokenizer_folder=tokenizer_folder,
        resized=tuple(replace),
        drop=drop,
        progress=progress,
    )


def _longer(tables: Tables, name: str, rows: RowMap, plan: Layout) -> "torch.Tensor":
    import torch

    old = tables.weights.read(name)
    longer = torch.empty((plan.rows, old.shape[1]), dtype=old.dtype)
    longer[: plan.old_rows] = old
    values = old.float().numpy()
    longer[list(plan.new_ids)] = torch.from_numpy(rows.apply(values)).to(old.dtype)
    if plan.padding:
        # never zero: where all logits lie far below zero, a zero row would win the soft-max
        longer[list(plan.padding)] = torch.from_numpy(values[rows.population].mean(axis=0)).to(old.dtype)
    return longer


def _longer_bias(tables: Tables, name: str, rows: RowMap, plan: Layout) -> "torch.Tensor":
    import torch

    old = tables.weights.read(name)
    longer = torch.empty(plan.rows, dtype=old.dtype)
    longer[: plan.old_rows] = old
    longer[list(plan.new_ids)] = torch.from_numpy(rows.apply_bias(old.float().numpy())).to(old.dtype)
    # the least likely of the old tokens: padding must not be generated
    longer[list(plan.padding)] = old[torch.from_numpy(rows.population)].min()
    return longer


def _generation(folder: Path, plan: Layout) -> dict[str, Any]:
    """Padding rows may never be generated; rows that were spare and now have a token may."""
    path = folder / "generation_config.json"
    before = (read_json_object(path) if path.is_file() else {}).get("suppress_tokens") or []
    wanted = sorted((set(before) - set(plan.reused)) | set(plan.padding))
    return {} if wanted == sorted(before) else {"suppress_tokens": wanted or None}
