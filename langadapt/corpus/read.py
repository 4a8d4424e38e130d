"""Files -> raw documents: txt and JSON lines, plain or gzip, strict UTF-8, bounded memory, every loss counted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from langadapt.core.errors import DataError
from langadapt.corpus.files import SNIFF_BYTES, likely_encoding, open_bytes, plain_name
from langadapt.corpus.json_text import MAX_JSON_LINE_BYTES, text_of
from langadapt.corpus.lines import Line, lines
from langadapt.corpus.tally import Tally

Rule = Literal["line", "blank-line", "file"]
# Longer documents are cut at a line end: the limit on memory, and far above what is cut into blocks anyway.
MAX_DOCUMENT_BYTES = 8 * 1024 * 1024
# A verdict on a file needs some lines; below, one bad line in a hundred is looked for at the end only.
_JUDGE_EVERY = 10_000


@dataclass(frozen=True)
class ReadSettings:
    """How files become documents; `lang` is used in hints only."""

    documents: Literal["auto", "line", "blank-line", "file"] = "auto"
    text_field: str = "text"
    on_bad: Literal["stop", "skip"] = "skip"
    max_bad_share: float = 0.01
    lang: str = ""


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A text as it stands in a file; `offset` is where it begins in the unpacked bytes."""

    text: str
    source: str
    offset: int
    line: int


@dataclass
class FileReader:
    """Reads one file; after the iteration `rule` says what a document was and `bad_lines` what was unreadable."""

    path: Path
    settings: ReadSettings
    tally: Tally = field(default_factory=Tally)
    on_loss: Callable[[Line, str], None] | None = None
    """Told of every unreadable line and why."""
    rule: str = ""
    seen_lines: int = 0
    bad_lines: int = 0
    _first_bad: str = ""
    _first_reason: str = ""

    def documents(self) -> Iterator[RawDocument]:
        """The documents in file order. DataError for what is not UTF-8 text, or too often not readable."""
        with open_bytes(self.path) as stream:
            head = stream.peek(SNIFF_BYTES)[:SNIFF_BYTES]
        if self._is_json(head):
            self.rule = "json-line"
            yield from self._json_documents()
        else:
            self.rule = self._text_rule()
            yield from self._text_documents()
        self._judge()

    def _is_json(self, head: bytes) -> bool:
        name = plain_name(self.path).lower()
        if name.endswith((".jsonl", ".ndjson")):
            return True
        first = head.lstrip()[:1]
        if name.endswith(".json") and first == b"[":
            raise DataError(
                f"`{self.path}` holds one JSON array; langadapt reads one JSON object a line",
                hint=f"jq -c '.[]' '{self.path}' > '{self.path.stem}.jsonl'",
            )
        return first == b"{" and not name.endswith((".txt", ".text", ".md"))

    def _text_rule(self) -> Rule:
        if self.settings.documents != "auto":
            return self.settings.documents
        text_seen = blank_after_text = False
        with open_bytes(self.path) as stream:
            for line in lines(stream):
                if line.offset > SNIFF_BYTES:
                    break
                if line.data.strip():
                    if blank_after_text:
                        return "blank-line"
                    text_seen = True
                else:
                    blank_after_text = text_seen
        return "line"

    def _json_documents(self) -> Iterator[RawDocument]:
        name = plain_name(self.path)
        with open_bytes(self.path) as stream:
            for line in lines(stream, MAX_JSON_LINE_BYTES):
                if line.part:
                    self.tally.drop("line-too-long", len(line.data), "", documents=0)
                    continue
                if not line.complete:
                    self._bad(line, "line-too-long", "")
                    continue
                text = self._decode(line)
                if text is None or not text.strip():
                    continue
                value, reason = text_of(text, self.settings.text_field)
                if value is None:
                    self._bad(line, reason, "")
                else:
                    yield RawDocument(value, name, line.offset, line.number)

    def _text_documents(self) -> Iterator[RawDocument]:
        name = plain_name(self.path)
        held: list[str] = []
        size, first = 0, Line(1, 0, b"")

        def document() -> RawDocument:
            return RawDocument("\n".join(held), name, first.offset, first.number)

        with open_bytes(self.path) as stream:
            for line in lines(stream):
                if line.part == 1:
                    self.tally.change("long-line-split", 1, f"{name}:{line.number}")
                text = self._decode(line)
                if text is None:
                    continue
                blank = not text.strip()
                ends = self.rule == "line" or (blank and self.rule == "blank-line")
                if held and (ends or size + len(line.data) > MAX_DOCUMENT_BYTES):
                    if not ends:
                        self.tally.change("long-document-split", 1, f"{name}:{line.number}")
                    yield document()
                    held, size = [], 0
                if blank and not held:
                    continue
                if not held:
                    first = line
                held.append(text)
                size += len(line.data) + 1
        if held:
            yield document()

    def _decode(self, line: Line) -> str | None:
        try:
            text = line.data.decode("utf-8")
        except UnicodeDecodeError as error:
            self.seen_lines += 1
            at = line.offset + error.start
            self._bad(line, "invalid-utf8", f"byte 0x{line.data[error.start]:02x} at offset {at:,}")
            return None
        if text.strip():
            self.seen_lines += 1
        return text

    def _bad(self, line: Line, reason: str, detail: str) -> None:
        where = f"{plain_name(self.path)}:{line.number}" + (f", {detail}" if detail else "")
        if reason == "line-too-long":
            self.seen_lines += 1
        self.bad_lines += 1
        self._first_bad = self._first_bad or where
        self._first_reason = self._first_reason or reason
        self.tally.drop(reason, len(line.data), where)
        if self.on_loss is not None:
            self.on_loss(line, reason)
        if self.settings.on_bad == "stop":
            raise DataError(f"unreadable line: {reason}", where=where, hint=self._hint(reason))
        if self.seen_lines >= _JUDGE_EVERY and self.bad_lines % 100 == 0:
            self._judge()

    def _judge(self) -> None:
        if self.bad_lines <= self.settings.max_bad_share * self.seen_lines:
            return
        raise DataError(
            f"{self.bad_lines:,} of the first {self.seen_lines:,} lines of `{self.path}` cannot be read, "
            f"more than {self.settings.max_bad_share:.1%}; the first: {self._first_reason}",
            where=self._first_bad,
            hint=self._hint(self._first_reason),
        )

    def _hint(self, reason: str) -> str:
        if reason == "invalid-utf8":
            encoding = likely_encoding(self.settings.lang)
            return (
                f"the file may be in {encoding}: "
                f"iconv -f {encoding} -t UTF-8 '{self.path}' > '{self.path.stem}.utf8{self.path.suffix}'"
            )
        if reason in ("missing-field", "not-a-string"):
            return "name the field that holds the text: -o text_field=NAME"
        return "mend the lines, or raise the limit: -o max_bad_share=0.05"
