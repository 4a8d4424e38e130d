"""New rows as sums of old rows: one sparse map that can be applied, explained, stored, and applied again elsewhere.

Most methods give a map A with one line a new token; the new rows are A times the old table. Column `old_rows`, one
past the last row, stands for the mean of the population (all rows of text tokens), so that "the mean of everything"
is one entry and not fifty thousand. A line may ask for noise on top: `noise` times the population's standard
deviation in each dimension, times normal numbers from a stream of its own; a `correlated` line has noise with the
population's covariance instead. Rows that come from another space have no entries in A, see dense.py.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from langadapt.core.errors import DataError
from langadapt.core.io import read_json_lines, write_json_lines
from langadapt.embed.dense import Dense
from langadapt.embed.moments import Doubles, covariance_factor, deviation_of, mean_of
from langadapt.embed.types import Floats, Ints
from langadapt.model.save import saving

MAP_FILE = "row_map.safetensors"
PROVENANCE_FILE = "provenance.jsonl"
# Old rows that are gathered at a time while a map is applied: a sixth of the table, or 32 million numbers of 4 bytes,
# or those of one line. Where lines are long, blocks of few lines would gather the same rows again and again.
_BLOCK_SHARE, _BLOCK_VALUES = 6, 32_000_000
_LINES_AT_A_TIME = 4096
# Lines of correlated noise are multiplied in blocks of one shape, so that a row does not depend on its neighbours.
_NOISE_LINES = 64


@dataclass(frozen=True)
class RowMap:
    """Lines in order of new id. `indptr`, `indices`, `values` are CSR over old rows and the mean column.

    `noise` [n] is 0 for lines without noise; `noise_keys` [n, 2] are the two halves of each line's Philox key.
    A line is either sparse or belongs to one of the `dense` parts. `measured` is not stored with the map.
    """

    new_ids: Ints
    old_rows: int
    population: Ints
    indptr: Ints
    indices: Ints
    values: Floats
    noise: Floats
    correlated: "np.ndarray[Any, np.dtype[np.bool_]]"
    noise_keys: "np.ndarray[Any, np.dtype[np.uint64]]"
    provenance: tuple[Mapping[str, Any], ...] = field(repr=False)
    dense: tuple[Dense, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, table: Floats) -> Floats:
        """New rows [n, width] in float32 from an old table [old_rows, width] in float32."""
        rows = np.empty((len(self.new_ids), table.shape[1]), dtype=np.float32)
        for start, part in self.parts(table):
            rows[start : start + len(part)] = part
        return rows

    def parts(self, table: Floats) -> Iterator[tuple[int, Floats]]:
        """The same a block of lines at a time: (first line, rows [lines, width]). All of them may be as large as the
        table in another dtype.
        """
        if table.shape[0] != self.old_rows:
            raise DataError(f"the row map is for a table of {self.old_rows:,} rows, this one has {table.shape[0]:,}")
        moments = _Moments(table, self.population)
        for start, stop in self._blocks(table.shape[1]):
            rows = self._sums(start, stop, table, moments)
            for part in self.dense:
                part.put_rows(rows, start)
            self._add_noise(rows, start, moments)
            yield start, rows

    def _sums(self, start: int, stop: int, table: Floats, moments: "_Moments") -> Floats:
        """The sparse sums of lines, zero for those without entries. An old row that many lines use is read once."""
        import torch

        first, last = self.indptr[start], self.indptr[stop]
        used, places = np.unique(self.indices[first:last], return_inverse=True)
        old = table[np.minimum(used, self.old_rows - 1)]
        if len(used) and used[-1] == self.old_rows:
            old[-1] = moments.mean
        sums = torch.nn.functional.embedding_bag(
            torch.from_numpy(places.reshape(-1)),
            torch.from_numpy(old),
            torch.from_numpy(self.indptr[start:stop] - first),
            mode="sum",
            per_sample_weights=torch.from_numpy(self.values[first:last]),
        )
        found: Floats = sums.numpy()
        return found

    def _blocks(self, width: int) -> Iterator[tuple[int, int]]:
        """Ranges of lines whose rows fit in memory together, and so do the old rows that they are made of."""
        most = max(1, self.old_rows // _BLOCK_SHARE, _BLOCK_VALUES // width)
        start, lines = 0, len(self.new_ids)
        while start < lines:
            stop = min(lines, start + _LINES_AT_A_TIME)
            while stop - start > 1 and len(np.unique(self.indices[self.indptr[start] : self.indptr[stop]])) > most:
                stop = start + (stop - start) // 2
            yield start, stop
            start = stop

    def _add_noise(self, rows: Floats, start: int, moments: "_Moments") -> None:
        """Add it to the rows of the lines from `start` on."""
        own = slice(start, start + len(rows))
        noise, correlated = self.noise[own], self.correlated[own]
        width = rows.shape[1]
        for line in np.flatnonzero((noise != 0) & ~correlated).tolist():
            rows[line] += noise[line] * moments.deviation * self._draw(start + line, width)
        lines = np.flatnonzero((noise != 0) & correlated)
        for first in range(0, len(lines), _NOISE_LINES):
            block = lines[first : first + _NOISE_LINES]
            draws = np.zeros((_NOISE_LINES, width), dtype=np.float32)
            for place, line in enumerate(block.tolist()):
                draws[place] = self._draw(start + line, width)
            rows[block] += noise[block, None] * (draws @ moments.factor)[: len(block)]

    def _draw(self, line: int, width: int) -> Floats:
        """Standard normal numbers of a line's own stream."""
        low, high = (int(half) for half in self.noise_keys[line])
        random = np.random.Generator(np.random.Philox(key=low | high << 64))
        return random.standard_normal(width, dtype=np.float32)

    def apply_bias(self, bias: Floats) -> Floats:
        """Biases of the new tokens: b' = A b, without noise; the mean for dense lines, which have no A."""
        calm = replace(self, noise=np.zeros_like(self.noise), dense=())
        found: Floats = calm.apply(bias[:, None])[:, 0]
        for part in self.dense:
            found[part.lines] = bias[self.population].mean()
        return found

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
        if self.dense or not np.diff(self.indptr).all():
            return False
        sums = np.add.reduceat(self.values.astype(np.float64), self.indptr[:-1])
        return bool((self.values >= 0).all() and np.allclose(sums, 1, atol=1e-5) and not self.noise.any())

    def mean_lines(self) -> int:
        """Lines that are nothing but the mean row."""
        single = np.diff(self.indptr) == 1
        return int((self.indices[self.indptr[:-1][single]] == self.old_rows).sum())

    def reasons(self) -> dict[str, int]:
        """How many lines there are for each reason in the provenance, the commonest first; 20 at the most."""
        return dict(Counter(str(note["why"]) for note in self.provenance).most_common(20))

    def duplicates(self) -> list[list[int]]:
        """Groups of new ids whose rows come out equal, because they are the same sum."""
        groups: dict[bytes, list[int]] = {}
        dense = {
            int(line): b"%d:" % number + row.tobytes()
            for number, part in enumerate(self.dense)
            for line, row in zip(part.lines, part.vectors, strict=True)
        }
        for line, id in enumerate(self.new_ids.tolist()):
            if self.noise[line]:
                continue
            part = slice(self.indptr[line], self.indptr[line + 1])
            order = np.lexsort((self.values[part], self.indices[part]))
            key = self.indices[part][order].tobytes() + self.values[part][order].tobytes()
            groups.setdefault(dense.get(line, key), []).append(id)
        return [group for group in groups.values() if len(group) > 1]


