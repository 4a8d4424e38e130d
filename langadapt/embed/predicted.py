"""Rows of the new tokens that something else predicted (a hypernetwork, say), from a safetensors file."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from langadapt.core.errors import DataError
from langadapt.embed.types import Floats, Ints, Role
from langadapt.model.token_table import TokenTable
from langadapt.model.weights import TensorInfo, read_header, read_tensor

if TYPE_CHECKING:
    import torch

_FORM = "it holds `input` [rows, width], for a head of its own `head`, and `ids` [rows] or `pieces` in its metadata"
_MAKE = (
    'make one: safetensors.numpy.save_file({"input": rows}, "rows.safetensors", {"pieces": json.dumps(pieces)}); '
    "see docs/methods/rows.md"
)
# How files begin that people keep arrays in.
_OTHER_KINDS = {
    b"\x93NUMPY": "an array of numpy (.npy)",
    b"PK\x03\x04": "a zip file (.npz, or torch.save)",
    b"\x80": "a pickle, which is never read",
    b"\x1f\x8b": "packed with gzip",
    b"GGUF": "a GGUF model",
}
_FLOATS = ("F64", "F32", "F16", "BF16")
_INTEGERS = ("I64", "I32", "I16", "U16", "U8", "I8", "U32", "U64")


@dataclass(frozen=True)
class PredictedRows:
    """`row_of` [ids of the new tokenizer] is the file's row of each token, -1 where it has none.

    `strangers` counts rows of the file that belong to no token of the new tokenizer.
    """

    path: Path
    width: int
    row_of: Ints = field(repr=False)
    has_head: bool = False
    strangers: int = 0

    def rows(self, ids: Ints, role: Role) -> Floats:
        """Rows of tokens of the new tokenizer in float32 [n, width]: of `head` for a head, else of `input`.

        DataError if the file has no head and one is asked for.
        """
        if role == "head" and not self.has_head:
            raise DataError(
                f"`{self.path}` has no tensor `head`, and the model has a head of its own",
                hint="add it, or make the head's rows from old ones: -o head_method=subtoken-mean",
            )
        table = read_tensor(self.path, "head" if role == "head" else "input")
        found: Floats = table[_index(self.row_of[np.asarray(ids, dtype=np.int64)])].float().numpy()
        return found


def open_rows(path: Path, target: TokenTable) -> PredictedRows:
    """Read the names of the rows, and find that of each of the target's tokens.

    Rows are named by `ids`, by `pieces` (the strings of tokenizer.json, a JSON list in the file's metadata), by both,
    which then must agree, or by neither: then there is one for each id. DataError for anything else.
    """
    if path.is_dir():
        raise DataError(f"`{path}` is a folder; `--rows` takes one safetensors file", hint=_FORM)
    _check_kind(path)
    tensors = read_header(path)
    count, width = _shape(path, tensors, "input")
    if "head" in tensors and _shape(path, tensors, "head") != (count, width):
        raise DataError(f"`{path}`: `head` has shape {list(tensors['head'].shape)}, `input` {[count, width]}")
    ids, pieces = _ids(path, tensors, count), _pieces(path, count)
    if pieces is not None:
        by_piece = {piece: id for id, piece in enumerate(target.pieces) if piece is not None}
        named = np.array([by_piece.get(piece, -1) for piece in pieces], dtype=np.int64)
        if ids is not None:
            _check_agreement(path, ids, named, pieces)
    elif ids is not None:
        named = np.where((ids >= 0) & (ids < target.size), ids, -1)
    elif count == target.size:
        named = np.arange(count, dtype=np.int64)
    else:
        raise DataError(
            f"`{path}` does not say whose its {count:,} rows are; the new tokenizer has {target.size:,} ids", hint=_FORM
        )
    there = np.flatnonzero(named >= 0)
    if not len(there):
        raise DataError(
            f"`{path}` has a row for none of the new tokenizer's tokens", hint="is it for another tokenizer?"
        )
    if len(np.unique(named[there])) != len(there):
        values, counts = np.unique(named[there], return_counts=True)
        raise DataError(f"`{path}` has two rows for token {int(values[counts > 1][0])}")
    row_of = np.full(target.size, -1, dtype=np.int64)
    row_of[named[there]] = there
    return PredictedRows(path, width, row_of, "head" in tensors, count - len(there))


def _check_kind(path: Path) -> None:
    """DataError if the file cannot be safetensors: 8 bytes of length, then JSON."""
    with path.open("rb") as file:
        begin = file.read(9)
    if len(begin) == 9 and begin[8:] != b"{":
        kind = next((f": it is {name}" for mark, name in _OTHER_KINDS.items() if begin.startswith(mark)), "")
        raise DataError(f"`{path}` is no safetensors file{kind}", hint=_MAKE)


def _shape(path: Path, tensors: "dict[str, TensorInfo]", name: str) -> tuple[int, int]:
    info = tensors.get(name)
    if info is None:
        raise DataError(
            f"`{path}` has no tensor `{name}`; it has {', '.join(sorted(tensors)[:8]) or 'none'}", hint=_FORM
        )
    if len(info.shape) != 2 or info.dtype not in _FLOATS:
        raise DataError(f"`{path}`: `{name}` is {info.dtype} of shape {list(info.shape)}, not floats [rows, width]")
    return info.shape[0], info.shape[1]


def _ids(path: Path, tensors: "dict[str, TensorInfo]", count: int) -> Ints | None:
    info = tensors.get("ids")
    if info is None:
        return None
    if info.shape != (count,) or info.dtype not in _INTEGERS:
        raise DataError(f"`{path}`: `ids` is {info.dtype} of shape {list(info.shape)}, not integers [{count}]")
    found: Ints = read_tensor(path, "ids").numpy().astype(np.int64)
    return found


def _check_agreement(path: Path, ids: Ints, named: Ints, pieces: list[str]) -> None:
    """DataError if a row's id is not that of its piece in the new tokenizer."""
    wrong = np.flatnonzero(ids != named)
    if len(wrong):
        row = int(wrong[0])
        where = f"under {int(named[row])}" if named[row] >= 0 else "nowhere"
        raise DataError(
            f"`{path}`: row {row} is for token {int(ids[row])} `{pieces[row]}`; the new tokenizer has it {where}",
            hint="the file was made for another tokenizer",
        )


def _pieces(path: Path, count: int) -> list[str] | None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("pieces")
    if text is None:
        return None
    try:
        pieces = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"`{path}`: `pieces` in its metadata is not JSON: {error}") from error
    if not isinstance(pieces, list) or len(pieces) != count or not all(isinstance(piece, str) for piece in pieces):
        raise DataError(f"`{path}`: `pieces` in its metadata is not a list of {count:,} strings")
    return pieces


def _index(places: Ints) -> "torch.Tensor":
    import torch

    return torch.from_numpy(places)
