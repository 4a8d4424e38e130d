"""Which row of the base model each row of a table was: a file in the artifact, where old and new rows are mixed."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from langadapt.core.errors import DataError
from langadapt.model.facts import model_facts
from langadapt.model.save import saving

ORIGIN_FILE = "row_origin.safetensors"
_NAME = "origin"


def write_origin(folder: Path, origin: "np.ndarray[Any, np.dtype[np.int32]]") -> None:
    """Write `origin` [rows]: the base's row, or a negative number for a row that the base did not have."""
    from safetensors.numpy import save_file

    with saving(folder / ORIGIN_FILE):
        save_file({_NAME: origin}, folder / ORIGIN_FILE)


def copy_origin(base: Path, folder: Path) -> None:
    """Hand the file on to a model made from this one, if there is one."""
    if (base / ORIGIN_FILE).is_file():
        shutil.copyfile(base / ORIGIN_FILE, folder / ORIGIN_FILE)


def new_rows_of(folder: Path) -> "np.ndarray[Any, np.dtype[np.int64]] | None":
    """Rows of a model's tables that its base did not have, ascending; None without the file."""
    origin = origin_of(folder)
    return None if origin is None else np.flatnonzero(origin < 0).astype(np.int64)


def origin_of(folder: Path) -> "np.ndarray[Any, np.dtype[np.int32]] | None":
    """What `write_origin` wrote; None without the file: then old rows stand where they stood, new ones behind them.

    DataError if it is for a table of another length.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / ORIGIN_FILE
    if not path.is_file():
        return None
    try:
        origin: np.ndarray[Any, np.dtype[np.int32]] = load_file(path)[_NAME]
    except (SafetensorError, KeyError) as error:
        raise DataError(f"`{path}` cannot be read: {error}", hint="copy the model again") from error
    rows = int(model_facts(folder)["rows"])
    if origin.shape != (rows,):
        raise DataError(f"`{path}` is for {origin.shape[0]:,} rows, the model has {rows:,}")
    return origin
