"""Export the metrics of a cpt run, finished or not, as CSV or for TensorBoard.

Loss, learning rate, gradient norm by step, and bits per byte of the probes. CSV goes to stdout unless --out is given.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from langadapt.cli.options import shared, switch
from langadapt.cli.output import screen
from langadapt.core.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add `langadapt export-metrics`."""
    app.command("export-metrics", help=__doc__, epilog=EXAMPLES, rich_help_panel="Commands")(shared(export_metrics))


EXAMPLES = (
    "Examples:\n\nlangadapt export-metrics adapted > adapted.csv\n\n"
    "langadapt export-metrics adapted --format tensorboard --out logs/adapted"
)


def export_metrics(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that cpt made, or its `.partial` folder.")],
    format: Annotated[
        Literal["csv", "tensorboard"], typer.Option("--format", help="What to write.", rich_help_panel="Output")
    ] = "csv",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="PATH", help="A file for CSV, a folder for TensorBoard.", rich_help_panel="Output"
        ),
    ] = None,
    overwrite: Annotated[
        bool, switch("--overwrite", help="Replace what was exported there before.", panel="Output")
    ] = False,
) -> None:
    """Read the record and write it in another form."""
    from langadapt.report.metrics import as_csv, find_record, rows_of, write_csv, write_tensorboard

    if format == "tensorboard" and out is None:
        raise ConfigError("TensorBoard reads folders", hint=f"add `--out logs/{run.name}`")
    record = find_record(run)
    rows = rows_of(record)
    if out is None:
        whole = {"schema": "langadapt/metrics/1", "record": str(record), "rows": rows}
        screen.emit(whole, lines=as_csv(rows).rstrip("\n").split("\n"))
        return
    (write_csv if format == "csv" else write_tensorboard)(rows, out, overwrite=overwrite)
    last = rows[-1]["step"] if rows else 0
    data = {"schema": "langadapt/metrics/1", "record": str(record), "path": str(out)}
    screen.emit(data, path=out, lines=(f"wrote {out}: {last:,} steps of `{record.parent}`",))
