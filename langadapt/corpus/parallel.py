"""Sentences in two languages, side by side: `source<TAB>target`, one pair a line."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from langadapt.core.errors import DataError
from langadapt.core.unpack import open_bytes
from langadapt.corpus.lines import lines
from langadapt.corpus.normalise import normalise
from langadapt.corpus.script import can_be

# A ratio of sums over a thousand sentences moves by 1 % when they are others.
MAX_PAIRS = 5000


def filled_columns(path: Path, columns: int, form: str) -> Iterator[tuple[str, ...]]:
    """The columns of every line that has anything in each, split at tabs and normalised; blank lines are passed over.

    DataError for a line with another number of columns than `columns`; `form` says in the hint what a line looks like.
    """
    if not path.is_file():
        raise DataError(f"`{path}` is not a file" if path.exists() else f"`{path}` does not exist")
    with open_bytes(path) as stream:
        for line in lines(stream):
            try:
                text = line.data.decode("utf-8-sig" if line.number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError("not UTF-8", where=f"{path}:{line.number}") from error
            if not text.strip():
                continue
            found = text.split("\t")
            if len(found) != columns:
                raise DataError(
                    f"{len(found)} column{'s' * (len(found) != 1)} where {_NUMBERS[columns]} are needed",
                    where=f"{path}:{line.number}",
                    hint=form,
                )
            parts = tuple(map(normalise, found))
            if all(parts):
                yield parts


_NUMBERS = {2: "two", 3: "three"}


def read_pairs(path: Path, source: str, target: str) -> list[tuple[str, str]]:
    """(source, target) of the first MAX_PAIRS lines with two filled columns; blank lines are passed over.

    DataError for a line with another number of columns, for no pair at all, and for columns in the wrong order.
    """
    form = (
        f"write `{source} sentence<TAB>{target} sentence`; two files become one with "
        f"`paste {source}.txt {target}.txt > pairs.tsv`"
    )
    pairs = [(first, second) for first, second in islice(filled_columns(path, 2, form), MAX_PAIRS)]
    if not pairs:
        raise DataError(f"`{path}` holds no pair of sentences")
    _check_order(pairs, source, target, path)
    return pairs


def _check_order(pairs: list[tuple[str, str]], source: str, target: str, path: Path) -> None:
    """The scripts tell when the columns are in the wrong order; within one script nothing does."""
    firsts, seconds = (" ".join(column) for column in zip(*pairs[:50], strict=True))
    if not can_be(seconds, target) and can_be(firsts, target):
        raise DataError(
            f"the first column of `{path}` is in the script of `{target}`, the second is not",
            hint=f"swap them, the source comes first: awk -F'\\t' '{{print $2 \"\\t\" $1}}' '{path}' > swapped.tsv",
        )
    if not can_be(seconds, target):
        raise DataError(
            f"the second column of `{path}` is not in a script that `{target}` is written in",
            hint=f"write `{source} sentence<TAB>{target} sentence`",
        )
