"""SHA-256 of the tables with one row a token: to say later whether they are what they were."""

import hashlib
from typing import TYPE_CHECKING, Any

from langadapt.model.tables import Tables

if TYPE_CHECKING:
    import torch


def table_digests(tables: Tables) -> dict[str, str]:
    """Digests of dtype, shape and values of `input`, `head` and `bias`, of those that the files hold."""
    stored = {"input": tables.stored.input, "head": tables.stored.head, "bias": tables.stored.bias}
    return {key: _digest(tables.weights.read(name)) for key, name in stored.items() if name is not None}


def _digest(tensor: "torch.Tensor") -> str:
    import torch

    flat = tensor.flatten()  # a bias may be stored as [1, rows]
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}\n".encode())
    values: Any = flat.contiguous().view(torch.uint8).numpy()
    digest.update(values)
    return digest.hexdigest()
