"""Documents of CSV and TSV: one a row, quoted as the `csv` module reads it, in bounded memory."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from langadapt.core.errors import DataError
from langadapt.core.unpack import open_bytes
from langadapt.corpus.json_text import MAX_JSON_LINE_BYTES
from langadapt.corpus.lines import Line, lines
from langadapt.corpus.reading import RawDocument, Reading

# Spreadsheets write `;` where the comma is the decimal sign.
DELIMITERS = {"csv": ",;\t|", "tsv": "\t"}
MAX_FIELD_BYTES = MAX_JSON_LINE_BYTES
# an unclosed quotation mark would swallow the file up to this
csv.field_size_limit(MAX_FIELD_BYTES)


class _Source:
    """Lines for the csv module, and where they stood; undecodable bytes travel as surrogates, rows stay whole."""

    def __init__(self, found: Iterator[Line]) -> None:
        self._found = found
        self.first: Line | None = None
        self.raw: list[bytes] = []
        self.bad_at = -1

    def begin(self) -> None:
        """A new row starts with the next line."""
        self.first, self.raw, self.bad_at = None, [], -1

    def __iter__(self) -> "_Source":
        return self

    def __next__(self) -> str:
        line = next(self._found)
        self.first = self.first or line
        self.raw.append(line.data)
        try:
            text = line.data.decode("utf-8")
        except UnicodeDecodeError as error:
            self.bad_at = line.offset + error.start if self.bad_at < 0 else self.bad_at
            text = line.data.decode("utf-8", "surrogateescape")
        # a part of an overlong line must not look like a line
        return text + "\n" if line.complete else text

    def row(self, data: bytes | None = None) -> Line:
        """The current row as a line that holds `data`, or all of the row."""
        first = self.first or Line(1, 0, b"")
        return Line(first.number, first.offset, b"\n".join(self.raw) if data is None else data)


def csv_documents(reading: Reading, kind: str) -> Iterator[RawDocument]:
    """One document a row, from the column `text_field`; DataError if there is none, naming those there are."""
    reading.rule = "row"
    with open_bytes(reading.path) as stream:
        source = _Source(lines(stream, MAX_FIELD_BYTES))
        header = _header(source)
        if header is None:
            return
        delimiter, names = _understood(reading, header, DELIMITERS[kind])
        text_at = _column(reading, names, reading.settings.text_field)
        lang_field = reading.settings.lang_field
        lang_at = None if lang_field is None else _column(reading, names, lang_field)
        rows = _rows(reading, source, delimiter)
        if reading.settings.text_field not in names:
            # a column by its number: there is no header
            yield from _take(reading, source, _first_row(reading, header, delimiter), len(names), text_at, lang_at)
        while True:
            source.begin()
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                reading.seen_lines += 1
                _say_unclosed(reading, source, error)
                reading.bad(source.row(), "invalid-csv", str(error), len(source.raw))
                continue
            yield from _take(reading, source, row, len(names), text_at, lang_at)


def _take(
    reading: Reading, source: _Source, row: Sequence[str], width: int, text_at: int, lang_at: int | None
) -> Iterator[RawDocument]:
    if not any(row):
        return
    if len(row) != width:
        reading.seen_lines += 1
        # too many are a separator in text that is not quoted: taking one column would cut that text silently
        detail = f"{len(row)} columns where the first row has {width}"
        reading.bad(source.row(), "wrong-columns", detail, len(source.raw))
        return
    line = source.row(_bytes(row[text_at]))
    text = reading.decode(line, source.bad_at)
    if text is not None and text.strip():
        document = reading.document(line, text, None if lang_at is None else row[lang_at])
        if document is not None:
            yield document


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _rows(reading: Reading, texts: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if reading.settings.csv_quotes else csv.QUOTE_NONE
    return csv.reader(texts, delimiter=delimiter, strict=True, quoting=quoting)


def _first_row(reading: Reading, header: str, delimiter: str) -> list[str]:
    try:
        return next(_rows(reading, [header], delimiter), [])
    except csv.Error:
        return []


def _header(source: _Source) -> str | None:
    """The first line that is not blank; None for a file without text."""
    for text in source:
        if text.strip():
            return text
        source.begin()
    return None


def _understood(reading: Reading, header: str, delimiters: str) -> tuple[str, list[str]]:
    """The separator, and the names in the first row: the first separator that makes a column of the wanted name."""
    wanted = reading.settings.text_field
    readings = [(mark, _first_row(reading, header, mark)) for mark in delimiters]
    for mark, names in readings:
        if wanted in names:
            return mark, names
    return max(readings, key=lambda item: len(item[1]))


def _column(reading: Reading, names: Sequence[str], wanted: str) -> int:
    if names.count(wanted) > 1:
        raise DataError(f"`{reading.path}` has {names.count(wanted)} columns called `{wanted}`")
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and 0 < int(wanted) <= len(names):
        return int(wanted) - 1
    raise DataError(
        f"`{reading.path}` has no column `{wanted}`; its first row is: {', '.join(name[:40] for name in names[:30])}",
        hint="-o text_field=NAME, or a number if there is no row of names: -o text_field=1",
    )


def _say_unclosed(reading: Reading, source: _Source, error: csv.Error) -> None:
    if sum(map(len, source.raw)) < MAX_FIELD_BYTES and "unexpected end of data" not in str(error):
        return
    first = source.row(b"")
    raise DataError(
        f"a quotation mark that is never closed (or a field over {MAX_FIELD_BYTES:,} bytes) in `{reading.path}`",
        where=f"{reading.name}:{first.number}",
        hint="if quotation marks are plain characters in this file: -o csv_quotes=false",
    )
