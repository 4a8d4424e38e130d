"""A large random table, and what methods are given with it: python -m tests.benchmarks.peers.large OUT METHOD NEW

Makes the rows of NEW tokens by METHOD for a stored table of `ROWS` x `WIDTH` bfloat16, as init-embeddings does: the
map, and the new table in the stored dtype. Tokens are words of a made-up language, `SHARED` of which both tokenizers
have; vectors of words, tokens and a helper are random, with a part that all have in common, as real ones do.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from langadapt.core.host import peak_memory_bytes
from langadapt.core.registry import load_method
from langadapt.core.rng import stream
from langadapt.core.types import NewToken, TokenMatch
from langadapt.embed.inputs import Given, InitInputs, Role
from langadapt.embed.types import Floats, Ints

ROWS, WIDTH, SHARED, VECTORS, PAIRS = 128_000, 4096, 20_000, 300, 5000
# New rows that are kept in float32, to compare them with those of the plain formula.
KEPT = 64
_LENGTH, _COMMON = 0.02, 0.5
_ROWS_AT_A_TIME = 8000


def base_table(work: Path) -> Path:
    """The stored table, made once."""
    import torch
    from safetensors.torch import save_file

    path = work / f"table-{ROWS}-{WIDTH}.safetensors"
    if not path.is_file():
        table = torch.empty((ROWS, WIDTH), dtype=torch.bfloat16)
        for start in range(0, ROWS, _ROWS_AT_A_TIME):
            part = stream(0, "large table", start).standard_normal((_ROWS_AT_A_TIME, WIDTH), dtype=np.float32)
            table[start : start + _ROWS_AT_A_TIME] = torch.from_numpy(part * _LENGTH)
        save_file({"table": table}, path)
    return path


def random_vectors(purpose: str, count: int) -> Floats:
    """Vectors [count, 300] of which a fifth is common to all."""
    common = stream(0, "large vectors").standard_normal(VECTORS, dtype=np.float32)
    own = stream(0, "large vectors", purpose).standard_normal((count, VECTORS), dtype=np.float32)
    return np.asarray(own + _COMMON * common, dtype=np.float32)


@dataclass(frozen=True)
class Names:
    """Tokens by name: `a7` is one that both tokenizers have, `b7` and `c7` are the base's and the new one's own."""

    own: str

    def piece(self, id: int) -> str:
        return f"a{id}" if id < SHARED else f"{self.own}{id - SHARED}"

    def bytes_of(self, id: int) -> bytes:
        return self.piece(id).encode()

    def spell(self, content: bytes) -> list[int]:
        """One to five pieces, drawn: spelling itself is not part of what is timed."""
        draw = np.frombuffer(content.ljust(8)[-8:], dtype=np.uint32)
        seed = int(draw[0]) * 2654435761 + int(draw[1])
        return [(seed * (place + 1) + place) % ROWS for place in range(1 + seed % 5)]


@dataclass(frozen=True)
class RandomHelper:
    """Rows of a helper model that has all tokens of the new tokenizer."""

    table: Floats = field(repr=False)
    learned = False

    @property
    def width(self) -> int:
        return int(self.table.shape[1])

    @property
    def row_of(self) -> Ints:
        return np.arange(len(self.table))

    def rows(self, ids: Ints, role: Role) -> Floats:
        found: Floats = self.table[ids]
        return found


def large_inputs(work: Path, new: int) -> InitInputs:
    """What a method gets."""
    from langadapt.embed.vectors import WordVectors
    from langadapt.model.weights import read_tensor

    path, size = base_table(work), SHARED + new
    base, target = Names("b"), Names("c")

    def words(names: Names, count: int) -> WordVectors:
        return WordVectors([names.piece(id) for id in range(count)], random_vectors(names.own, count))

    def pairs() -> Iterator[tuple[str, ...]]:
        return ((base.piece(id), target.piece(id)) for id in range(0, min(2 * PAIRS, size), 2))

    given = Given(
        table=lambda: read_tensor(path, "table"),
        base_tokenizer=cache(lambda: word_tokenizer(base, ROWS)),
        target_tokenizer=cache(lambda: word_tokenizer(target, size)),
        corpus=lambda: iter(()),
        vectors=cache(lambda: words(target, size)),
        base_vectors=cache(lambda: words(base, ROWS)),
        helper=cache(lambda: RandomHelper(random_vectors("helper", size))),
        dictionary=pairs,
    )
    tokens = tuple(NewToken(id, target.piece(id), target.bytes_of(id), 1, "made up") for id in range(SHARED, size))
    kept = {id: id for id in range(SHARED)}
    return InitInputs(base, tokens, ROWS, np.arange(ROWS), kept=kept, target=target, given=given)


def word_tokenizer(names: Names, size: int) -> Any:
    """One token a word."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({names.piece(id): id for id in range(size)}, unk_token=names.piece(0)))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def opened(inputs: InitInputs, method: str) -> None:
    """Open what the method will ask for: making random vectors is not part of what is timed."""
    offers = {
        "helper": inputs.helper,
        "vectors": inputs.vectors,
        "base_vectors": inputs.base_vectors,
        "base_tokenizer": inputs.base_tokenizer,
        "target_tokenizer": inputs.target_tokenizer,
    }
    for need in load_method("embed", method).facts.needs:
        for way in need.rstrip("?").split("|"):
            if way in offers:
                offers[way]()
    if method == "focus":
        from langadapt.embed import focus

        table = random_vectors("tokens", SHARED + len(inputs.new_tokens))
        focus.token_vectors = lambda inputs, ids, *rest: (table[ids], np.ones(len(ids), dtype=np.bool_))


