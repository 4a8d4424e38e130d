"""Translated messages out of compiled gettext catalogues (.mo)."""

import re
import struct
from collections.abc import Iterator

from demo_data.markup import tidy

_TAG = re.compile(r"<[^<>]{0,200}>")
# the letter behind _ or & is a keyboard shortcut in short labels
_MNEMONIC = re.compile(r"[_~&](?=\w)")
LABEL_CHARACTERS = 80


def messages(data: bytes) -> Iterator[tuple[str, str]]:
    """(English, translation) of every message in file order; a damaged catalogue gives none."""
    order = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}.get(data[:4])
    if order is None or len(data) < 28:
        return
    count, originals, translations = struct.unpack_from(f"{order}4x4xIII", data)
    try:
        for index in range(count):
            english, translated = (
                _text(data, *struct.unpack_from(f"{order}II", data, table + 8 * index))
                for table in (originals, translations)
            )
            # context before \4, plural forms behind NUL, LibreOffice's key behind |
            english = english.split("\x04")[-1].split("\x00")[0].split("|")[0]
            translated = translated.split("\x00")[0]
            if english and translated and english != translated:
                yield _plain(english), _plain(translated)
    except (struct.error, UnicodeDecodeError):
        return


def _text(data: bytes, size: int, start: int) -> str:
    return data[start : start + size].decode("utf-8")


def _plain(text: str) -> str:
    text = tidy(_TAG.sub("", text))
    return _MNEMONIC.sub("", text) if len(text) < LABEL_CHARACTERS else text
