"""Bytes -> lines, split only at LF and CRLF, in bounded memory whatever the file holds."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

# No sentence, paragraph or chapter on one line is this long; what is, is a dump without line ends.
MAX_LINE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end, or one part of a line longer than the limit (`part` counts them, from 0)."""

    number: int
    offset: int
    data: bytes
    part: int = 0
    complete: bool = True
    """Does the line end with this part?"""


def lines(stream: io.BufferedReader, limit: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Lines of a stream; a longer line comes in parts of at most `limit` bytes, cut at a space where there is one."""
    number, part = 1, 0
    offset = 0
    rest = b""
    while chunk := stream.readline(limit - len(rest)):
        data = rest + chunk
        rest = b""
        ended = data.endswith(b"\n")
        over = not ended and len(data) >= limit
        if over:
            cut = _cut(data)
            data, rest = data[:cut], data[cut:]
        size = len(data)
        if ended:
            data = data[:-2] if data.endswith(b"\r\n") else data[:-1]
        yield Line(number, offset, data, part, not over)
        offset += size
        number, part = (number + 1, 0) if ended else (number, part + 1)
    if rest:
        yield Line(number, offset, rest, part)


def _cut(data: bytes) -> int:
    """Where to cut a part: after the last space of its end, else before an incomplete UTF-8 character."""
    space = data.rfind(b" ", len(data) - 4096)
    if space > 0:
        return space + 1
    cut = len(data)
    while cut > len(data) - 4 and data[cut - 1] & 0xC0 == 0x80:
        cut -= 1
    # `cut - 1` is now the first byte of the last character: keep that character for the next part
    return cut - 1 if data[cut - 1] >= 0xC0 else len(data)
