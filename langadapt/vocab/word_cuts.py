"""Cutting a pre-token at places that no token can ever stand across, for tokenizers that mark spaces with `▁`.

SentencePiece's kind of tokenizer.json has no pre-tokenizer (a document is one string), or one that cuts at spaces only.
Counting, guarding and learning need words. A text is cut between two characters where (a) their kinds differ (letters,
digits, blanks, line ends, all else; a blank stays with what follows it) and (b) no token of the base holds these two
side by side. By (b) no token of the base ever stands across, so the parts are segmented in the text exactly as they are
alone. New tokens are learned inside the parts only, so the same cuts stay exact in the extended tokenizer.
"""

import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from langadapt.model.spelling import SPACE_MARK, family_of

if TYPE_CHECKING:
    from langadapt.vocab.tokenizer_file import TokenizerFile

# Joiners are letters here: Persian and Indic scripts write them inside words.
_JOINERS = "\u200c\u200d"


@lru_cache(maxsize=200_000)
def kind_of(letter: str) -> str:
    """Kind of a character: `letter`, `digit`, `blank`, `line` (its end) or `other`."""
    if letter in "\n\r":
        return "line"
    if letter == SPACE_MARK or letter.isspace():
        return "blank"
    if letter in _JOINERS:
        return "letter"
    return {"L": "letter", "M": "letter", "N": "digit"}.get(unicodedata.category(letter)[0], "other")


def of_one_kind(text: str) -> bool:
    """Is it one run of characters of a kind, perhaps behind one space?"""
    body = text[1:] if len(text) > 1 and kind_of(text[0]) == "blank" and kind_of(text[1]) != "line" else text
    return len({kind_of(letter) for letter in body}) <= 1


def cutter(base: "TokenizerFile") -> Callable[[str], list[str]]:
    """What cuts the pre-tokens of `base`; byte-level BPE and WordPiece have real pre-tokens, which stay as they are."""
    if family_of(base.spec) not in ("byte-fallback-bpe", "unigram"):
        return lambda word: [word]
    together = {
        piece[at : at + 2]
        for piece in base.vocab
        if piece not in base.added
        for at in range(len(piece) - 1)
        if _apart(piece[at], piece[at + 1])
    }
    return lambda word: _cut(word, together)


def _apart(left: str, right: str) -> bool:
    one, two = kind_of(left), kind_of(right)
    return one != two and not (one == "blank" and two != "line")


def _cut(word: str, together: set[str]) -> list[str]:
    parts, start = [], 0
    for at in range(1, len(word)):
        if _apart(word[at - 1], word[at]) and word[at - 1 : at + 1] not in together:
            parts.append(word[start:at])
            start = at
    return [*parts, word[start:]]
