"""Words of running text, for vectors: what stands between blanks, without the punctuation around it."""

import unicodedata


def words_of(text: str) -> list[str]:
    """Words in order. Letters keep their marks (Devanagari vowels are no letters to `\\w`), and their case."""
    return [word for part in text.split() if (word := part.strip(_edges(part)))]


def _edges(part: str) -> str:
    """Letters that may be stripped from the ends: punctuation and symbols."""
    return "".join(letter for letter in part if unicodedata.category(letter)[0] in "PS")
