"""A first look at text before anything is made of it: how much there is, a fair sample, letters and accents."""

import hashlib
import heapq
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Literal

from langadapt.core.artifact import is_artifact, open_artifact
from langadapt.core.errors import DataError
from langadapt.core.progress import Progress
from langadapt.core.types import Document
from langadapt.corpus.files import KINDS, plain_name, text_files
from langadapt.corpus.langid import Judge, Verdict
from langadapt.corpus.normalise import normalise
from langadapt.corpus.read import FileReader, ReadSettings
from langadapt.corpus.script import can_be
from langadapt.corpus.store import documents, finish

Known = Literal["exact", "estimated", "at least"]
# Read whole up to this size (10 s); beyond, the size is estimated and the sample comes from the beginning.
MAX_BYTES = 32_000_000
# Figures of a tokenizer settle to three digits on half of this; the other half trains an n-gram model.
SAMPLE_BYTES = 400_000
_PIECE = 20_000
# Letters that judge a line: at 2 % of letters with marks, 40 letters have none with probability 0.45.
_LINE_LETTERS = 40
# More lines without any mark than chance leaves, by this much, are text that lost its marks.
BARE_EXCESS = 0.05
# In a language with fewer of them (English: 0.02 %) lines without any are the rule.
_LEAST_MARKED = 0.01
# Languages whose spelling cannot do without letters beyond a to z; text without any of them has lost them.
_MARKED = frozenset(
    ("az", "ca", "cs", "da", "de", "es", "et", "fi", "fo", "fr", "ga", "gl", "hr", "hu", "is", "lt", "lv", "mt", "nb",
     "nn", "no", "pl", "pt", "ro", "sk", "sl", "sq", "sv", "tr", "vi", "yo")
)  # fmt: skip
_LANGUAGE_DOCUMENTS = 60


@dataclass(frozen=True)
class Survey:
    """`bytes` of normalised text and how sure that is; `sample` is a fair choice of documents; `letters` with counts.

    `bare_lines` is the share of longer lines in which no letter has a mark, `chance_lines` the share that the
    frequency of such letters in the other lines lets expect; both None where lines are too few or marks do not matter.
    """

    bytes: int
    known: Known
    documents: int
    sample: tuple[Document, ...]
    letters: Counter[str]
    marked_share: float
    bare_lines: float | None
    chance_lines: float | None
    kept_share: float = 1.0
    """Share of the bytes that `prepare` would keep, by the sample; see `own_language`."""

    @property
    def kept_bytes(self) -> int:
        """Bytes that are worth counting on."""
        return round(self.bytes * self.kept_share)

    @property
    def texts(self) -> list[str]:
        """The texts of the sample."""
        return [document.text for document in self.sample]

    def halves(self) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
        """The sample in two parts of about the same size, no document in both."""
        sizes = list(accumulate(len(document.text.encode()) for document in self.sample))
        cut = bisect_left(sizes, sizes[-1] / 2) + 1 if sizes else 0
        return self.sample[:cut], self.sample[cut:]


