"""Words of running text, for vectors: what stands between blanks, without the punctuation around it."""

import unicodedata


def words_of(text: str) -> list[str]:
    """Words in order. Letters keep their marks (Devanagari vowels are no letters to `\\w`), and their case."""
    return [word for part in text.split() if (word := _bare(part))]


def _bare(part: str) -> str:
    """Without punctuation and symbols at the ends."""
    if part[0].isalnum() and part[-1].isalnum():
        return part  # most words; looking at each letter would take longer than learning from it
    return part.strip("".join(letter for letter in part if unicodedata.category(letter)[0] in "PS"))
