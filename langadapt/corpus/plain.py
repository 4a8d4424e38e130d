"""Documents of plain text, of JSON lines and of CoNLL-U."""

from collections.abc import Iterator
from typing import Literal

from langadapt.core.unpack import open_bytes
from langadapt.corpus.json_text import MAX_JSON_LINE_BYTES, text_of
from langadapt.corpus.lines import Line, lines
from langadapt.corpus.reading import MAX_DOCUMENT_BYTES, RawDocument, Reading

Rule = Literal["line", "blank-line", "file"]
SNIFF_BYTES = 1024 * 1024
_SENTENCE = "# text = "
_NEW_DOCUMENT = "# newdoc"


def text_rule(reading: Reading) -> Rule:
    """What a document is in a text file: as the settings say, or blank lines if any stand between lines."""
    if reading.settings.documents != "auto":
        return reading.settings.documents
    text_seen = blank_after_text = False
    with open_bytes(reading.path) as stream:
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


def json_documents(reading: Reading) -> Iterator[RawDocument]:
    """One object a line."""
    reading.rule = "json-line"
    field, lang_field = reading.settings.text_field, reading.settings.lang_field
    with open_bytes(reading.path) as stream:
        for line in lines(stream, MAX_JSON_LINE_BYTES):
            if line.part:
                reading.tally.drop("line-too-long", len(line.data), "", documents=0)
                continue
            if not line.complete:
                reading.seen_lines += 1
                reading.bad(line, "line-too-long")
                continue
            text = reading.decode(line)
            if text is None or not text.strip():
                continue
            value, reason, lang = text_of(text, field, lang_field)
            if value is None:
                reading.bad(line, reason)
            elif (document := reading.document(line, value, lang)) is not None:
                yield document


class _Held:
    """Lines of a document that is not finished; one that grows too long is cut, and counted."""

    def __init__(self, reading: Reading) -> None:
        self._reading, self._texts, self._size = reading, list[str](), 0
        self._first = Line(1, 0, b"")

    def __bool__(self) -> bool:
        return bool(self._texts)

    def add(self, line: Line, text: str) -> Iterator[RawDocument]:
        if self._texts and self._size + len(line.data) > MAX_DOCUMENT_BYTES:
            self._reading.tally.change("long-document-split", 1, f"{self._reading.name}:{line.number}")
            yield self.take()
            if not text.strip():
                return
        if not self._texts:
            self._first = line
        self._texts.append(text)
        self._size += len(line.data) + 1

    def take(self) -> RawDocument:
        document = RawDocument("\n".join(self._texts), self._reading.name, self._first.offset, self._first.number)
        self._texts, self._size = [], 0
        return document


def text_documents(reading: Reading) -> Iterator[RawDocument]:
    """Lines, stretches between blank lines, or the whole file."""
    rule = text_rule(reading)
    reading.rule = rule
    held = _Held(reading)
    with open_bytes(reading.path) as stream:
        for line in lines(stream):
            if line.part == 1:
                reading.tally.change("long-line-split", 1, f"{reading.name}:{line.number}")
            text = reading.decode(line)
            if text is None:
                continue
            blank = not text.strip()
            if rule == "line":
                if not blank:
                    yield RawDocument(text, reading.name, line.offset, line.number)
                continue
            if held and blank and rule == "blank-line":
                yield held.take()
            elif held or not blank:
                yield from held.add(line, text)
    if held:
        yield held.take()


def conllu_documents(reading: Reading) -> Iterator[RawDocument]:
    """The `# text =` of sentences, one a line; `# newdoc` begins a document, without any a sentence is one."""
    reading.rule = "conllu-document"
    held, marked = _Held(reading), False
    with open_bytes(reading.path) as stream:
        for line in lines(stream):
            text = reading.decode(line)
            if text is None or not text.startswith("#"):
                continue
            new = text.startswith(_NEW_DOCUMENT)
            marked = marked or new
            sentence = text.startswith(_SENTENCE)
            if held and (new or (sentence and not marked)):
                yield held.take()
            if sentence:
                yield from held.add(line, text.removeprefix(_SENTENCE))
    if held:
        yield held.take()
