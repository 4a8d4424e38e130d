"""Tables on a terminal of any width: a grid where it fits, else one cell below the other, so that nothing is cut."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from langadapt.core.types import Table

# A column narrower than this breaks words in the middle; a grid of such columns is harder to read than a list.
READABLE = 14
# Running text in a narrower column than this is a ladder of words.
READABLE_TEXT = 32
_GAP = 2
# SIMPLE_HEAD of rich with hyphens: four letters a line, the third line is the one below the heading.
_PLAIN_HEAD = "    \n    \n -- \n    \n    \n    \n    \n    \n"


def draw(console: "Console", table: "Table", *, clean: Callable[[str], str], plain: bool = False) -> None:
    """Title, rows and notes of a table; `plain` draws the line below the heading in ASCII."""
    from rich.text import Text

    if table.title:
        console.print(Text(clean(table.title), style="bold"), overflow="fold")
    columns = tuple(clean(text) for text in table.columns)
    rows = [tuple(clean(cell) for cell in row) for row in table.rows]
    if fits(columns, rows, console.width):
        _grid(console, columns, rows, plain=plain)
    else:
        _list(console, columns, rows)
    for note in table.notes:
        console.print(clean(note), overflow="fold")
    console.print()


def fits(columns: tuple[str, ...], rows: list[tuple[str, ...]], width: int) -> bool:
    """Can every column have its text's width, or at least READABLE letters of it?"""
    from rich.cells import cell_len

    needed = 0
    for number, column in enumerate(columns):
        cells = [column, *(row[number] for row in rows if number < len(row))]
        longest = max((cell_len(line) for cell in cells for line in cell.splitlines()), default=0)
        needed += min(longest, READABLE) + _GAP
    return needed - _GAP <= width


def beside(console: "Console", columns: list[tuple[str, str, str]]) -> None:
    """Texts with a heading and a line of figures each: as columns where they fit, else one below the other."""
    from rich.table import Table as Grid
    from rich.text import Text

    if len(columns) * (READABLE_TEXT + _GAP) - _GAP > console.width:
        for heading, figures, text in columns:
            console.print(Text(heading, style="bold"), overflow="fold")
            for line in figures, *text.split("\n"):
                console.print("\n".join(f"  {part}" for part in _wrap(line, console.width - 2)), overflow="fold")
        return
    grid = Grid(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0), expand=True)
    for _ in columns:
        grid.add_column(overflow="fold", ratio=1)
    grid.add_row(*(Text(heading, style="bold") for heading, _, _ in columns))
    grid.add_row(*(Text(figures, style="dim") for _, figures, _ in columns))
    grid.add_row(*(Text(text) for _, _, text in columns))
    console.print(grid)


def _grid(console: "Console", columns: tuple[str, ...], rows: list[tuple[str, ...]], *, plain: bool) -> None:
    from rich import box
    from rich.table import Table as Grid

    header = any(columns)
    line = box.Box(_PLAIN_HEAD, ascii=True) if plain else box.SIMPLE_HEAD
    grid = Grid(
        box=line if header else None,
        show_header=header,
        pad_edge=False,
        padding=(0, _GAP, 0, 0),
    )
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    console.print(grid)


def _list(console: "Console", columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Each row as lines `column: cell`; where there are no headings the first cell is the heading of the others."""
    from rich.text import Text

    named = any(columns)
    for row in rows:
        console.print(Text(row[0], style="bold"), overflow="fold")
        for column, cell in zip(columns[1:], row[1:], strict=False):
            if cell:
                text = f"{column}: {cell}" if named and column else cell
                console.print("\n".join(f"  {line}" for line in _wrap(text, console.width - 2)), overflow="fold")


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, words kept whole where they fit."""
    from rich.cells import cell_len, chop_cells

    lines = [""]
    for word in text.split():
        for part in chop_cells(word, max(width, 1)):
            joined = f"{lines[-1]} {part}" if lines[-1] else part
            if cell_len(joined) <= width:
                lines[-1] = joined
            else:
                lines.append(part)
    return lines
