"""Arrays that took long to make, kept in the cache under what they were made of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from langadapt.core.io import cache_folder, canonical_json, replace_durably, sha256_text

Array = np.ndarray[Any, np.dtype[Any]]


def place_of(kind: str, key: Mapping[str, Any]) -> Path:
    """Where the cache has what was made of `key`; `kind` is the folder."""
    return cache_folder() / kind / f"{sha256_text(canonical_json(key))[:32]}.safetensors"


def keep(place: Path, arrays: Mapping[str, Array]) -> None:
    """Write them; a reader sees all or nothing."""
    from safetensors.numpy import save

    place.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(place, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def kept(place: Path) -> dict[str, Array] | None:
    """What is there; None if there is nothing, or nothing that can be read."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found: dict[str, Array] = load_file(place)
    except (SafetensorError, OSError):
        return None
    return found
