"""The writing system of a letter, from its Unicode name: Python knows no scripts."""

import unicodedata
from functools import lru_cache

# First words of names that say what a letter is for, not whose it is (U+00B5 is `MICRO SIGN`).
_NO_SCRIPT = ("", "COMBINING", "MODIFIER", "VARIATION", "ZERO", "MICRO", "FEMININE", "MASCULINE", "OHM", "KELVIN")


@lru_cache(maxsize=100_000)
def script_of(letter: str) -> str | None:
    """First word of the Unicode name of a letter or mark (`GREEK`, `LATIN`, `CJK`); None for all else.

    Marks that are shared by scripts (`COMBINING ACUTE ACCENT`) belong to none.
    """
    if unicodedata.category(letter)[0] not in "LM":
        return None
    word = unicodedata.name(letter, "").partition(" ")[0]
    return None if word in _NO_SCRIPT else word
