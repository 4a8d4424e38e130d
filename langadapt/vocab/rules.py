"""Which joins of two byte strings make a token that should exist: length, digits, UTF-8."""

import codecs
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


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
    """

    max_bytes: int
    digits_apart: bool

    def allow(self, left: bytes, right: bytes) -> bool:
        """May a token `left + right` exist?"""
        whole = left + right
        if len(whole) > self.max_bytes or not begins_text(whole):
            return False
        # one character made of two parts is no join of digits
        return not (self.digits_apart and has_digit(whole) and len(whole.decode("utf-8", "replace")) > 1)


def refused_option(model: Mapping[str, Any]) -> str | None:
    """The option of a BPE model under which its segmentation is not the merges alone in their order; None: no such."""
    return next((key for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout") if model.get(key)), None)
