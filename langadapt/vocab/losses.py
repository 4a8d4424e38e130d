"""What a tokenizer's normaliser takes away from a text before any token is chosen: no new token can bring it back."""

import unicodedata
from collections.abc import Iterable

from langadapt.vocab.tokenizer_file import TokenizerFile

_SHOWN = 8


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


def _bare(text: str) -> str:
    return "".join(mark for mark in unicodedata.normalize("NFD", text) if not unicodedata.combining(mark))
