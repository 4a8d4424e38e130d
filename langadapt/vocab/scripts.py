"""Writing systems of texts, and the rule that a new token must hold a letter that protected text cannot have."""

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache

from langadapt.core.scripts import script_of

# A script with fewer of a text's letters is there by accident: a quotation, a symbol of mathematics.
MAIN_SHARE = 0.05

# Bytes of UTF-8 that no character begins with.
_CONTINUATIONS = bytes(range(0x80, 0xC0))

# First words of Unicode names that are no names of scripts to people.
_SHOWN = {"CJK": "Chinese", "HANGUL": "Korean", "MYANMAR": "Burmese", "ETHIOPIC": "Ge'ez", "NKO": "N'Ko",
          "CANADIAN": "Canadian syllabics", "OL": "Ol Chiki", "MEETEI": "Meetei Mayek", "TAI": "Tai Le or Tai Tham",
          "HALFWIDTH": "half-width", "FULLWIDTH": "full-width"}  # fmt: skip


def script_name(script: str) -> str:
    """What people call a script that `script_of` gives: `Greek`, `Chinese`."""
    return _SHOWN.get(script, script.capitalize())


def main_scripts(texts: Iterable[str]) -> set[str]:
    """Scripts that hold at least 5 % of the letters of these texts."""
    letters = Counter(script for text in texts for letter in text if (script := script_of(letter)))
    return {script for script, count in letters.items() if count >= MAIN_SHARE * letters.total()}


def shown_script(content: bytes) -> str:
    """The script of a token's first letter, `other` for marks and numbers, `part of a character` for lone bytes."""
    text = content.decode("utf-8", "ignore")
    for letter in text:
        if script := script_of(letter):
            return script_name(script)
    return "other" if text.strip() or not content.strip() else "part of a character"


def only_in(content: bytes, scripts: Collection[str]) -> bool:
    """Can these bytes stand in no text without a letter of `scripts`?

    They hold such a letter, or end inside a character that can only become one: every assigned character whose UTF-8
    begins with the last bytes is of these scripts. The end of a character that they begin with says nothing.
    """
    content = content.lstrip(_CONTINUATIONS)
    text = content.decode("utf-8", "ignore")
    if any(script_of(letter) in scripts for letter in text):
        return True
    tail = content[len(text.encode()) :]
    return bool(tail) and _scripts_behind(tail) <= set(scripts)


@lru_cache(maxsize=4096)
def _scripts_behind(start: bytes) -> frozenset[str]:
    """Scripts of all assigned characters whose UTF-8 begins with `start`; `?` for one without a script, or for none."""
    length = 2 if start[0] < 0xE0 else 3 if start[0] < 0xF0 else 4
    missing = length - len(start)
    low = start + b"\x80" * missing
    try:
        first = ord(low.decode())
    except UnicodeDecodeError:
        # the smallest continuation is overlong (E0 80, F0 80): too wide a range to be of one script
        return frozenset({"?"})
    found = set()
    for code in range(first, min(first + 64**missing, 0x110000)):
        letter = chr(code)
        if unicodedata.category(letter) != "Cn":
            found.add(script_of(letter) or (unicodedata.name(letter, "?").partition(" ")[0]))
    return frozenset(found or {"?"})
