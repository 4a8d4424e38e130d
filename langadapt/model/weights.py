"""Tensors in safetensors files: found, checked and read one at a time, without loading a model.

Headers are checked here, in bounded memory, before any other library sees the file, so that a cut or forged file is
an error that names the file and the bytes.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.errors import DataError, SafetyError
from langadapt.core.io import read_json_object

if TYPE_CHECKING:
    import torch

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# A header of 100,000 tensors has about 12 MB; the format itself allows 100 MB, which takes seconds to parse.
MAX_HEADER_BYTES = 32 * 1024 * 1024
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip
DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
BYTES_PER_VALUE = {name: BITS[code] // 8 for code, name in DTYPE_NAMES.items()}
# What other libraries write with pickle; opening one runs whatever code it holds.
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One stored tensor: its file, its dtype as safetensors names it (`BF16`), its shape."""

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of values."""
        product = 1
        for size in self.shape:
            product *= size
        return product

    @property
    def bytes(self) -> int:
        """Bytes of the values in the file."""
        return self.elements * BITS[self.dtype] // 8


@dataclass(frozen=True)
class Weights:
    """All tensors of a model folder, by name; nothing is read until `read`."""

    folder: Path
    shards: tuple[Path, ...]
    tensors: dict[str, TensorInfo] = field(repr=False)

    def read(self, name: str) -> "torch.Tensor":
        """One tensor in its stored dtype."""
        return read_tensor(self.tensors[name].file, name)


def read_tensor(path: Path, name: str) -> "torch.Tensor":
    """One tensor of a safetensors file in its stored dtype."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
    return tensor


def bits(values: "torch.Tensor") -> "torch.Tensor":
    """The stored bits as whole numbers, in the same shape: -0.0 differs from 0.0, and NaN equals itself."""
    import torch

    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return values.contiguous().view(kinds[values.element_size()])


def open_weights(folder: Path) -> Weights:
    """Find and check the weights of a model folder. DataError: missing, cut or forged; SafetyError: pickle only."""
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        return Weights(folder, (single,), read_header(single))
    if not index.is_file():
        refuse_pickles(folder)
        raise DataError(f"`{folder}` has no weights: neither `{SINGLE}` nor `{INDEX}`")
    placed = read_json_object(index).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
        raise DataError(f"`{index}` has no `weight_map` from tensor to file")
    tensors: dict[str, TensorInfo] = {}
    shards = []
    for name in sorted(set(placed.values())):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise DataError(f"`{index}` points to `{name}`, which is not a safetensors file in the same folder")
        if not (folder / name).is_file():
            raise DataError(f"`{folder}` lacks `{name}`, which its index lists", hint="copy the model again")
        shards.append(folder / name)
        for tensor, info in read_header(folder / name).items():
            if tensor in tensors:
                raise DataError(f"`{folder}` holds `{tensor}` twice: in `{tensors[tensor].file.name}` and in `{name}`")
            tensors[tensor] = info
    missing = sorted(placed.keys() - tensors.keys())
    if missing:
        raise DataError(f"`{index}` lists {len(missing)} tensors that no file holds, such as `{missing[0]}`")
    return Weights(folder, tuple(shards), tensors)


def refuse_pickles(folder: Path) -> None:
    """SafetyError if the folder's only weights are in a format that can run code when opened."""
    safe = (folder / SINGLE).is_file() or (folder / INDEX).is_file()
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles and not safe:
        raise SafetyError(
            f"`{folder}` has its weights in `{pickles[0]}`, a format that can run code when it is opened",
            hint="ask its maker for safetensors, or convert it where you trust it: "
            'AutoModelForCausalLM.from_pretrained("...").save_pretrained("...", safe_serialization=True)',
        )


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Names, dtypes and shapes in one safetensors file; DataError if header and file size do not fit together."""
    size = path.stat().st_size
    if size < 8:
        raise DataError(f"`{path}` has {size} bytes: too short for a safetensors file", hint=_AGAIN)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise DataError(f"`{path}` claims a header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} are accepted")
        if 8 + length > size:
            raise DataError(f"`{path}` is cut: its header needs {8 + length:,} bytes, it has {size:,}", hint=_AGAIN)
        raw = file.read(length)
    entries = _parse_header(raw, path)
    tensors, spans = {}, []
    for name, entry in entries.items():
        tensors[name], span = _tensor_info(path, name, entry)
        spans.append((*span, name))
    end = 0
    for begin, stop, name in sorted(spans):
        if begin != end:
            raise DataError(f"`{path}`: the bytes of `{name}` begin at {begin:,}, the tensor before it ends at {end:,}")
        end = stop
    if 8 + length + end != size:
        kind = "is cut" if 8 + length + end > size else "has bytes that belong to no tensor"
        raise DataError(f"`{path}` {kind}: it should have {8 + length + end:,} bytes, it has {size:,}", hint=_AGAIN)
    return tensors


_AGAIN = "copy or download the file again"


def _parse_header(raw: bytes, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise DataError(f"`{path}` names a tensor twice in its header")
        return found

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"`{path}` has a header that is not JSON: {error}", hint=_AGAIN) from error
    if not isinstance(header, dict):
        raise DataError(f"`{path}` has a header that is not an object")
    header.pop("__metadata__", None)
    return header


def _tensor_info(path: Path, name: str, entry: Any) -> tuple[TensorInfo, tuple[int, int]]:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        sizes = [*shape, begin, end]
        if dtype not in BITS or any(type(size) is not int or size < 0 for size in sizes):
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"`{path}`: the header entry of `{name}` is not valid") from error
    info = TensorInfo(path, dtype, shape)
    if info.elements * BITS[dtype] != (end - begin) * 8:
        raise DataError(
            f"`{path}`: `{name}` is {dtype} of shape {list(shape)}, which needs {info.elements * BITS[dtype] // 8:,} "
            f"bytes; its header gives it {end - begin:,}"
        )
    return info, (begin, end)
