"""The one place that prints: a table on a terminal, a path or tab-separated rows in a pipe, one object with --json."""

import json
import os
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

from langadapt.cli.streams import Forgiving, plain_only
from langadapt.core.errors import LangadaptError

if TYPE_CHECKING:
    from rich.console import Console

    from langadapt.core.types import Table

_CONTROLS = re.compile("[\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069]")
ProgressMode = Literal["auto", "bar", "plain", "json", "none"]
EVENT_KEYS = ("time", "event", "step", "task", "done", "total", "unit", "message", "level")


@dataclass
class Screen:
    """How this process shows things; set once from the shared options of a command."""

    json: bool = False
    quiet: bool = False
    verbose: int = 0
    debug: bool = False
    color: bool = True
    tables: bool = False
    progress: ProgressMode = "auto"

    @property
    def events(self) -> bool:
        """Is everything on stderr a JSON line?"""
        return self.progress == "json"

    @property
    def human(self) -> bool:
        """Is stdout read by a person: a terminal, or a log that asked for tables with --table?"""
        return not self.json and (self.tables or sys.stdout.isatty())

    def console(self, stream: TextIO) -> "Console":
        """A rich console that prints text as it is: codes in brackets, emoji names and numbers stay untouched."""
        from rich.console import Console

        color = self.color and not os.environ.get("NO_COLOR") and stream.isatty()
        # rich draws in ASCII when it believes that the stream is; text goes through as the stream can show it
        file = Forgiving(stream, "ascii" if plain_only(stream) else None) if stream is sys.stderr else stream
        return Console(
            file=cast(TextIO, file),
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
                self.raw(clean(line))
            for table in tables:
                self.table(table)
        elif path is not None:
            sys.stdout.flush()
            # the bytes of the file name as they are on the disk, whatever the locale says
            sys.stdout.buffer.write(os.fsencode(path) + b"\n")
            sys.stdout.buffer.flush()
        else:
            for line in lines:
                self.raw(clean(line))
            for table in tables:
                for row in table.rows:
                    first = f"{table.key} {row[0].strip()}" if table.key else row[0]
                    self.raw("\t".join(clean(cell) for cell in (first, *row[1:])))

    def raw(self, text: str) -> None:
        """One line on stdout."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def table(self, table: "Table", *, stream: TextIO | None = None) -> None:
        """A table for people (stdout unless told otherwise)."""
        from langadapt.cli.layout import draw

        place = stream or sys.stdout
        draw(self.console(place), table, clean=clean, plain=plain_only(place))

    def beside(self, title: str, columns: list[tuple[str, str, str]]) -> None:
        """Texts of a model side by side on stdout; each column is a heading, a line of figures and the text."""
        from rich.text import Text

        from langadapt.cli.layout import beside

        console = self.console(sys.stdout)
        console.print(Text(visible(title, lines=True), style="italic"), overflow="fold")
        beside(console, [(clean(heading), clean(line), visible(text, lines=True)) for heading, line, text in columns])
        console.print()

    def say(self, text: str, *, prefix: str = "") -> None:
        """One line on stderr: what is going on. Silent with --quiet."""
        if not self.quiet:
            self.stderr(prefix + clean(text), level="info")

    def warn(self, text: str) -> None:
        """One warning on stderr, also with --quiet."""
        self.stderr(clean(text), level="warning", head="warning: ", style="yellow")

    def detail(self, text: str) -> None:
        """One line on stderr with -v only."""
        if self.verbose and not self.quiet:
            self.stderr(clean(text), level="detail")

    def error(self, error: LangadaptError) -> None:
        """What went wrong, where, and what to do about it."""
        if self.events:
            told = {"where": error.where, "hint": error.hint, "exit_code": error.exit_code}
            self.event("error", level="error", message=error.message, **told)
            return
        text = error.message if error.where is None else f"{error.message}  ({error.where})"
        self.stderr("\n".join(clean(line) for line in text.splitlines()), head="error: ", style="bold red")
        if error.hint:
            self.stderr("\nhint: " + "\n".join(clean(line) for line in error.hint.splitlines()))

    def event(self, event: str, **values: Any) -> None:
        """One JSON line on stderr with all of EVENT_KEYS (null where one does not apply) and whatever else is given."""
        stream = Forgiving(sys.stderr)
        stream.write(json.dumps(event_line(event, **values), default=str) + "\n")
        stream.flush()

    def stderr(self, text: str, *, level: str = "info", head: str = "", style: str | None = None) -> None:
        """Text on stderr, `head` before it in `style` where colours are wanted; with --progress json as an event."""
        if self.events:
            self.event("note", level=level, message=text)
            return
        stream = Forgiving(sys.stderr)
        if style is None or not (self.color and not os.environ.get("NO_COLOR") and stream.isatty()):
            stream.write(head + text + "\n")
        else:
            from rich.text import Text

            self.console(sys.stderr).print(Text(head, style=style) + Text(text), soft_wrap=True)
        stream.flush()


screen = Screen()


def event_line(event: str, **values: Any) -> dict[str, Any]:
    """What one line of --progress json holds: all of EVENT_KEYS in their order, then what else is given."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return dict.fromkeys(EVENT_KEYS) | {"time": time, "event": event} | values


def clean(text: str) -> str:
    """Text of unknown origin without control characters, so that no file name can steer the terminal."""
    return "".join(
        letter if letter.isprintable() or _harmless(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _harmless(letter: str) -> bool:
    # undecodable bytes of a file name (lone surrogates, shown as escapes), the soft hyphen, the joiners that Persian
    # and the scripts of India cannot be written without, and spaces of any width
    return "\udc80" <= letter <= "\udcff" or letter in "\u00ad\u200c\u200d" or unicodedata.category(letter) == "Zs"


def visible(text: str, *, lines: bool = False) -> str:
    """Text that a model wrote: control characters as escapes such as `\\x1b`, everything else as it is.

    A single line in which a backslash is doubled, so that it can be read back; with `lines` line ends stay line ends,
    tabs become spaces, and a backslash is a backslash.
    """
    if lines:
        return "\n".join(_escaped(line.replace("\t", "    "), backslash="\\") for line in text.split("\n"))
    return _escaped(text, backslash="\\\\")


_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _escaped(text: str, *, backslash: str) -> str:
    shown = []
    for letter in text:
        if letter == "\\":
            shown.append(backslash)
        elif letter.isprintable() or (_harmless(letter) and not "\udc80" <= letter <= "\udcff"):
            shown.append(letter)
        else:
            code = ord(letter)
            long = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
            shown.append(_SHORT.get(letter, long))
    return "".join(shown)


def _json(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, ensure_ascii=False, default=str)
    # JSON may hold these as they are, but a terminal may take them for commands or turn the line around
    text = _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return json.dumps(data, ensure_ascii=True, default=str)
    return text
