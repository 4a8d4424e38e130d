"""Which joins of two byte strings make a token that should exist: length, digits, UTF-8."""

import codecs
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Bytes of UTF-8 that one character has at most.
_LONGEST_CHARACTER = 4


def is_text(content: bytes) -> bool:
    """Is it whole, valid UTF-8?"""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def begins_text(content: bytes) -> bool:
    """Is it the beginning of valid UTF-8: at a character boundary, the last character perhaps incomplete?"""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content, final=False)
    except UnicodeDecodeError:
        return False
    return True


def has_digit(content: bytes) -> bool:
    """Does it hold a decimal digit of any script?"""
    if content.isascii():
        return any(48 <= byte <= 57 for byte in content)
    return any(letter.isdecimal() for letter in content.decode("utf-8", "replace"))


def joins_digits(content: bytes) -> bool:
    """Do two decimal digits of any script stand side by side in it?"""
    letters = content.decode("utf-8", "replace")
    return any(one.isdecimal() and two.isdecimal() for one, two in itertools.pairwise(letters))


def keeps_digits_apart(probe: Iterable[bytes], contents: Iterable[bytes]) -> bool:
    """Does no pre-token of a probe with digits hold two of them side by side, or else no token of the vocabulary?"""
    return not any(map(joins_digits, probe)) or not any(map(joins_digits, contents))


@dataclass(frozen=True)
class JoinRules:
    """The rules that look at bytes only (the guard looks at ids).

    With `digits_apart` a digit joins nothing, not even a space or a letter: a base that keeps digits apart has them
    as tokens of their own everywhere.

    `torn` are ends of characters that protected text has as tokens of their own, see `torn_ends`. Only with one of
    them may a token begin inside a character, as a step to tokens that hold the character whole.
    """

    max_bytes: int
    digits_apart: bool
    torn: frozenset[bytes] = frozenset()

    def allow(self, left: bytes, right: bytes) -> bool:
        """May a token `left + right` exist?"""
        whole = left + right
        if len(whole) > self.max_bytes:
            return False
        if not begins_text(whole):
            rest = behind_torn(whole)
            return (
                rest is not None
                and any(left.startswith(end) for end in self.torn)
                and not (self.digits_apart and has_digit(rest))
            )
        # one character made of two parts is no join of digits
        return not (self.digits_apart and has_digit(whole) and len(whole.decode("utf-8", "replace")) > 1)


def behind_torn(content: bytes) -> bytes | None:
    """What follows the end of a character that the content begins with; None if it begins in another way."""
    tail = next((at for at, byte in enumerate(content) if byte & 0xC0 != 0x80), len(content))
    rest = content[tail:]
    return rest if 1 <= tail < _LONGEST_CHARACTER and begins_text(rest) else None


def torn_ends(pairs: Iterable[tuple[int, int]], contents: Mapping[int, bytes]) -> frozenset[bytes]:
    """Tokens that begin inside a character and stand behind another one in protected text.

    The guard forbids their join with what is in front of them there, and with it perhaps a whole letter: one ` á` in
    protected text, cut into its bytes, keeps `á` from ever being a token of its own. But `zá` or `ál` can be one, made
    of the first byte and what is behind it. Measured in vocabulary-measured.md.
    """
    ends = {contents[right] for _, right in pairs if right in contents}
    return frozenset(end for end in ends if end and behind_torn(end) is not None)


def refused_option(model: Mapping[str, Any]) -> str | None:
    """The option of a BPE model under which its segmentation is not the merges alone in their order; None: no such."""
    return next((key for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout") if model.get(key)), None)