def beginning(rows: Any, count: int) -> Any:
    """The first lines of a map, as a map of its own."""
    parts = [
        replace(part, lines=part.lines[part.lines < count], vectors=part.vectors[part.lines < count])
        for part in rows.dense
    ]
    entries = rows.indptr[count]
    return replace(
        rows, new_ids=rows.new_ids[:count], indptr=rows.indptr[: count + 1], indices=rows.indices[:entries],
        values=rows.values[:entries], noise=rows.noise[:count], correlated=rows.correlated[:count],
        noise_keys=rows.noise_keys[:count], provenance=rows.provenance[:count], dense=tuple(parts),
    )  # fmt: skip


def main(out: str, name: str, new: str) -> None:
    from langadapt.embed.assemble import layout, longer
    from langadapt.model.weights import read_tensor

    work, count = Path(out).parent, int(new)
    inputs = large_inputs(work, count)
    opened(inputs, name)
    tokens = TokenMatch(ROWS, SHARED + count, dict(inputs.kept), inputs.new_tokens, (), renumbered=True)
    method, plan = load_method("embed", name), layout(tokens, None)
    weights: Any = SimpleNamespace(weights=SimpleNamespace(read=lambda stored: read_tensor(base_table(work), stored)))
    before, began = peak_memory_bytes(), time.process_time()
    rows = method(inputs, method.options())
    made = time.process_time()
    table = longer(weights, "table", rows, plan)
    ended, peak = time.process_time(), peak_memory_bytes()
    np.save(Path(out) / "rows.npy", beginning(rows, KEPT).apply(_wide(inputs)))
    found = {"seconds": ended - began, "map_seconds": made - began, "peak_bytes": peak, "before_bytes": before,
             "table_bytes": 2 * ROWS * WIDTH + table.numel() * table.element_size(), "tokens": count}  # fmt: skip
    (Path(out) / "measured.json").write_text(json.dumps(found))


def _wide(inputs: InitInputs) -> Any:
    """The base table as a map reads it: float32 rows, of those that are asked for."""

    class Table:
        shape = (ROWS, WIDTH)

        def __getitem__(self, ids: Ints) -> Floats:
            return inputs.base_rows(ids)

    return Table()


if __name__ == "__main__":
    main(*sys.argv[1:])
