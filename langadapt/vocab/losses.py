"""What a tokenizer does to a text before any token is chosen, which no new token can mend: letters lost, words cut."""

import itertools
import unicodedata
from collections.abc import Iterable

from langadapt.vocab.tokenizer_file import TokenizerFile
from langadapt.vocab.words import count_words

_SHOWN = 8
# Characters of text that show how marks are cut, and how many must be in it for a remark.
_SAMPLE, _FEWEST = 200_000, 20


def lost_letters(base: TokenizerFile, letters: Iterable[str]) -> list[str]:
    """Remarks for people on letters that the normaliser replaces by others (lower case, without accents); none: []."""
    normaliser = base.tokenizer.normalizer
    if normaliser is None:
        return []
    cased, accented = [], []
    for letter in sorted(set(letters)):
        if not letter.isalpha():
            continue
        after = normaliser.normalize_str(f"x{letter}x")[1:-1]
        if unicodedata.normalize("NFC", after) == unicodedata.normalize("NFC", letter):
            continue
        if after == letter.lower():
            cased.append(letter)
        elif _bare(after).lower() == _bare(letter).lower():
            accented.append(letter)
    remarks = []
    if accented:
        shown = ", ".join(f"`{letter}`" for letter in accented[:_SHOWN])
        remarks.append(f"this tokenizer strips accents: the model cannot tell {shown} from the letters without them")
    if cased:
        remarks.append("this tokenizer lower-cases: the model sees no capital letters")
    return remarks


def cut_marks(base: TokenizerFile, texts: Iterable[str]) -> list[str]:
    """A remark if words are cut in front of most vowel signs and tone marks (Thai, Devanagari, ...); else [].

    GPT-2's pre-tokenizer takes only letters together, and these marks are none: no token can join a mark to the letter
    that it stands on, however often the two occur.
    """
    sample, size = [], 0
    for text in texts:
        sample.append(text)
        size += len(text)
        if size >= _SAMPLE:
            break
    joined = "\n".join(sample)
    marks = sum(_is_mark(right) and not _is_mark(left) for left, right in itertools.pairwise(joined))
    cut, first = 0, ""
    for word, count in sorted(count_words(base, sample).items()):
        letter = base.spelling.content(word).decode("utf-8", "ignore")[:1]
        if letter and _is_mark(letter):
            cut += count
            first = first or letter
    if marks < _FEWEST or cut <= marks / 2:
        return []
    return [
        f"this tokenizer cuts words in front of vowel signs and tone marks (`{first}` and others), before any token is "
        f"chosen: {100 * cut / marks:.0f} % of them cannot be joined to their letter by new tokens"
    ]


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter)[0] == "M"


def _bare(text: str) -> str:
    return "".join(mark for mark in unicodedata.normalize("NFD", text) if not unicodedata.combining(mark))
