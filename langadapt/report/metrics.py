"""The record of a training run as other tools read it: a table (CSV), or scalars of TensorBoard.

TensorBoard is an optional extra (`pip install langadapt[tensorboard]`); this is the only module that imports it.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langadapt.core.artifact import partial_folder
from langadapt.core.errors import ConfigError, DataError, OutputError
from langadapt.core.io import read_json_lines, replace_durably

FILE = "metrics.jsonl"
_PROBE = "probe/"
_FIRST = ("step", "tokens", "loss", "learning_rate", "grad_norm")
# Ends the names of our event files, so that they can be told from others in the same folder.
SUFFIX = ".langadapt"
Row = Mapping[str, Any]


def find_record(run: Path) -> Path:
    """`metrics.jsonl` of a finished run, of a partial folder, or of the partial folder beside the name of a run."""
    for folder in (run, partial_folder(run)):
        if (folder / FILE).is_file():
            return folder / FILE
    raise DataError(
        f"`{run}` holds no {FILE}",
        hint="give the `--out` of a `langadapt cpt`, finished or not, or its `.partial` folder",
    )


def rows_of(record: Path) -> list[dict[str, Any]]:
    """One row a step, in order; probes measured after a step stand in its row as `probe/<name>`.

    What gauges gave stands beside them as `<gauge>/<value>`, if it is a number. Row 0 is the model before training. A
    line that a running process has not finished is left out.
    """
    rows: dict[int, dict[str, Any]] = {}
    for line in read_json_lines(record):
        try:
            row = rows.setdefault(int(line["step"]), {"step": int(line["step"])})
            probes = {f"{_PROBE}{name}": float(value) for name, value in line.get("probes", {}).items()}
            groups = {key: values for key, values in line.items() if isinstance(values, Mapping)}
            beside = {
                f"{key}/{name}": value
                for key, values in groups.items()
                if key != "probes"
                for name, value in values.items()
                if isinstance(value, int | float)
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"`{record}` is no record of a training run") from error
        row |= {key: value for key, value in line.items() if key not in groups} | probes | beside
    return [rows[step] for step in sorted(rows)]


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Step, tokens, loss, learning rate, gradient norm, why a step moved nothing, the probes, what gauges gave."""
    found = {key for row in rows for key in row}
    rest = sorted(found - set(_FIRST), key=lambda key: ("/" in key, not key.startswith(_PROBE), key))
    return [key for key in _FIRST if key in found] + rest


def as_csv(rows: Sequence[Row]) -> str:
    """The table; cells of what was not measured at a step are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns_of(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(rows: Sequence[Row], path: Path, *, overwrite: bool) -> None:
    """OutputError if the file is there and may not be replaced."""
    if path.exists() and not (overwrite and path.is_file()):
        raise OutputError(f"`{path}` exists", hint="give another `--out`, or `--overwrite`")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(path, as_csv(rows))


def write_tensorboard(rows: Sequence[Row], folder: Path, *, overwrite: bool) -> None:
    """Scalars `train/loss`, ..., `probe/<name>`, `drift/body` by step.

    OutputError if the folder holds anything that must stay: with `overwrite` event files that were exported before are
    replaced, nothing else.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("this needs tensorboard", hint="pip install 'langadapt[tensorboard]'") from error
    there = sorted(folder.iterdir()) if folder.is_dir() else [folder] if folder.exists() else []
    ours = [path for path in there if path.name.endswith(SUFFIX)]
    if there and not (overwrite and ours == there):
        raise OutputError(
            f"`{folder}` is not empty",
            hint="`--overwrite` replaces what was exported before" if ours == there else "give another `--out`",
        )
    writer = SummaryWriter(str(folder), filename_suffix=SUFFIX)
    for row in rows:
        for key, value in row.items():
            if key != "step" and isinstance(value, int | float):
                tag = key if "/" in key else f"train/{key}"
                writer.add_scalar(tag, value, row["step"])
    writer.close()
    for path in ours:
        path.unlink()
