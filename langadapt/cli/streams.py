"""stdin, stdout and stderr as a process may find them: closed, broken, or unable to show a letter."""

import codecs
import os
import sys
from typing import TextIO

# What our own sentences and tables use beyond ASCII. Letters of data are escaped instead: nothing is guessed there.
_PLAIN = {
    "…": "...", "→": "->", "←": "<-", "─": "-", "│": "|", "–": "-", "—": "-", "×": "x", "±": "+-", "≤": "<=",
    "≥": ">=", "≈": "~", "·": ".", "•": "*", "‘": "'", "’": "'", "“": '"', "”": '"', "\N{REPLACEMENT CHARACTER}": "?",
}  # fmt: skip
_HANDLER = "langadapt-plain"


class Forgiving:
    """A text stream that may break without hurting the work: what cannot be written any more is dropped.

    A closed pipe or a terminal that went away behind stderr is no reason to lose hours of training.
    """

    def __init__(self, stream: TextIO, encoding: str | None = None) -> None:
        self.stream = stream
        self.encoding = encoding or stream.encoding

    def write(self, text: str) -> int:
        """Write what can be written."""
        try:
            return self.stream.write(text)
        except (OSError, ValueError):  # ValueError: the stream was closed
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        try:
            self.stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def isatty(self) -> bool:
        """Is it a terminal that is still there?"""
        return not self.stream.closed and self.stream.isatty()

    def fileno(self) -> int:
        """Number of the descriptor."""
        return self.stream.fileno()

    def _give_up(self) -> None:
        # the interpreter flushes at its exit, and would end with 120 and a message
        try:
            to_null(self.stream.fileno())
        except (OSError, ValueError):
            return


def to_null(number: int) -> None:
    """From here on descriptor `number` swallows what is written to it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def fill_streams() -> None:
    """A closed stdin, stdout or stderr (`>&-`) becomes /dev/null: the next file opened would take its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8"))


def prepare_streams() -> None:
    """Characters that the encoding cannot show become plain forms or escapes instead of errors."""
    codecs.register_error(_HANDLER, _plain_form)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)


def _plain_form(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    shown = (_PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in text)
    return "".join(shown), error.end


def plain_only(stream: TextIO) -> bool:
    """Should boxes, bars and arrows be ASCII: no UTF-8, a dumb terminal, or a locale that knows no letters?

    Python reads the locale `C` as UTF-8, and so does text; but who sets it may sit at a serial console.
    """
    if (stream.encoding or "ascii").lower().replace("-", "").replace("_", "") not in ("utf8", "utf8sig"):
        return True
    locale = next((value for name in ("LC_ALL", "LC_CTYPE", "LANG") if (value := os.environ.get(name))), "C")
    return locale in ("C", "POSIX") or os.environ.get("TERM") == "dumb"
