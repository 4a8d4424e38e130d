"""What can be told of a token from its bytes alone: writing system, kind of characters, place in a word."""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from langadapt.core.scripts import script_of

ANY = ""


class Group(NamedTuple):
    """`script` as in `core.scripts` (`LATIN`), `kind` and `place`; `""` where it does not matter."""

    script: str
    kind: str
    place: str

    @property
    def named(self) -> str:
        """In words, for the provenance: `LATIN, lower, within a word`."""
        return ", ".join(part for part in self if part != ANY) or "all text tokens"


def group_of(content: bytes) -> Group:
    """The narrowest group of a token.

    The script is that of most of its letters, of equal ones the first. Kinds: lower, title, upper, mixed (cased
    letters); letters (without case); numbers; marks of punctuation and symbols; spaces; and bytes, of which some are
    part of a character. Places: `begins a word` behind a space, else `within a word`.
    """
    place = "begins a word" if content[:1] == b" " and content != b" " else "within a word"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return Group("no script", "bytes", place)
    letters = [letter for letter in text if unicodedata.category(letter)[0] in "LM"]
    if letters:
        scripts = Counter(found for letter in letters if (found := script_of(letter)))
        return Group(max(scripts, key=scripts.__getitem__) if scripts else "no script", _case(letters), place)
    if not text.strip():
        return Group("no script", "spaces", place)
    if any(unicodedata.category(letter)[0] == "N" for letter in text):
        return Group("no script", "numbers", place)
    return Group("no script", "marks", place)


def wider(group: Group) -> Iterator[Group]:
    """The group, then wider ones: without place, without kind, without script but with kind and place, everything."""
    yield group
    yield group._replace(place=ANY)
    yield Group(group.script, ANY, ANY)
    yield group._replace(script=ANY)
    yield Group(ANY, ANY, ANY)


def _case(letters: list[str]) -> str:
    cased = [letter for letter in letters if letter.lower() != letter.upper()]
    if not cased:
        return "letters"
    upper = [letter != letter.lower() for letter in cased]
    if not any(upper):
        return "lower"
    if upper[0] and not any(upper[1:]):
        return "title"
    return "upper" if all(upper) else "mixed"
