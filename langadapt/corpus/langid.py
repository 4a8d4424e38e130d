"""Language identification by fastText, many texts at once. A language that the model does not know is never judged."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from langadapt.core.languages import primary
from langadapt.corpus.fasttext_table import Table
from langadapt.corpus.lid_model import LABEL, checked_digest, load
from langadapt.corpus.script import can_be

# Under this many characters a label is a guess.
MIN_CHARACTERS = 40
WINDOW = 400
# Judging all of every line costs twice as much and changes no verdict that matters.
LINE_WINDOW = 200
MAX_WINDOWS = 5
# A document goes only when another language is this likely, and is written in the script of the text. Measured on the
# Universal Declaration of Human Rights line by line with lid.176.ftz: dropping whatever is under 0.5 for its language
# loses 41 % of the Swahili and 60 % of the Amharic, because the detector is unsure; asking for a rival loses none.
RIVAL = 0.5
# A line is taken out of a document only when the declared language is nearly impossible as well.
FOREIGN_LINE = 0.5
FOREIGN_LINE_TARGET = 0.1
# A label above this is the likeliest one whatever the others are. (The shares of fastText add up to a little over 1.)
_ALONE_ON_TOP = 0.51
# A document that would lose more than this was never in the language.
MAX_FOREIGN_SHARE = 0.8

# Labels that detectors give to the same written language, or to its written siblings.
_SIBLINGS = tuple(
    frozenset(group.split())
    for group in (
        "no nb nn",
        "sh hbs hr sr bs cnr",
        "id ms zsm",
        "zh cmn wuu yue lzh",
        "ar arb arz ary apc ajp acm",
        "fa pes prs",
        "az azj azb",
        "ku kmr ckb sdh",
        "et ekk vro",
        "lv lvs ltg",
        "sq als aln",
        "tl fil",
        "ro mo",
        "sw swh swc",
        "uz uzn",
        "mn khk",
        "or ory",
        "ne npi dty",
        "qu quy quz",
        "gn grn gug",
        "ps pbt",
        "mg plt",
        "yi ydd",
        "kok gom",
        "bh bho",
        "de gsw bar",
    )
)


def accepted_labels(lang: str, also: Collection[str] = ()) -> frozenset[str]:
    """The language and its siblings, and those of the languages in `also`."""
    found: set[str] = set()
    for head in map(primary, (lang, *also)):
        found |= next((group for group in _SIBLINGS if head in group), frozenset()) | {head}
    return frozenset(found)


class Verdict(NamedTuple):
    """`probability` of the accepted labels; `label` is the likeliest one."""

    label: str
    probability: float
    label_probability: float

    def names_a_rival(self, text: str) -> bool:
        """Is the label clear enough to be believed of this text?"""
        return self.label_probability >= RIVAL and can_be(text, self.label)


@dataclass(frozen=True, slots=True)
class Lines:
    """A document after its foreign lines: what is left and its verdict (None: too short), the first removed line,
    and bytes removed by label."""

    rest: str
    verdict: Verdict | None
    first_lost: str
    lost: dict[str, int]


class Ask(NamedTuple):
    """Pieces of text that a verdict is asked for; of a `quick` one the probability may be too small, see `glance`."""

    pieces: list[str]
    quick: bool


Found = TypeVar("Found")
# Asks until it has found out: so many documents can be judged together, and the rules read as if there were one.
Inquiry = Generator[Ask, list[Verdict], Found]


class Judge(ABC):
    """Says of text how likely it is in an accepted language; `knows` is False if it cannot tell that language."""

    name: str
    digest: str
    knows: bool
    together = False
    """Does it judge many texts at once in less time than one by one?"""

    @abstractmethod
    def judge(self, text: str, limit: int = WINDOW) -> Verdict:
        """One verdict on a piece of text; only its first `limit` characters are looked at."""

    def glance(self, text: str, limit: int = WINDOW) -> Verdict:
        """`judge` for less time: its `probability` may be too small where the label is accepted and has over half."""
        return self.judge(text, limit)

    def judge_pieces(self, pieces: Sequence[str], quick: bool = False) -> list[Verdict]:
        """One verdict on each."""
        return list(map(self.glance if quick else self.judge, pieces))

    def judge_document(self, text: str, enough: float = math.inf) -> Verdict | None:
        """Mean over up to five windows spread over the text; None when it is too short to tell.

        From `enough` on `probability` need not be exact, it is only known to be at least that.
        """
        return self._find_out([_document(text, enough)])[0]

    def judge_lines(self, text: str, enough: float = math.inf) -> Lines:
        """Take out the lines that are surely in another language, and judge the rest; `enough` as in `judge_document`.

        Documentation and web pages mix translated and untranslated paragraphs, so one verdict on the whole would
        keep or lose both together.
        """
        return self._find_out([_lines(text, enough)])[0]

    def judge_texts(self, texts: Sequence[str], enough: float = math.inf) -> list[Lines]:
        """`judge_lines` of texts that have several, `judge_document` of the others: all together, which is faster."""
        quick = enough < math.inf
        short = [
            number for number, text in enumerate(texts) if MIN_CHARACTERS <= len(text) < 2 * WINDOW and "\n" not in text
        ]
        found: list[Lines | None] = [None] * len(texts)
        # one window each: most of a file of lines, and not worth an inquiry
        verdicts = self.judge_pieces([texts[number][:WINDOW] for number in short], quick)
        for number, verdict in zip(short, verdicts, strict=True):
            if not quick or verdict.probability >= enough:
                found[number] = Lines(texts[number], verdict, "", {})
        rest = iter(
            self._find_out([_lines(text, enough) for text, known in zip(texts, found, strict=True) if not known])
        )
        return [known or next(rest) for known in found]

    def _find_out(self, inquiries: Sequence[Inquiry[Found]]) -> list[Found]:
        found: dict[int, Found] = {}
        answers: list[tuple[int, list[Verdict] | None]] = [(number, None) for number in range(len(inquiries))]
        while answers:
            asked: list[tuple[int, Ask]] = []
            for number, answer in answers:
                try:
                    inquiry = inquiries[number]
                    asked.append((number, next(inquiry) if answer is None else inquiry.send(answer)))
                except StopIteration as end:
                    found[number] = end.value
            answers = []
            for quick in (True, False):
                some = [(number, ask.pieces) for number, ask in asked if ask.quick == quick]
                verdicts = self.judge_pieces([piece for _, pieces in some for piece in pieces], quick)
                end_of = 0
                for number, pieces in some:
                    end_of += len(pieces)
                    answers.append((number, verdicts[end_of - len(pieces) : end_of]))
        return [found[number] for number in range(len(inquiries))]


def _document(text: str, enough: float) -> Inquiry[Verdict | None]:
    if len(text) < MIN_CHARACTERS:
        return None
    found = windows(text)
    return (yield from _mean_of(found, [1] * len(found), enough))


def _mean_of(pieces: list[str], weights: Sequence[int], enough: float) -> Inquiry[Verdict]:
    if enough < math.inf:
        verdict = _mean((yield Ask(pieces, True)), weights)
        if verdict.probability >= enough:
            return verdict
    return _mean((yield Ask(pieces, False)), weights)


def _lines(text: str, enough: float) -> Inquiry[Lines]:
    if "\n" not in text:
        return Lines(text, (yield from _document(text, enough)), "", {})
    lines = text.split("\n")
    judged = [line for line in lines if len(line) >= MIN_CHARACTERS]
    pieces = [line[:LINE_WINDOW] for line in judged]
    sizes = list(map(len, judged if text.isascii() else map(str.encode, judged)))
    quick = enough < math.inf
    verdicts = yield Ask(pieces, quick)
    # what a glance says too little of is over half, so never clear
    foreign = {
        number
        for number, (label, probability, share) in enumerate(verdicts)
        if probability <= FOREIGN_LINE_TARGET and share >= FOREIGN_LINE and can_be(judged[number], label)
    }
    rest, lost, first = text, dict[str, int](), ""
    if foreign:
        first = judged[min(foreign)]
        for number in sorted(foreign):
            label = verdicts[number].label
            lost[label] = lost.get(label, 0) + sizes[number] + 1
        of_line = iter(range(len(judged)))
        kept = [line for line in lines if len(line) < MIN_CHARACTERS or next(of_line) not in foreign]
        rest = "\n".join(kept).strip("\n")
        stays = [number for number in range(len(judged)) if number not in foreign]
        pieces, sizes = [pieces[number] for number in stays], [sizes[number] for number in stays]
        verdicts = [verdicts[number] for number in stays]
    weights = [size + 1 for size in sizes]
    kept_bytes = len(text.encode()) + 1 - sum(lost.values())
    if not weights or 2 * sum(weights) < kept_bytes:
        # mostly short lines: only together do they tell something
        return Lines(rest, (yield from _document(rest, enough)), first, lost)
    verdict = _mean(verdicts, weights)
    if quick and verdict.probability < enough:
        verdict = _mean((yield Ask(pieces, False)), weights)
    return Lines(rest, verdict, first, lost)


class Detector(Judge):
    """A loaded fastText model and what it accepts as `lang`."""

    def __init__(self, path: Path, lang: str, also: Collection[str] = ()) -> None:
        """`also` names languages that are as good as `lang`."""
        self.digest = checked_digest(path)
        self.name = path.name
        self._model = load(path)
        self._predict = self._model.f.predict
        # als is Alemannic in lid.176, Tosk Albanian in ISO 639-3; without this, German dialect counts as Albanian
        self._short = {label: label.removeprefix(LABEL).split("_")[0] for label in self._model.labels}
        labels = set(self._short.values())
        accepted = accepted_labels(lang, also)
        self._accepted = accepted - {"als"} if "als" in labels and primary(lang) == "sq" else accepted
        self.knows = bool(self._accepted & labels)
        self._table = Table.of(self._model.f, path)
        self.together = self._table is not None
        if self._table is not None:
            self._names = [self._short[label] for label in self._table.labels]
            self._own = np.flatnonzero([name in self._accepted for name in self._names])

    def judge(self, text: str, limit: int = WINDOW) -> Verdict:
        """One verdict on a piece of text; only its first `limit` characters are looked at."""
        # the lower-level call: fasttext's own wrapper prints, and breaks with some numpy versions
        shares = self._predict(_flat(text[:limit]) + "\n", 5, 0.0, "strict")
        found = [(self._short[label], min(1.0, share)) for share, label in shares]
        if not found:
            return Verdict("und", 0.0, 0.0)
        accepted = sum(share for label, share in found if label in self._accepted)
        return Verdict(found[0][0], min(1.0, accepted), found[0][1])

    def judge_pieces(self, pieces: Sequence[str], quick: bool = False) -> list[Verdict]:
        """By the table where there is one: what it says differs from `judge` in the seventh digit."""
        if self._table is None:
            return super().judge_pieces(pieces, quick)
        found = self._table.shares(list(map(_flat, pieces)), self._names, self._own)
        return list(map(Verdict, found.label, found.accepted, found.share))

    def glance(self, text: str, limit: int = WINDOW) -> Verdict:
        """Only the likeliest label, where that is an accepted one: making five costs a third of the time."""
        found = self._predict(_flat(text[:limit]) + "\n", 1, _ALONE_ON_TOP, "strict")
        if found:
            share, label = found[0]
            short = self._short[label]
            if short in self._accepted and share > _ALONE_ON_TOP:
                share = min(1.0, share)
                return Verdict(short, share, share)
        return self.judge(text, limit)


def _mean(verdicts: Sequence[Verdict], weights: Sequence[int]) -> Verdict:
    total = sum(weights)
    shares: dict[str, float] = {}
    probability = 0.0
    for verdict, weight in zip(verdicts, weights, strict=True):
        probability += verdict.probability * weight / total
        shares[verdict.label] = shares.get(verdict.label, 0.0) + verdict.label_probability * weight / total
    label = max(sorted(shares), key=lambda name: shares[name])
    return Verdict(label, probability, shares[label])


def _flat(text: str) -> str:
    # printable text has no white space but blanks, and fastText skips those itself
    return text if text.isprintable() else " ".join(text.split())


def windows(text: str) -> list[str]:
    """Up to five stretches of 400 characters at equal distances, the first and the last included."""
    count = min(MAX_WINDOWS, max(1, len(text) // WINDOW))
    if count == 1:
        return [text[:WINDOW]]
    step = (len(text) - WINDOW) / (count - 1)
    return [text[(start := round(index * step)) : start + WINDOW] for index in range(count)]
