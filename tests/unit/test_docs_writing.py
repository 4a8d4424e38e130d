"""docs/writing-systems.md says what `prepare` does to letters: each row of its table is tried."""

import re
from pathlib import Path

import pytest

from langadapt.corpus.normalise import normalise

PAGE = Path(__file__).parents[2] / "docs" / "writing-systems.md"
ROWS = re.findall(r"^\|([^|]*)\|((?: U\+[0-9A-F]{4,5})+) \|((?: U\+[0-9A-F]{4,5})+) \|$", PAGE.read_text("utf-8"), re.M)


def text(points: str) -> str:
    return "".join(chr(int(point[2:], 16)) for point in points.split())


def test_the_table_is_there() -> None:
    assert len(ROWS) == 14


@pytest.mark.parametrize(("what", "before", "after"), ROWS)
def test_prepare_does_to_letters_what_the_page_says(what: str, before: str, after: str) -> None:
    assert normalise(f"x{text(before)}x") == f"x{text(after)}x", what
