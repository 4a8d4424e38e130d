"""Back from an adapted model to its base's vocabulary: every old row at its old id, no row made."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Output
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input

if TYPE_CHECKING:
    import numpy as np

    from langadapt.core.types import TokenMatch
    from langadapt.embed.assemble import Layout
    from langadapt.model.tables import Tables
    from langadapt.model.token_table import TokenTable

_HINT = (
    "an undo takes what init-embeddings wrote (or cpt made of it) and the tokenizer of the model that it was made from"
)


def old_rows_of(model: Input) -> int:
    """Rows of the table that an adapted model was made from. ConfigError if it does not say."""
    rows = model.facts.get("old_rows")
    if "undone" in model.facts:
        raise ConfigError(f"`{model.given}` was taken back to its base's vocabulary already", where="undo", hint=_HINT)
    if type(rows) is not int or "added" not in model.facts:
        raise ConfigError(f"`{model.given}` does not say what it was made from", where="undo", hint=_HINT)
    return rows


def match_undone(adapted: "TokenTable", base: "TokenTable", model: Input, rows: int) -> "TokenMatch":
    """The adapted model's rows of the base's tokens. DataError if one is gone, or if this is not the base's tokenizer.

    `rows` is the length of the adapted model's table.
    """
    from langadapt.core.types import TokenMatch

    origin, old_rows = _origin(model, rows), old_rows_of(model)
    row_of = {int(old): row for row, old in enumerate(origin) if old >= 0}
    ids = [id for id in range(base.size) if base.kind_of(id) != "hole"]
    gone = [id for id in ids if id not in row_of]
    if gone and base.size <= old_rows:
        raise DataError(
            f"`{model.given}` lost {len(gone):,} of the {len(ids):,} rows that are asked for, such as that of "
            f"{gone[0]} `{base.piece(gone[0])}`: their tokens were dropped or gave their ids away",
            hint="they are in the base model only: take that",
        )
    strangers = [id for id in ids if id in row_of and not _same(adapted, row_of[id], base, id)]
    if gone or strangers:
        shown = (gone + strangers)[0]
        raise DataError(
            f"`{base.folder}` is not the tokenizer of the model that `{model.given}` was made from: it has "
            f"`{base.piece(shown)}` under {shown}",
            hint=_HINT,
        )
    kept = {row_of[id]: id for id in ids}
    leave = tuple(id for id in range(adapted.size) if adapted.kind_of(id) != "hole" and id not in kept)
    return TokenMatch(rows, old_rows, kept, (), leave, renumbered=True, tiers={"id": len(kept)})


def with_spare_rows(plan: "Layout", model: Input) -> "Layout":
    """The same layout with the base's rows of no token too, as far as the adapted model still has them."""
    import torch

    there = set(plan.kept_new.tolist())
    pairs = list(zip(plan.kept_new.tolist(), plan.kept_old.tolist(), strict=True))
    for row, old in enumerate(_origin(model, plan.old_rows)):
        if 0 <= old < plan.rows and int(old) not in there:
            pairs.append((int(old), row))
    pairs.sort()
    new = torch.tensor([pair[0] for pair in pairs], dtype=torch.long)
    old = torch.tensor([pair[1] for pair in pairs], dtype=torch.long)
    padding = tuple(sorted(set(plan.padding) - set(new.tolist())))
    return replace(plan, kept_new=new, kept_old=old, padding=padding)


def verdict(saved: "Tables", model: Input, plan: "Layout", out: Output) -> dict[str, Any]:
    """What is the base's again, by the digests that were noted when its rows were copied; said, and for the facts."""
    from langadapt.model.table_digests import table_digests

    then, now = model.facts.get("base_tables"), table_digests(saved)
    same = [name for name in now if isinstance(then, dict) and then.get(name) == now[name]]
    other = [name for name in now if name not in same]
    if not isinstance(then, dict):
        out.progress.warn(
            f"`{model.given}` has no digests of its base's tables: nothing says whether these are the same"
        )
    elif not other:
        out.progress.note(f"{', '.join(same)}: the same bits as in the base")
    elif plan.padding:
        out.progress.warn(
            f"{len(plan.padding)} rows of no token are lost; all rows of tokens are as in `{model.given}`"
        )
    else:
        out.progress.warn(
            f"{', '.join(other)}: not the base's bits. The rows are as training left them, and so are all other weights"
        )
    return {"same_as_base": same, "not_as_base": other, "spare_rows_lost": len(plan.padding)}


def _origin(model: Input, rows: int) -> "np.ndarray[Any, np.dtype[np.int32]]":
    """For each row of the adapted table the base's row, or a negative number."""
    import numpy as np

    from langadapt.model.row_origin import origin_of

    origin = origin_of(model.path)
    if origin is None:
        origin = np.arange(rows, dtype=np.int32)
        origin[old_rows_of(model) :] = -1
    return origin


def _same(adapted: "TokenTable", row: int, base: "TokenTable", id: int) -> bool:
    return row < adapted.size and adapted.pieces[row] is not None and adapted.bytes_of(row) == base.bytes_of(id)
