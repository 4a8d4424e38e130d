"""The 256 printable characters that byte-level tokenizers write for the 256 bytes, and the way back."""

from functools import cache

from langadapt.core.errors import DataError


@cache
def byte_of_character() -> dict[str, int]:
    """Printable character -> byte.

    GPT-2's table: the visible Latin-1 characters stand for themselves, the other 68 bytes take the code points from
    256 upwards in order, so that space (0x20) is `Ġ` and line feed (0x0A) is `Ċ`.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    table = {chr(byte): byte for byte in visible}
    return table | {chr(256 + place): byte for place, byte in enumerate(hidden)}


@cache
def character_of_byte() -> tuple[str, ...]:
    """Byte -> printable character, indexed by the byte."""
    return tuple(character for character, _ in sorted(byte_of_character().items(), key=lambda item: item[1]))


def to_bytes(piece: str) -> bytes:
    """Bytes that a byte-level piece stands for; DataError if a character is not of the alphabet."""
    table = byte_of_character()
    try:
        return bytes([table[character] for character in piece])
    except KeyError as error:
        raise DataError(f"`{piece}` is not a byte-level piece: {error} stands for no byte") from error


def to_piece(content: bytes) -> str:
    """Piece that stands for these bytes; the inverse of `to_bytes`."""
    table = character_of_byte()
    return "".join([table[byte] for byte in content])
