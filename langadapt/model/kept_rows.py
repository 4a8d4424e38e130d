"""Are the rows of kept tokens in a model's tables those of its base, bit for bit? Read from both files in blocks."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from langadapt.model.tables import Tables
from langadapt.model.weights import TensorInfo, bits

# 8,192 rows of 8,192 numbers in 4 bytes are 268 MB.
_ROWS_AT_A_TIME = 8192

Ids = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Compared:
    """One table: rows that the base had, and which of them differ (row of the base, row here)."""

    table: str
    rows: int
    changed: tuple[tuple[int, int], ...]


def kept_rows(base: Tables, new: Tables, origin: "np.ndarray[Any, np.dtype[np.int32]] | None") -> list[Compared]:
    """Input table, head and the head's bias of both. `origin` [rows of new] is the base's row of each, negative for
    none; without it old rows stand where they stood.
    """
    here: Ids = np.arange(min(base.rows, new.rows)) if origin is None else np.flatnonzero(origin >= 0)
    there: Ids = here if origin is None else origin[here].astype(np.int64)
    names = (
        ("input table", base.stored.input, new.stored.input),
        ("head", base.stored.head, new.stored.head),
        ("bias of the head", base.stored.bias, new.stored.bias),
    )
    return [
        Compared(what, len(here), tuple(_changed(base.weights.tensors[old], old, new.weights.tensors[now], now,
                                                 there, here)))
        for what, old, now in names
        if old is not None and now is not None
    ]  # fmt: skip


def _changed(before: TensorInfo, old: str, after: TensorInfo, new: str, there: Ids, here: Ids) -> list[tuple[int, int]]:
    import torch
    from safetensors import safe_open

    if before.dtype != after.dtype or _width(before) != _width(after):
        return list(zip(there.tolist(), here.tolist(), strict=True))
    found: list[tuple[int, int]] = []
    with safe_open(before.file, framework="pt") as first, safe_open(after.file, framework="pt") as second:
        whole = first.get_tensor(old).reshape(-1, _width(before))
        for start in range(0, len(here), _ROWS_AT_A_TIME):
            part = slice(start, start + _ROWS_AT_A_TIME)
            low, high = int(here[part][0]), int(here[part][-1]) + 1
            lying = len(after.shape) == 2 and after.shape[0] == 1
            rows = second.get_slice(new)[:, low:high] if lying else second.get_slice(new)[low:high]
            rows = rows.reshape(high - low, -1)[torch.from_numpy(here[part] - low)]
            same = bits(whole[torch.from_numpy(there[part])]) == bits(rows)
            bad = torch.nonzero(~same.all(dim=1)).flatten().numpy() + start
            found += zip(there[bad].tolist(), here[bad].tolist(), strict=True)
    return found


def _width(info: TensorInfo) -> int:
    """Numbers a row; a bias has one, and some are stored with an axis of one place before it."""
    return info.shape[1] if len(info.shape) == 2 and info.shape[0] != 1 else 1
