"""Check this installation: versions, device, memory, language identification, disk, locks.

Each problem comes with its fix; exit 5 if there is one that stops work.
"""

from collections.abc import Callable

import typer

from langadapt.cli import checks
from langadapt.cli.checks import Check
from langadapt.cli.options import shared
from langadapt.cli.output import screen
from langadapt.core.types import Table


def register(app: typer.Typer) -> None:
    """Add `langadapt doctor`."""
    app.command("doctor", help=__doc__, rich_help_panel="Commands")(shared(doctor))


CHECKS: tuple[Callable[[], list[Check]], ...] = (
    checks.versions,
    checks.device,
    checks.memory,
    checks.language_identification,
    checks.folders,
    checks.locks,
    checks.text_encoding,
)


def doctor() -> None:
    """Run all checks; raises Exit(5) if one of them is a problem."""
    found = [item for check in CHECKS for item in check()]
    problems = [item for item in found if item.state == "problem"]
    rows = tuple((item.name, item.state, item.text + (f"\nfix: {item.fix}" if item.fix else "")) for item in found)
    # one line a row and a row a line, also where the fix is shown below
    lines = tuple(part for name, state, text in rows for part in _split(name, state, text))
    verdict = f"{len(problems)} problem(s)" if problems else "ready"
    data = {"schema": "langadapt/doctor/1", "ready": not problems, "checks": [item.__dict__ for item in found]}
    screen.emit(data, tables=[Table("langadapt doctor", ("check", "", ""), lines, (verdict,))])
    if problems:
        raise typer.Exit(5)


def _split(name: str, state: str, text: str) -> list[tuple[str, str, str]]:
    first, *more = text.split("\n")
    return [(name, state, first), *(("", "", line) for line in more)]