@dataclass(frozen=True)
class _Moments:
    """What lines may ask of the population, each worked out when the first line asks."""

    table: Floats = field(repr=False)
    population: Ints = field(repr=False)

    @cached_property
    def _mean(self) -> Doubles:
        return mean_of(self.table, self.population)

    @cached_property
    def mean(self) -> Floats:
        return self._mean.astype(np.float32)

    @cached_property
    def deviation(self) -> Floats:
        return deviation_of(self.table, self.population, self._mean).astype(np.float32)

    @cached_property
    def factor(self) -> Floats:
        return covariance_factor(self.table, self.population, self.mean.astype(np.float64))


_ARRAYS = ("new_ids", "population", "indptr", "indices", "values", "noise", "correlated", "noise_keys")


def save_maps(maps: Mapping[str, RowMap], folder: Path) -> None:
    """Write `row_map.safetensors` and `provenance.jsonl`; tables: input, head.

    Arrays are named `<table>.<array>`, those of dense parts `<table>.dense.<number>.<array>`.
    """
    from safetensors.numpy import save_file

    arrays: dict[str, Any] = {}
    for table, rows in sorted(maps.items()):
        arrays |= {f"{table}.{name}": np.ascontiguousarray(getattr(rows, name)) for name in _ARRAYS}
        arrays[f"{table}.old_rows"] = np.array([rows.old_rows], dtype=np.int64)
        for number, part in enumerate(rows.dense):
            arrays |= {f"{table}.dense.{number}.{name}": value for name, value in part.arrays().items()}
    with saving(folder / MAP_FILE):
        save_file(arrays, folder / MAP_FILE)
    notes = [{"table": table, **note} for table, rows in sorted(maps.items()) for note in rows.provenance]
    write_json_lines(folder / PROVENANCE_FILE, notes)


def load_maps(folder: Path) -> dict[str, RowMap]:
    """Read what `save_maps` wrote, to explain rows or to apply the same map to a sibling model."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not (folder / MAP_FILE).is_file():
        raise DataError(
            f"`{folder}` has no {MAP_FILE}",
            hint="init-embeddings writes it; a trained model has none: take the one that it was trained from",
        )
    try:
        arrays = load_file(folder / MAP_FILE)
    except SafetensorError as error:
        raise DataError(
            f"`{folder / MAP_FILE}` cannot be read: {error}", hint="copy the folder again, or make it again"
        ) from error
    notes: dict[str, list[dict[str, Any]]] = {}
    for note in read_json_lines(folder / PROVENANCE_FILE):
        notes.setdefault(str(note.pop("table")), []).append(note)
    maps = {}
    for table in sorted({name.partition(".")[0] for name in arrays}):
        own = {name.removeprefix(f"{table}."): value for name, value in arrays.items() if name.startswith(f"{table}.")}
        # maps of version 0.1.0 knew no correlated noise
        own.setdefault("correlated", np.zeros(len(own["new_ids"]), dtype=np.bool_))
        maps[table] = RowMap(
            old_rows=int(own["old_rows"][0]),
            provenance=tuple(notes.get(table, [])),
            dense=_dense_parts(own),
            **{name: own[name] for name in _ARRAYS},
        )
    return maps


def _dense_parts(arrays: Mapping[str, Any]) -> tuple[Dense, ...]:
    parts: dict[int, dict[str, Any]] = {}
    for name, value in arrays.items():
        kind, _, rest = name.partition(".")
        if kind == "dense":
            number, _, array = rest.partition(".")
            parts.setdefault(int(number), {})[array] = value
    return tuple(Dense.of(parts[number]) for number in sorted(parts))
