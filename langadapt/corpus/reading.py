"""What every format has in common: a document as it was found, and unreadable parts counted, reported and judged."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from langadapt.core import interrupt
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.languages import primary
from langadapt.corpus.files import likely_encoding, plain_name
from langadapt.corpus.lines import Line
from langadapt.corpus.tally import Tally

OnBad = Literal["stop", "skip", "replace"]
# Enough lines for a verdict on a file before its end.
_JUDGE_EVERY = 10_000
# Longer documents are cut at a line end: the limit on memory, and far above what is cut into blocks anyway.
MAX_DOCUMENT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class ReadSettings:
    """How files become documents; `lang` is used in hints, and to choose documents where there is a `lang_field`."""

    documents: Literal["auto", "line", "blank-line", "file"] = "auto"
    text_field: str = "text"
    lang_field: str | None = None
    csv_quotes: bool = True
    on_bad: OnBad = "skip"
    max_bad_share: float = 0.01
    lang: str = ""
    accepted: frozenset[str] = frozenset()
    """Primary codes that `lang_field` may hold."""


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A text as it stands in a file; `offset` is where it begins: a byte of the unpacked file, or a row of a table."""

    text: str
    source: str
    offset: int
    line: int


@dataclass
class Reading:
    """One file being read; `bad_lines` of `seen_lines` lines or rows were unreadable."""

    path: Path
    settings: ReadSettings
    tally: Tally = field(default_factory=Tally)
    on_loss: Callable[[Line, str], None] | None = None
    """Told of every unreadable line and why."""
    rule: str = ""
    """What a document was; known after the first one."""
    seen_lines: int = 0
    bad_lines: int = 0
    _first_bad: str = ""
    _first_reason: str = ""

    @property
    def name(self) -> str:
        """What the file's documents name as their source."""
        return plain_name(self.path)

    def decode(self, line: Line, at: int | None = None) -> str | None:
        """Strict UTF-8, and counted; None if it is not (then it was reported), unless bad bytes are to be replaced.

        `at` is the file offset of the first bad byte where `line.offset` does not tell it.
        """
        try:
            text = line.data.decode("utf-8")
        except UnicodeDecodeError as error:
            self.seen_lines += 1
            place = f"byte 0x{line.data[error.start]:02x} at offset {line.offset + error.start if at is None else at:,}"
            if self.settings.on_bad != "replace":
                self.bad(line, "invalid-utf8", place)
                return None
            text = line.data.decode("utf-8", "replace")
            where = f"{self.name}:{line.number}, {place}"
            self.tally.change("invalid-utf8-replaced", 1, where)
            self._count_bad("invalid-utf8", where)
            return text
        if text.strip():
            self.seen_lines += 1
        return text

    def document(self, line: Line, text: str, lang: object = None) -> RawDocument | None:
        """A document that begins at `line`; None (and counted) if it says that it is in another language."""
        if self.settings.lang_field is not None and not self._wanted(lang):
            data = text.encode()
            self.tally.drop("other-declared-language", len(data), f"{self.name}:{line.number}, {str(lang)[:20]!r}")
            self._lost(Line(line.number, line.offset, data), "other-declared-language")
            return None
        return RawDocument(text, self.name, line.offset, line.number)

    def _wanted(self, lang: object) -> bool:
        try:
            return isinstance(lang, str) and primary(lang) in self.settings.accepted
        except ConfigError:
            return False

    def bad(self, line: Line, reason: str, detail: str = "", lines: int = 1) -> None:
        """Leave out an unreadable line (a row of `lines` lines); DataError if it is the one too many."""
        where = f"{self.name}:{line.number}" + (f", {detail}" if detail else "")
        if self.settings.on_bad == "stop":
            raise DataError(f"unreadable line: {reason}", where=where, hint=self._hint(reason))
        self.tally.drop(reason, len(line.data), where)
        self._lost(line, reason)
        self._count_bad(reason, where, lines)

    def judge(self) -> None:
        """DataError if too much could not be read. One bad line in a small file is not enough to tell."""
        if self.bad_lines <= self.settings.max_bad_share * self.seen_lines:
            return
        if self.settings.max_bad_share > 0 and self.bad_lines == 1 and self.seen_lines > 2:
            return
        raise DataError(
            f"{self.bad_lines:,} of the first {self.seen_lines:,} lines of `{self.path}` cannot be read, "
            f"more than {self.settings.max_bad_share:.1%}; the first: {self._first_reason}",
            where=self._first_bad,
            hint=self._hint(self._first_reason),
        )

    def _count_bad(self, reason: str, where: str, lines: int = 1) -> None:
        interrupt.poll()
        self.bad_lines += lines
        self._first_bad = self._first_bad or where
        self._first_reason = self._first_reason or reason
        if self.seen_lines >= _JUDGE_EVERY and self.bad_lines % 100 == 0:
            self.judge()

    def _lost(self, line: Line, reason: str) -> None:
        interrupt.poll()
        if self.on_loss is not None:
            self.on_loss(line, reason)

    def _hint(self, reason: str) -> str:
        if reason == "invalid-utf8":
            encoding = likely_encoding(self.settings.lang)
            return (
                f"the file may be in {encoding}: "
                f"iconv -f {encoding} -t UTF-8 '{self.path}' > '{self.path.stem}.utf8{self.path.suffix}'"
            )
        if reason in ("missing-field", "not-a-string"):
            return "name the field that holds the text: -o text_field=NAME"
        if reason in ("wrong-columns", "invalid-csv"):
            return "if quotation marks are plain characters in this file: -o csv_quotes=false"
        return "mend the lines, or raise the limit: -o max_bad_share=0.05"
