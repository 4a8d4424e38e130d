"""One pass over the text into a spool on disk: normalise, judge the language, filter."""

from collections.abc import Callable
from dataclasses import dataclass, field

from langadapt.core.progress import Task
from langadapt.corpus.dedup import words_hash
from langadapt.corpus.filters import Filter
from langadapt.corpus.langid import MAX_FOREIGN_SHARE, Judge, Lines
from langadapt.corpus.lines import Line
from langadapt.corpus.normalise import normalise
from langadapt.corpus.read import FileReader, RawDocument
from langadapt.corpus.spool import GONE, KEPT, PREVIEW, Spool, lost_line
from langadapt.corpus.store import document_id, show_id, to_line

# In `detected`: text that the detector could not tell, which is kept.
UNSURE = "unsure"
# So much is judged at once: ten times less costs a half more, ten times more gains nothing.
TOGETHER, MOST_TOGETHER = 100_000, 1000
# Characters between two reports; saying it of each short document costs as much as reading it.
REPORTED = 10_000


@dataclass(frozen=True)
class Rules:
    """What a document has to satisfy; `detector` is None where the language cannot be judged."""

    lang: str
    filters: tuple[Filter, ...]
    detector: Judge | None
    min_probability: float


@dataclass
class Collector:
    """Takes raw documents, decides on each, spools the outcome; `detected` counts bytes by language label."""

    rules: Rules
    spool: Spool
    detected: dict[str, int] = field(default_factory=dict)
    judged_bytes: int = 0
    accepted_bytes: int = 0
    _waiting: list[tuple[RawDocument, str]] = field(default_factory=list)
    _characters: int = 0

    def read(self, reader: FileReader, task: Task) -> None:
        """Take in one file."""
        reader.tally = self.spool.tally
        reader.on_loss = self._line_lost(reader)
        size = 0
        for raw in reader.documents():
            self.take(raw)
            size += len(raw.text)
            if size >= REPORTED:
                task.advance(size)
                size = 0
        self.flush()
        task.advance(size)

    def take(self, raw: RawDocument) -> None:
        """Normalise one document; it is judged together with others, the last ones at `flush`."""
        text = normalise(raw.text, self.spool.tally, f"{raw.source}:{raw.line}")
        if not text:
            return
        if self.rules.detector is None:
            self._decide(raw, text, None)
            return
        self._waiting.append((raw, text))
        self._characters += len(text)
        if self._characters >= TOGETHER or len(self._waiting) >= MOST_TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Judge what is waiting."""
        if self._waiting and self.rules.detector is not None:
            texts = [text for _, text in self._waiting]
            found = self.rules.detector.judge_texts(texts, self.rules.min_probability)
            for (raw, text), lines in zip(self._waiting, found, strict=True):
                self._decide(raw, text, lines)
        self._waiting, self._characters = [], 0

    def _decide(self, raw: RawDocument, text: str, lines: Lines | None) -> None:
        removed, removed_size = "", 0
        reason = None
        if lines is not None:
            text, removed, removed_size, reason = self._judge(text, lines)
        words = text.split()
        content = words_hash(words)
        number = document_id(raw.source, raw.offset, content)
        size = len(text) if text.isascii() else len(text.encode())
        if reason is None:
            reason = next((found for check in self.rules.filters if (found := check(text)) is not None), None)
        if removed_size:
            self.spool.lose(raw, removed, "foreign-lines", size=removed_size, number=number, whole=False)
        if reason is not None:
            self.spool.lose(raw, text, reason, size=size, number=number)
        else:
            line = to_line(show_id(number), self.rules.lang, raw.source, text)
            self.spool.add(number, content, line, size, len(words), KEPT)

    def _judge(self, text: str, found: Lines) -> tuple[str, str, int, str | None]:
        """(text to keep, a sample of removed lines, their bytes, reason to drop the whole)."""
        size = len(text.encode())
        lost = min(size, sum(found.lost.values()))
        if found.verdict is None and not lost:
            return text, "", 0, None
        self.judged_bytes += size
        for label, part in found.lost.items():
            self._saw(label, part)
        verdict = found.verdict
        rival = False
        unlikely = verdict is not None and verdict.probability < self.rules.min_probability
        if verdict is not None:
            rival = unlikely and verdict.names_a_rival(found.rest)
            self._saw(UNSURE if unlikely and not rival else verdict.label, size - lost)
        if lost > MAX_FOREIGN_SHARE * size or rival:
            return text, "", 0, "other-language"
        self.accepted_bytes += size - lost
        return found.rest, found.first_lost, lost, None

    def _saw(self, label: str, size: int) -> None:
        self.detected[label] = self.detected.get(label, 0) + size

    def _line_lost(self, reader: FileReader) -> Callable[[Line, str], None]:
        source = reader.path.name.removesuffix(".gz")

        def lost(line: Line, reason: str) -> None:
            number = document_id(source, line.offset, (0, 0))
            where = f"{source}:{line.number}"
            preview = line.data[: 4 * PREVIEW].decode("utf-8", "replace")
            record = lost_line(show_id(number), where, reason, preview, len(line.data))
            self.spool.add(number, (0, 0), record, len(line.data), 0, GONE)

        return lost
