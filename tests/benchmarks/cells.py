"""Benchmarks made of cells (a method and a seed): which are wanted, what they gave, and their table in a page."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from langadapt.core.io import replace_durably
from langadapt.model.compute import Compute

Results = Mapping[tuple[str, int], Mapping[str, Any]]
END = "<!-- end of table -->"


def results(work: Path, key: str) -> dict[tuple[str, int], dict[str, Any]]:
    """The last result of every cell; `key` is what the entries call the method."""
    path = work / "results.jsonl"
    # a kill in the middle of a line leaves one without an end
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return {(entry[key], entry["seed"]): entry for entry in map(json.loads, lines)}


def add_result(work: Path, entry: Mapping[str, Any]) -> None:
    """Append what a cell gave."""
    line = json.dumps(entry, ensure_ascii=False)
    with (work / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `path` holds, else what `make` gives, kept there; several processes may ask at once."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(path, json.dumps(make()))
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def segment_scores(model: Any, tokenizer: Any, texts: Sequence[Any], prefix: int, compute: Compute) -> dict[str, Any]:
    """Nats and bytes of every segment of the `ScoredText`s, and how many tokens there are."""
    from langadapt.model.score import score_texts

    scores = score_texts(model, tokenizer, texts, prefix_id=prefix, compute=compute)
    segments = [segment for one in scores for segment in one.segments]
    return {
        "nats": [round(segment.nll, 4) for segment in segments],
        "bytes": [segment.bytes for segment in segments],
        "tokens": sum(segment.tokens for segment in segments),
    }


def wanted(names: Sequence[str], seeds: int, only: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Cells to make, all methods with the first seed before any with the second."""
    for seed in range(seeds):
        for name in names:
            if not only or any(fnmatchcase(f"{name}/{seed}", pattern) for pattern in only):
                yield name, seed


def fill(page: Path, begin: str, table: str) -> None:
    """Replace what stands between the marks of the page."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(begin, 1)
    after = rest.split(END, 1)[1]
    page.write_text(f"{before}{begin}\n\n{table}\n\n{END}{after}", encoding="utf-8")


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"`{text}` is not NAME=PATH")
    return name, value
