"""The one place that prints: a table on a terminal, a path or tab-separated rows in a pipe, one object with --json."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from langadapt.core.errors import LangadaptError

if TYPE_CHECKING:
    from rich.console import Console

    from langadapt.core.types import Table


@dataclass
class Screen:
    """How this process shows things; set once from the shared options of a command."""

    json: bool = False
    quiet: bool = False
    verbose: int = 0
    debug: bool = False
    color: bool = True
    tables: bool = False

    @property
    def human(self) -> bool:
        """Is stdout read by a person: a terminal, or a log that asked for tables with --table?"""
        return not self.json and (self.tables or sys.stdout.isatty())

    def console(self, stream: TextIO) -> "Console":
        """A rich console that prints text as it is: codes in brackets, emoji names and numbers stay untouched."""
        from rich.console import Console

        color = self.color and not os.environ.get("NO_COLOR") and stream.isatty()
        return Console(
            file=stream,
            markup=False,
            highlight=False,
            emoji=False,
            soft_wrap=False,
            force_terminal=stream.isatty(),
            color_system="auto" if color else None,
            safe_box=True,
            # what a log file shows without wrapping; a terminal says its own width
            width=None if stream.isatty() or os.environ.get("COLUMNS") else 120,
        )

    def emit(
        self,
        data: Mapping[str, Any],
        *,
        path: Path | None = None,
        tables: Sequence["Table"] = (),
        lines: Sequence[str] = (),
    ) -> None:
        """The result of a command on stdout.

        --json: `data` as one object. A terminal or --table: `lines`, then `tables`. A pipe: `path` alone if there is
        one, else `lines`, then the rows of `tables` separated by tabs.
        """
        if self.json:
            self.raw(_json(data))
        elif self.human:
            for line in lines:
                self.raw(_clean(line))
            for table in tables:
                self.table(table)
        elif path is not None:
            sys.stdout.flush()
            # the bytes of the file name as they are on the disk, whatever the locale says
            sys.stdout.buffer.write(os.fsencode(path) + b"\n")
            sys.stdout.buffer.flush()
        else:
            for line in lines:
                self.raw(_clean(line))
            for table in tables:
                for row in table.rows:
                    self.raw("\t".join(_clean(cell) for cell in row))

    def raw(self, text: str) -> None:
        """One line on stdout."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def table(self, table: "Table", *, stream: TextIO | None = None) -> None:
        """A table for people (stdout unless told otherwise)."""
        from rich import box
        from rich.table import Table as Grid
        from rich.text import Text

        console = self.console(stream or sys.stdout)
        if table.title:
            console.print(Text(_clean(table.title), style="bold"))
        header = any(table.columns)
        grid = Grid(box=box.SIMPLE_HEAD if header else None, show_header=header, pad_edge=False, padding=(0, 2, 0, 0))
        for column in table.columns:
            grid.add_column(_clean(column), overflow="fold")
        for row in table.rows:
            grid.add_row(*(_clean(cell) for cell in row))
        console.print(grid)
        for note in table.notes:
            console.print(_clean(note))
        console.print()

    def say(self, text: str, *, prefix: str = "") -> None:
        """One line on stderr: what is going on. Silent with --quiet."""
        if not self.quiet:
            self.stderr(prefix + _clean(text))

    def warn(self, text: str) -> None:
        """One warning on stderr, also with --quiet."""
        self.stderr(f"warning: {_clean(text)}", style="yellow")

    def detail(self, text: str) -> None:
        """One line on stderr with -v only."""
        if self.verbose and not self.quiet:
            self.stderr(_clean(text))

    def error(self, error: LangadaptError) -> None:
        """What went wrong, where, and what to do about it."""
        text = error.message if error.where is None else f"{error.message}  ({error.where})"
        self.stderr("error: " + "\n".join(_clean(line) for line in text.splitlines()), style="bold red")
        if error.hint:
            self.stderr("\nhint: " + "\n".join(_clean(line) for line in error.hint.splitlines()))

    def stderr(self, text: str, *, style: str | None = None) -> None:
        """Text on stderr; the part before the first colon in `style` where colours are wanted."""
        if style is None or not (self.color and not os.environ.get("NO_COLOR") and sys.stderr.isatty()):
            sys.stderr.write(text + "\n")
        else:
            from rich.text import Text

            head, colon, rest = text.partition(":")
            self.console(sys.stderr).print(Text(head + colon, style=style) + Text(rest), soft_wrap=True)
        sys.stderr.flush()


screen = Screen()


def _clean(text: str) -> str:
    """Text of unknown origin without control characters, so that no file name can steer the terminal."""
    return "".join(
        letter if letter.isprintable() or _harmless(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _harmless(letter: str) -> bool:
    # undecodable bytes of a file name (lone surrogates, shown as escapes) and the soft hyphen
    return "\udc80" <= letter <= "\udcff" or letter == "\u00ad"


def _json(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, ensure_ascii=False, default=str)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return json.dumps(data, ensure_ascii=True, default=str)
    return text


def prepare_streams() -> None:
    """Characters that the locale cannot show become escapes instead of errors."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
