"""New rows as sums of old rows: one sparse map that can be applied, explained, stored, and applied again elsewhere.

Every method gives a map A with one line a new token; the new rows are A times the old table. Column `old_rows`, one
past the last row, stands for the mean of the population (all rows of text tokens), so that "the mean of everything"
is one entry and not fifty thousand. A line may ask for noise on top: `noise` times the population's standard
deviation in each dimension, times normal numbers from a stream of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from langadapt.core.errors import DataError, LangadaptError
from langadapt.core.io import read_json_lines, write_json_lines
from langadapt.core.rng import stream_key
from langadapt.core.types import NewToken
from langadapt.model.save import saving

Role = Literal["input", "head", "tied"]
Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
MAP_FILE = "row_map.safetensors"
PROVENANCE_FILE = "provenance.jsonl"
# 4,096 lines x 4 pieces x 4,096 dimensions x 4 bytes = 268 MB at the most while applying a map.
_LINES_AT_A_TIME = 4096


class Vocabulary(Protocol):
    """What a method may ask of the base tokenizer."""

    def spell(self, content: bytes) -> list[int]: ...
    def bytes_of(self, id: int) -> bytes: ...
    def piece(self, id: int) -> str: ...


@dataclass(frozen=True)
class InitInputs:
    """What a method gets. `role` says which table the rows are for; `population` are the ids of text tokens."""

    base: Vocabulary
    new_tokens: Sequence[NewToken]
    old_rows: int
    population: Ints
    role: Role = "tied"
    seed: int = 0


@dataclass(frozen=True)
class RowMap:
    """Lines in order of new id. `indptr`, `indices`, `values` are CSR over old rows and the mean column.

    `noise` [n] is 0 for lines without noise; `noise_keys` [n, 2] are the two halves of each line's Philox key.
    """

    new_ids: Ints
    old_rows: int
    population: Ints
    indptr: Ints
    indices: Ints
    values: Floats
    noise: Floats
    noise_keys: "np.ndarray[Any, np.dtype[np.uint64]]"
    provenance: tuple[Mapping[str, Any], ...] = field(repr=False)

    def apply(self, table: Floats) -> Floats:
        """New rows [n, width] in float32 from an old table [old_rows, width] in float32."""
        if table.shape[0] != self.old_rows:
            raise DataError(f"the row map is for a table of {self.old_rows:,} rows, this one has {table.shape[0]:,}")
        rows = np.zeros((len(self.new_ids), table.shape[1]), dtype=np.float32)
        mean, deviation = self._moments(table)
        for start in range(0, len(self.new_ids), _LINES_AT_A_TIME):
            stop = min(start + _LINES_AT_A_TIME, len(self.new_ids))
            first, last = self.indptr[start], self.indptr[stop]
            columns = self.indices[first:last]
            parts = np.where((columns == self.old_rows)[:, None], mean, table[np.minimum(columns, self.old_rows - 1)])
            parts *= self.values[first:last, None]
            # every line has at least one entry, which reduceat needs
            rows[start:stop] = np.add.reduceat(parts, self.indptr[start:stop] - first, axis=0)
        for line in np.flatnonzero(self.noise):
            low, high = (int(half) for half in self.noise_keys[line])
            random = np.random.Generator(np.random.Philox(key=low | high << 64))
            rows[line] += self.noise[line] * deviation * random.standard_normal(table.shape[1], dtype=np.float32)
        return rows

    def _moments(self, table: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation in each dimension over the population, summed in float64."""
        width = table.shape[1]
        if not (len(self.new_ids) and ((self.indices == self.old_rows).any() or self.noise.any())):
            return np.zeros(width, np.float32), np.zeros(width, np.float32)
        total, squares = np.zeros(width), np.zeros(width)
        chunks = np.array_split(self.population, max(1, len(self.population) // 8192))
        for chunk in chunks:
            total += table[chunk].sum(axis=0, dtype=np.float64)
        mean = total / len(self.population)
        for chunk in chunks:
            squares += ((table[chunk] - mean) ** 2).sum(axis=0)
        return mean.astype(np.float32), np.sqrt(squares / len(self.population)).astype(np.float32)

    def apply_bias(self, bias: Floats) -> Floats:
        """Biases of the new tokens: b' = A b, without noise."""
        calm = RowMap(**{**vars(self), "noise": np.zeros_like(self.noise)})
        return calm.apply(bias[:, None])[:, 0]

    def column_mass(self) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Sum of each old row's weights over all lines [old_rows]; the mean column is spread over the population."""
        mass = np.zeros(self.old_rows + 1, dtype=np.float64)
        np.add.at(mass, self.indices, self.values.astype(np.float64))
        spread: np.ndarray[Any, np.dtype[np.float64]] = mass[: self.old_rows]
        spread[self.population] += mass[-1] / max(1, len(self.population))
        return spread

    def is_convex(self) -> bool:
        """Are all weights non-negative, and each line's sum 1, without noise? Then the head-mass bound holds."""
        if not len(self.new_ids):
            return True
        sums = np.add.reduceat(self.values.astype(np.float64), self.indptr[:-1])
        return bool((self.values >= 0).all() and np.allclose(sums, 1, atol=1e-5) and not self.noise.any())

    def duplicates(self) -> list[list[int]]:
        """Groups of new ids whose rows come out equal, because they are the same sum."""
        groups: dict[bytes, list[int]] = {}
        for line, id in enumerate(self.new_ids.tolist()):
            if self.noise[line]:
                continue
            part = slice(self.indptr[line], self.indptr[line + 1])
            order = np.lexsort((self.values[part], self.indices[part]))
            key = self.indices[part][order].tobytes() + self.values[part][order].tobytes()
            groups.setdefault(key, []).append(id)
        return [group for group in groups.values() if len(group) > 1]


class RowMapBuilder:
    """Collects one line a new token, in any order; `build` sorts by id and checks that none is missing."""

    def __init__(self, inputs: InitInputs, method: str) -> None:
        self._inputs = inputs
        self._method = method
        self._lines: dict[int, tuple[list[int], list[float], float, dict[str, Any]]] = {}

    def mean(self, token: NewToken, pieces: Sequence[int], why: str) -> None:
        """The plain average of some old rows."""
        self.weighted(token, pieces, [1.0] * len(pieces), why)

    def weighted(self, token: NewToken, pieces: Sequence[int], weights: Sequence[float], why: str) -> None:
        """A weighted average of some old rows; weights are scaled to sum 1 here."""
        total = sum(weights)
        if not pieces or len(pieces) != len(weights) or not total > 0 or min(weights) < 0:
            raise LangadaptError(f"`{self._method}` gave no usable weights for the token `{token.piece}`")
        self._add(token, list(pieces), [weight / total for weight in weights], 0.0, why)

    def fallback(self, token: NewToken, why: str) -> None:
        """The mean of all text rows, for a token that the method cannot build."""
        self._add(token, [self._inputs.old_rows], [1.0], 0.0, why)

    def drawn(self, token: NewToken, scale: float, why: str) -> None:
        """The mean of all text rows plus noise of `scale` standard deviations in each dimension."""
        self._add(token, [self._inputs.old_rows], [1.0], scale, why)

    def _add(self, token: NewToken, ids: list[int], weights: list[float], noise: float, why: str) -> None:
        if token.id in self._lines:
            raise LangadaptError(f"`{self._method}` gave token {token.id} two rows")
        pieces = [self._inputs.base.piece(id) for id in ids if id != self._inputs.old_rows]
        note = {
            "id": token.id,
            "piece": token.piece,
            "hex": token.content.hex(),
            "method": self._method,
            "why": why,
            "pieces": pieces,
        }
        self._lines[token.id] = (ids, weights, noise, note)

    def build(self) -> RowMap:
        """The finished map; an error of the method if a token has no line."""
        tokens = sorted(self._inputs.new_tokens, key=lambda token: token.id)
        missing = [token.piece for token in tokens if token.id not in self._lines]
        if missing:
            raise LangadaptError(f"`{self._method}` gave no row to {len(missing)} tokens, such as `{missing[0]}`")
        lines = [self._lines[token.id] for token in tokens]
        keys = [
            stream_key(self._inputs.seed, "row", self._inputs.role, token.content.hex()) if line[2] else 0
            for token, line in zip(tokens, lines, strict=True)
        ]
        low = 2**64 - 1
        return RowMap(
            new_ids=np.array([token.id for token in tokens], dtype=np.int64),
            old_rows=self._inputs.old_rows,
            population=self._inputs.population,
            indptr=np.cumsum([0, *(len(line[0]) for line in lines)], dtype=np.int64),
            indices=np.array([id for line in lines for id in line[0]], dtype=np.int64),
            values=np.array([weight for line in lines for weight in line[1]], dtype=np.float32),
            noise=np.array([line[2] for line in lines], dtype=np.float32),
            noise_keys=np.array([(key & low, key >> 64) for key in keys], dtype=np.uint64).reshape(-1, 2),
            provenance=tuple(line[3] for line in lines),
        )


_ARRAYS = ("new_ids", "population", "indptr", "indices", "values", "noise", "noise_keys")


def save_maps(maps: Mapping[str, RowMap], folder: Path) -> None:
    """Write `row_map.safetensors` (arrays named `<table>.<array>`) and `provenance.jsonl`; tables: input, head."""
    from safetensors.numpy import save_file

    arrays: dict[str, Any] = {}
    for table, rows in sorted(maps.items()):
        arrays |= {f"{table}.{name}": np.ascontiguousarray(getattr(rows, name)) for name in _ARRAYS}
        arrays[f"{table}.old_rows"] = np.array([rows.old_rows], dtype=np.int64)
    with saving(folder / MAP_FILE):
        save_file(arrays, folder / MAP_FILE)
    notes = [{"table": table, **note} for table, rows in sorted(maps.items()) for note in rows.provenance]
    write_json_lines(folder / PROVENANCE_FILE, notes)


def load_maps(folder: Path) -> dict[str, RowMap]:
    """Read what `save_maps` wrote, to explain rows or to apply the same map to a sibling model."""
    from safetensors.numpy import load_file

    if not (folder / MAP_FILE).is_file():
        raise DataError(f"`{folder}` has no {MAP_FILE}")
    arrays = load_file(folder / MAP_FILE)
    notes: dict[str, list[dict[str, Any]]] = {}
    for note in read_json_lines(folder / PROVENANCE_FILE):
        notes.setdefault(str(note.pop("table")), []).append(note)
    maps = {}
    for table in sorted({name.partition(".")[0] for name in arrays}):
        fields = {name: arrays[f"{table}.{name}"] for name in _ARRAYS}
        old_rows = int(arrays[f"{table}.old_rows"][0])
        maps[table] = RowMap(old_rows=old_rows, provenance=tuple(notes.get(table, [])), **fields)
    return maps
