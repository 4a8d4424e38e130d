"""One spelling for one text: NFC, line ends, and control characters that no language uses.

Not NFKC: it splits Thai SARA AM, rewrites Arabic presentation forms and loses superscripts. Joiners (ZWJ, ZWNJ) are
letters for Persian and Indic scripts, and right-to-left marks carry meaning: they stay. U+2028 stays as well.
"""

import re
import unicodedata
from functools import cache

from langadapt.corpus.tally import Tally

# A run of marks is sorted by NFC in quadratic time; Unicode's Stream-Safe Text Format (UAX 15) allows 30 in a row.
MAX_MARKS = 30
# no combining mark of Unicode 16 lies above
_LAST_MARK = 0x1F000
# C0 without TAB, LF, VT, FF, CR; DEL; soft hyphen
_REMOVED = re.compile("[\x00-\x08\x0e-\x1f\x7f\u00ad]")
_RARE = re.compile("[\x00-\x08\x0b-\x1f\x7f\u00ad]")


@cache
def _marks() -> str:
    spans: list[tuple[int, int]] = []
    for code in range(0x300, _LAST_MARK):
        if unicodedata.combining(chr(code)):
            if spans and spans[-1][1] == code - 1:
                spans[-1] = (spans[-1][0], code)
            else:
                spans.append((code, code))
    return "".join(f"{chr(low)}-{chr(high)}" for low, high in spans)


@cache
def _mark() -> re.Pattern[str]:
    return re.compile(f"[{_marks()}]")


@cache
def _mark_storm() -> re.Pattern[str]:
    return re.compile(f"([{_marks()}]{{{MAX_MARKS}}})[{_marks()}]+")


def normalise(text: str, tally: Tally | None = None, where: str = "") -> str:
    """The text in the form that all later steps see; what was changed is counted in `tally`."""
    if _RARE.search(text):
        text = _clean(text, tally, where)
    if text.isascii():
        return text.strip(" \t\n")
    # a run longer than the limit cannot slip between every 16th character
    if _mark().search(text[::16]):
        text, storms = _mark_storm().subn(r"\1", text)
        if tally is not None:
            tally.change("mark-storm", storms, where)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        if tally is not None:
            tally.change("not-nfc", 1, where)
    return text.strip(" \t\n")


def _clean(text: str, tally: Tally | None, where: str) -> str:
    text = text.replace("\r\n", "\n")
    returns = text.count("\r")
    text = text.replace("\r", "\n")
    pages = text.count("\v") + text.count("\f")
    # a form feed separates words, so it becomes a space; it does not separate documents
    text = text.replace("\v", " ").replace("\f", " ")
    hyphens, nulls = text.count("\u00ad"), text.count("\x00")
    text, removed = _REMOVED.subn("", text)
    if tally is not None:
        tally.change("lone-cr", returns, where)
        tally.change("vt-or-ff", pages, where)
        tally.change("soft-hyphen", hyphens, where)
        tally.change("nul", nulls, where)
        tally.change("control-character", removed - hyphens - nulls, where)
    return text