def survey(path: Path, lang: str, progress: Progress, *, max_bytes: int = MAX_BYTES) -> Survey:
    """Read up to `max_bytes` of a corpus artifact, a file or a folder. DataError if there is no text."""
    size, count, letters = 0, 0, Counter[str]()
    chosen: list[tuple[int, int, str, Document]] = []
    keys, held = set[int](), 0
    known: Known = "exact"
    lines = _Lines()
    bar = progress.start(f"read {path.name}", total=None, unit="bytes")
    source = _Source(path, lang)
    for document in source.documents():
        count += 1
        letters.update(document.text)
        lines.add(document.text)
        for piece in _pieces(document):
            content = piece.text.encode()
            key = int.from_bytes(hashlib.blake2b(content, digest_size=8, person=b"survey").digest(), "big")
            if key not in keys:
                # a heap with the largest key on top: the pieces with the smallest keys stay, each text once
                heapq.heappush(chosen, (-key, len(content), piece.id, piece))
                keys.add(key)
                held += len(content)
            while len(chosen) > 1 and held - chosen[0][1] >= SAMPLE_BYTES:
                gone = heapq.heappop(chosen)
                keys.discard(-gone[0])
                held -= gone[1]
            size += len(content)
            bar.advance(len(content))
        if size >= max_bytes:
            known, size = source.whole(size)
            break
    bar.finish()
    if count == 0:
        raise DataError(f"`{path}` holds no text")
    # vowel signs and tone marks are letters of Thai or Hindi; what is named COMBINING belongs to no script
    alphabet = Counter({letter: n for letter, n in letters.items() if letter.isalpha() or _is_sign(letter)})
    sample = tuple(item[-1] for item in sorted(chosen, key=lambda item: -item[0]))
    return Survey(size, known, count, sample, alphabet, _marked_share(alphabet), *lines.shares())


def _pieces(document: Document) -> Iterator[Document]:
    """The document, or its stretches of _PIECE characters: a book must not be the whole sample."""
    if len(document.text) <= _PIECE:
        yield document
        return
    for number, start in enumerate(range(0, len(document.text), _PIECE)):
        yield replace(document, id=f"{document.id}#{number}", text=document.text[start : start + _PIECE])


class _Source:
    """Documents of a path in order, remembering how far into its files it is."""

    def __init__(self, path: Path, lang: str) -> None:
        self._path, self._lang = path, lang
        self._read = self._all = 0
        self._plain = True

    def documents(self) -> Iterator[Document]:
        """All of them."""
        if is_artifact(self._path):
            yield from documents(self._path, "all")
            return
        if not self._path.exists():
            raise DataError(f"`{self._path}` does not exist")
        files = text_files(self._path)
        self._all = sum(file.stat().st_size for file in files)
        before = 0
        for file in files:
            self._plain = self._plain and file.name == plain_name(file) and _has_offsets(file)
            for raw in FileReader(file, ReadSettings(lang=self._lang)).documents():
                self._read = before + raw.offset
                if text := normalise(raw.text):
                    yield finish(raw, self._lang, text)[0]
            before += file.stat().st_size

    def whole(self, size: int) -> tuple[Known, int]:
        """The size of everything, after `size` bytes of text have been read."""
        if is_artifact(self._path):
            facts = open_artifact(self._path, "corpus").facts
            return "exact", int(facts.get("bytes", size))
        if self._plain and self._read > 0:
            return "estimated", round(size * self._all / self._read)
        return "at least", size


def _has_offsets(file: Path) -> bool:
    """Are the offsets of its documents bytes of the file?"""
    return KINDS.get(Path(plain_name(file).lower()).suffix) in ("text", "json", None)


def _is_sign(letter: str) -> bool:
    return unicodedata.category(letter) in ("Mn", "Mc") and not unicodedata.name(letter, "").startswith(
        ("COMBINING", "VARIATION")
    )


def has_mark(letter: str) -> bool:
    """Is it a letter of the Latin, Greek or Cyrillic script with an accent, or a Latin one beyond a to z?"""
    if letter.isascii() or not letter.isalpha():
        return False
    script = unicodedata.name(letter, "?").partition(" ")[0]
    if script == "LATIN":
        return True
    return script in ("GREEK", "CYRILLIC") and len(unicodedata.normalize("NFD", letter)) > 1


def _marked_share(letters: Counter[str]) -> float:
    total = letters.total()
    return sum(count for letter, count in letters.items() if has_mark(letter)) / total if total else 0.0


