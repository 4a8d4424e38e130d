"""Where a text may be cut so that every tokenizer finds a boundary there: just before a space."""

import unicodedata

# Bytes of UTF-8 that continue a character look like 10xxxxxx.
_CONTINUES = 0x80
_SPACES = b" \n\t"


def next_cut(content: bytes, wanted: int) -> int:
    """First byte offset at or after `wanted` that stands before a space, at most 64 bytes on; else a character."""
    if wanted <= 0:
        return 0
    for at in range(wanted, min(wanted + 64, len(content))):
        if content[at] in _SPACES and content[at - 1] not in _SPACES:
            return at
    return _grapheme(content, wanted)


def _grapheme(content: bytes, wanted: int) -> int:
    """First offset at or after `wanted` that starts a character which is no combining mark or joiner."""
    at = wanted
    while at < len(content):
        if content[at] & 0xC0 != _CONTINUES:
            letter = content[at : at + 4].decode("utf-8", "ignore")[:1]
            before = content[max(at - 4, 0) : at].decode("utf-8", "ignore")[-1:]
            if unicodedata.category(letter)[0] != "M" and letter != "\u200d" and before != "\u200d":
                return at
        at += 1
    return len(content)


def cut_points(text: str, segment_bytes: int) -> tuple[int, ...]:
    """Ends of the fewest segments of near-equal length of at most about `segment_bytes`, as byte offsets.

    Lengths are balanced: 700 bytes with `segment_bytes=600` are two segments of 350. The last end is the text's.
    """
    content = text.encode()
    if not content:
        return ()
    count = -(-len(content) // segment_bytes)
    ends: list[int] = []
    for index in range(1, count):
        end = next_cut(content, index * len(content) // count)
        if (ends[-1] if ends else 0) < end < len(content):
            ends.append(end)
    return (*ends, len(content))
