"""Filters that need nothing but the text: each returns None to keep, or the reason to drop."""

from collections.abc import Callable

Filter = Callable[[str], str | None]


def min_characters(least: int) -> Filter:
    """Drop texts with fewer than `least` characters, not counting white space around them."""

    def check(text: str) -> str | None:
        return "too-short" if len(text.strip()) < least else None

    return check
