"""Rows of the input table that training seems never to have reached."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from langadapt.core.errors import DataError
from langadapt.model.tables import open_tables

# Frequent first names of SmolLM2 have 0.57 of the median norm and are well trained, so a low norm means little before
# it is far below the rest.
SMALL_NORM = 0.25
# Reading a larger table costs more than the answer is worth in a preview.
MAX_TABLE_BYTES = 4 * 10**9


@dataclass(frozen=True)
class RowFacts:
    """Of the input table: rows behind the last token, text tokens whose row equals another's, and tiny rows."""

    rows: int
    spare: int
    identical: int
    tiny: int

    @property
    def suspicious(self) -> int:
        """Rows that look unused."""
        return self.identical + self.tiny


def unused_rows(folder: Path) -> RowFacts | None:
    """Indicators only (Land & Bartolo 2024 look at the same rows with more care); None where the table is not read.

    Two tokens that were trained differ in every number; equal rows are what both were initialised to.
    """
    import torch

    try:
        tables = open_tables(folder)
    except DataError:
        return None
    if tables.rows * tables.width * 4 > MAX_TABLE_BYTES:
        return None
    values = tables.read_input()
    text = torch.from_numpy(tables.tokens.text_ids())
    norms = values.norm(dim=1)[text]
    digests = [hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest() for row in values[text]]
    shared = Counter(digests)
    same = torch.tensor([shared[digest] > 1 for digest in digests], dtype=torch.bool)
    tiny = (norms < SMALL_NORM * norms.median()) & ~same
    return RowFacts(tables.rows, tables.rows - tables.tokens.size, int(same.sum()), int(tiny.sum()))