class _Lines:
    """Counts, for lines with enough letters, how many of them have marks."""

    # plenty for a share to 1 %
    _MOST = 20_000

    def __init__(self) -> None:
        self._seen: list[tuple[int, int]] = []

    def add(self, text: str) -> None:
        for line in text.splitlines():
            if len(self._seen) >= self._MOST:
                return
            letters = [letter for letter in line if letter.isalpha()]
            if len(letters) >= _LINE_LETTERS:
                self._seen.append((len(letters), 0 if line.isascii() else sum(map(has_mark, letters))))

    def shares(self) -> tuple[float | None, float | None]:
        """Share of lines without marks, and what chance would leave at the rate of the lines that have some."""
        rich = [(letters, marks) for letters, marks in self._seen if marks]
        if len(self._seen) < 50 or len(rich) < 10:
            return None, None
        rate = sum(marks for _, marks in rich) / sum(letters for letters, _ in rich)
        chance = sum((1 - rate) ** letters for letters, _ in self._seen) / len(self._seen)
        return 1 - len(rich) / len(self._seen), chance


def mark_problem(found: Survey, lang: str) -> str | None:
    """What is wrong with the accents of a text, in words; None if nothing is."""
    if lang in _MARKED and found.letters.total() > 2000 and found.marked_share < 0.001:
        return "its letters have no accents at all"
    if found.bare_lines is None or found.chance_lines is None or found.marked_share < _LEAST_MARKED:
        return None
    if found.bare_lines > found.chance_lines + BARE_EXCESS:
        return (
            f"{found.bare_lines:.0%} of its lines have no accented letter, by chance it would be "
            f"{found.chance_lines:.0%}: they lost their accents, or are in another language"
        )
    return None


def own_language(found: Survey, judge: Judge | None) -> Survey:
    """The same with a sample as `prepare` would leave it: without lines and documents in other languages.

    A fifth of a translated manual is English still, which flatters every figure of an English model, and will not be
    there to train on: the share that stays is noted.
    """
    if judge is None or not judge.knows:
        return found
    kept = []
    for document in found.sample:
        lines = judge.judge_lines(document.text)
        rival = lines.verdict is not None and _is_rival(lines.verdict, lines.rest)
        if lines.rest.strip() and not rival:
            kept.append(replace(document, text=lines.rest))
    if not kept:
        return found
    before, after = (sum(len(each.text.encode()) for each in sample) for sample in (found.sample, kept))
    return replace(found, sample=tuple(kept), kept_share=after / before)


def _is_rival(verdict: Verdict, text: str) -> bool:
    return verdict.probability < verdict.label_probability and verdict.names_a_rival(text)


def check_language(texts: Sequence[str], lang: str, judge: Judge | None, where: str) -> str | None:
    """DataError if most of the text is surely in another language; a sentence if much of it is; None if all is well.

    Without a detector that knows the language only the script is looked at.
    """
    looked = [text for text in texts[:_LANGUAGE_DOCUMENTS] if any(map(str.isalpha, text))]
    if not looked:
        raise DataError(f"`{where}` holds no letters")
    other_script = sum(not can_be(text, lang) for text in looked)
    if 2 * other_script > len(looked):
        raise DataError(
            f"{other_script} of {len(looked)} documents of `{where}` are not in a script that `{lang}` is written in",
            hint="give the language of the text: --lang CODE (see `langadapt list langs`)",
        )
    if judge is None or not judge.knows:
        return None
    rivals = Counter[str]()
    judged = 0
    for text in looked:
        verdict = judge.judge_document(text)
        if verdict is not None:
            judged += 1
            if _is_rival(verdict, text):
                rivals[verdict.label] += 1
    if not rivals or judged < 3:
        return None
    label, _ = rivals.most_common(1)[0]
    share = rivals.total() / judged
    if share > 0.5:
        raise DataError(
            f"{rivals.total()} of {judged} documents of `{where}` are in another language than `{lang}`, "
            f"most often `{label}`",
            hint=f"if it is right, say so: --lang {label}",
        )
    text = f"{share:.0%} of its documents are in another language, most often `{label}`; `prepare` drops them"
    return text if share > 0.1 else None
