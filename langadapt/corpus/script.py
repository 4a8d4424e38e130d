"""Writing systems: can this text be in that language at all?"""

import unicodedata
from collections import Counter
from functools import lru_cache

# First word of a letter's Unicode name -> ISO 15924 scripts it is used in. What is not here is not judged.
_SCRIPTS = {
    "LATIN": {"Latn"},
    "CYRILLIC": {"Cyrl"},
    "GREEK": {"Grek"},
    "ETHIOPIC": {"Ethi"},
    "ARABIC": {"Arab"},
    "HEBREW": {"Hebr"},
    "DEVANAGARI": {"Deva"},
    "BENGALI": {"Beng"},
    "GURMUKHI": {"Guru"},
    "GUJARATI": {"Gujr"},
    "ORIYA": {"Orya"},
    "TAMIL": {"Taml"},
    "TELUGU": {"Telu"},
    "KANNADA": {"Knda"},
    "MALAYALAM": {"Mlym"},
    "SINHALA": {"Sinh"},
    "THAI": {"Thai"},
    "LAO": {"Laoo"},
    "TIBETAN": {"Tibt"},
    "MYANMAR": {"Mymr"},
    "KHMER": {"Khmr"},
    "GEORGIAN": {"Geor"},
    "ARMENIAN": {"Armn"},
    "HANGUL": {"Kore"},
    "HIRAGANA": {"Jpan"},
    "KATAKANA": {"Jpan"},
    "CJK": {"Hans", "Hant", "Jpan", "Kore"},
    "CHEROKEE": {"Cher"},
    "TIFINAGH": {"Tfng"},
    "NKO": {"Nkoo"},
    "CANADIAN": {"Cans"},
    "MONGOLIAN": {"Mong"},
    "SYRIAC": {"Syrc"},
    "THAANA": {"Thaa"},
}
_LETTERS = 200


def can_be(text: str, label: str) -> bool:
    """False if most letters at the start of `text` are of a script that the language `label` is not written in."""
    start = text[: 4 * _LETTERS]
    if start.isascii():
        if not any(map(str.isalpha, start)):
            return True
        name = "LATIN"
    else:
        letters = [letter for letter in start if letter.isalpha()][:_LETTERS]
        if not letters:
            return True
        names = Counter[str]()
        for letter, count in Counter(letters).items():
            names[_name_of(letter)] += count
        name = names.most_common(1)[0][0]
    script = _script_of(label)
    return name not in _SCRIPTS or script is None or script in _SCRIPTS[name]


@lru_cache(maxsize=4096)
def _name_of(letter: str) -> str:
    return unicodedata.name(letter, "?").split()[0]


@lru_cache(maxsize=512)
def _script_of(label: str) -> str | None:
    import langcodes

    try:
        script = langcodes.Language.get(label).maximize().script
    except ValueError:
        return None
    return None if script is None else str(script)
