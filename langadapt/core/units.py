"""Quantities as people write them: `4k` is 4,000, `4Ki` is 4,096, `1.5B`, `24GiB`, `8h`."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator

_DECIMAL = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_BYTES = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    f"{prefix}B": factor for prefix, factor in _BINARY.items()
}
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")
_QUANTITY = re.compile(r"\s*(\d+(?:[_,]\d{3})*(?:\.\d+)?|\.\d+)\s*([A-Za-z]*)\s*")


def _parse(text: str, units: dict[str, int], what: str) -> int:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        known = ", ".join(unit for unit in units if unit)
        raise ValueError(f"`{text}` is not {what}; write a number with one of {known}")
    value = float(match[1].replace("_", "").replace(",", "")) * units[match[2]]
    if abs(value - round(value)) > 1e-6:
        raise ValueError(f"`{text}` is not a whole number")
    return round(value)


def parse_count(value: object) -> object:
    """`4k` -> 4000; anything but text is passed on for pydantic to judge."""
    return _parse(value, _DECIMAL | _BINARY, "a count") if isinstance(value, str) else value


def parse_count_or_auto(value: object) -> object:
    """A count or the word `auto`; other types are refused here, so that there is one message and not one for each."""
    found = value if value == "auto" else parse_count(value)
    if found != "auto" and (not isinstance(found, int) or isinstance(found, bool)):
        raise ValueError("this is neither a whole number nor `auto`")
    return found


def parse_bytes(value: object) -> object:
    """`24GiB` -> 25769803776; a plain number is bytes."""
    units = _BYTES | {key: factor for key, factor in (_DECIMAL | _BINARY).items() if key != "B"}
    return _parse(value, units, "an amount of bytes") if isinstance(value, str) else value


def parse_seconds(value: object) -> object:
    """`8h` -> 28800, and as Slurm writes it `08:00:00` or `1-12:00:00`; a plain number is seconds."""
    match = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return ((24 * days + hours) * 60 + minutes) * 60 + seconds
    return _parse(value, _SECONDS, "a time") if isinstance(value, str) else value


Count = Annotated[int, BeforeValidator(parse_count)]
CountOrAuto = Annotated[int | Literal["auto"], BeforeValidator(parse_count_or_auto)]
Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Seconds = Annotated[int, BeforeValidator(parse_seconds)]


def show_bytes(amount: float) -> str:
    """1234567 -> `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def show_seconds(seconds: float) -> str:
    """95 -> `1 min 35 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
