"""How a method writes its row map: token by token, or for many tokens at once from arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from langadapt.core.errors import LangadaptError
from langadapt.core.rng import stream_key
from langadapt.core.types import NewToken
from langadapt.embed.dense import Dense
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap
from langadapt.embed.types import Floats, Ints

# A line of hundreds of entries is stored whole in the map; the provenance names the heaviest.
MOST_PIECES = 16


@dataclass(frozen=True)
class _Lines:
    """Some lines of the map; `places` are those of their tokens by ascending id."""

    places: Ints
    indptr: Ints
    indices: Ints
    values: Floats


class RowMapBuilder:
    """Collects one line a new token, in any order; `build` sorts by id and checks that none is missing.

    `why` is written into the provenance and counted in the facts: a short text that many tokens share.
    """

    def __init__(self, inputs: InitInputs, method: str) -> None:
        self._inputs = inputs
        self._method = method
        self._tokens = sorted(inputs.new_tokens, key=lambda token: token.id)
        self._place = {token.id: place for place, token in enumerate(self._tokens)}
        self._single: list[tuple[int, Sequence[int], Sequence[float]]] = []
        self._lines: list[_Lines] = []
        self._dense: list[Dense] = []
        self._noise = np.zeros(len(self._tokens), dtype=np.float32)
        self._correlated = np.zeros(len(self._tokens), dtype=np.bool_)
        self._keys: dict[int, tuple[int, int]] = {}
        self._why: list[str | None] = [None] * len(self._tokens)
        self._measured: dict[str, Any] = {}

    def mean(self, token: NewToken, pieces: Sequence[int], why: str) -> None:
        """The plain average of some old rows."""
        self.weighted(token, pieces, [1.0] * len(pieces), why)

    def weighted(self, token: NewToken, pieces: Sequence[int], weights: Sequence[float], why: str) -> None:
        """A weighted average of some old rows; weights are scaled to sum 1 here."""
        total = sum(weights)
        if not pieces or len(pieces) != len(weights) or not total > 0 or min(weights) < 0:
            raise LangadaptError(f"`{self._method}` gave no usable weights for the token `{token.piece}`")
        self._single.append((self._claim(token, why), pieces, [weight / total for weight in weights]))

    def fallback(self, token: NewToken, why: str) -> None:
        """The mean of all text rows, for a token that the method cannot build."""
        self._single.append((self._claim(token, why), (self._inputs.old_rows,), (1.0,)))

    def drawn(self, token: NewToken, scale: float, why: str, *, correlated: bool = False) -> None:
        """The mean of all text rows plus noise of `scale` standard deviations in each dimension.

        `correlated` noise has `scale` times the factor of their covariance, so that dimensions go together.
        """
        self.fallback(token, why)
        place = self._place[token.id]
        self._noise[place], self._correlated[place] = scale, correlated

    def measured(self, **values: Any) -> None:
        """What the method found out about its own rows: goes into the facts of the artifact, not into the map."""
        self._measured |= values

    def many(
        self,
        tokens: Sequence[NewToken],
        indptr: Any,
        indices: Any,
        weights: Any,
        why: str | Sequence[str],
        *,
        scaled: bool = True,
    ) -> None:
        """Sums for many tokens: token i has the old ids `indices[indptr[i]:indptr[i + 1]]` and their weights.

        Every token needs an entry; id `old_rows` is the mean of all text rows. With `scaled` weights are averages: they
        may not be negative and are scaled to sum 1 here; without it they are taken as they are.
        """
        starts, ids = np.asarray(indptr, dtype=np.int64), np.asarray(indices, dtype=np.int64)
        values = np.asarray(weights, dtype=np.float64)
        if len(tokens) and (len(starts) != len(tokens) + 1 or (np.diff(starts) < 1).any() or starts[0] != 0):
            raise LangadaptError(
                f"`{self._method}` gave {len(tokens):,} tokens {len(starts) - 1:,} lines, or empty ones"
            )
        if len(ids) != len(values) or (len(tokens) and starts[-1] != len(ids)):
            raise LangadaptError(f"`{self._method}` gave {len(ids):,} ids and {len(values):,} weights")
        if not np.isfinite(values).all():
            raise LangadaptError(f"`{self._method}` gave weights that are no numbers")
        if scaled and len(tokens):
            sums = np.add.reduceat(values, starts[:-1])
            bad = np.flatnonzero(~(sums > 0) | (np.minimum.reduceat(values, starts[:-1]) < 0))
            if len(bad):
                piece = tokens[int(bad[0])].piece
                raise LangadaptError(f"`{self._method}` gave no usable weights for the token `{piece}`")
            values = values / np.repeat(sums, np.diff(starts))
        self._lines.append(_Lines(self._claim_all(tokens, why), starts, ids, values.astype(np.float32)))

    def dense(
        self,
        tokens: Sequence[NewToken],
        vectors: Any,
        why: str | Sequence[str],
        *,
        matrix: Any = None,
        offset: Any = None,
        noise: float = 0.0,
    ) -> None:
        """Rows `vectors` [tokens, d] times `matrix` [d, width] plus `offset`; without `matrix` the vectors are rows.

        `noise` standard deviations of the old rows, in each dimension, are drawn on top. But for that such rows do not
        change with the base table when the map is applied again to a sibling model.
        """
        arrays = [
            None if part is None else np.ascontiguousarray(part, np.float32) for part in (vectors, matrix, offset)
        ]
        if any(part is not None and not np.isfinite(part).all() for part in arrays):
            raise LangadaptError(f"`{self._method}` gave rows that are no numbers")
        places = self._claim_all(tokens, why)
        order = np.argsort(places, kind="stable")
        values, times, plus = arrays
        if values is None or len(values) != len(tokens):
            raise LangadaptError(f"`{self._method}` gave {len(tokens):,} tokens another number of vectors")
        if len(tokens):
            self._noise[places] = noise
            self._dense.append(Dense(places[order], values[order], times, plus))

    def stored(self, tokens: Sequence[NewToken], source: RowMap, lines: Ints) -> None:
        """Lines of a map for the same vocabulary, one a token, with their noise, its streams, and their reasons."""
        notes = [source.provenance[line] for line in lines.tolist()]
        reasons = [f"{note['method']}: {note['why']}" for note in notes]
        sizes = np.diff(source.indptr)[lines]
        sums = np.flatnonzero(sizes)
        indptr = np.concatenate([[0], np.cumsum(sizes[sums])])
        entries = np.concatenate(
            [np.arange(source.indptr[line], source.indptr[line + 1]) for line in lines[sums].tolist()] or [sizes[:0]]
        )
        # a sibling may have another number of spare rows, behind which the column of the mean stands
        old = source.indices[entries]
        old = np.where(old == source.old_rows, self._inputs.old_rows, old)
        self.many(
            [tokens[place] for place in sums.tolist()], indptr, old, source.values[entries],
            [reasons[place] for place in sums.tolist()], scaled=False,
        )  # fmt: skip
        for part in source.dense:
            at = {line: place for place, line in enumerate(part.lines.tolist())}
            mine = [place for place, line in enumerate(lines.tolist()) if line in at]
            self.dense(
                [tokens[place] for place in mine], part.vectors[[at[int(lines[place])] for place in mine]],
                [reasons[place] for place in mine], matrix=part.matrix, offset=part.offset,
            )  # fmt: skip
        for place in np.flatnonzero(source.noise[lines]).tolist():
            line, own = int(lines[place]), self._place[tokens[place].id]
            self._noise[own], self._correlated[own] = source.noise[line], source.correlated[line]
            self._keys[own] = int(source.noise_keys[line][0]), int(source.noise_keys[line][1])

    def _claim(self, token: NewToken, why: str) -> int:
        """The place of a token, which must not have a line yet."""
        place = self._place[token.id]
        if self._why[place] is not None:
            raise LangadaptError(f"`{self._method}` gave token {token.id} two rows")
        self._why[place] = why
        return place

    def _claim_all(self, tokens: Sequence[NewToken], why: str | Sequence[str]) -> Ints:
        reasons = [why] * len(tokens) if isinstance(why, str) else why
        places = [self._claim(token, reason) for token, reason in zip(tokens, reasons, strict=True)]
        return np.array(places, dtype=np.int64)

    def build(self) -> RowMap:
        """The finished map; an error of the method if a token has no line."""
        missing = [token.piece for token, why in zip(self._tokens, self._why, strict=True) if why is None]
        if missing:
            raise LangadaptError(f"`{self._method}` gave no row to {len(missing)} tokens, such as `{missing[0]}`")
        groups = [*self._lines, self._singles()]
        sizes = np.zeros(len(self._tokens), dtype=np.int64)
        for lines in groups:
            sizes[lines.places] = np.diff(lines.indptr)
        indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        indices, values = np.zeros(indptr[-1], dtype=np.int64), np.zeros(indptr[-1], dtype=np.float32)
        for lines in groups:
            # entry e of line i goes to where line i begins in the whole map, plus its place in the line
            shift = np.repeat(indptr[lines.places] - lines.indptr[:-1], np.diff(lines.indptr))
            to = np.arange(len(lines.indices)) + shift
            indices[to], values[to] = lines.indices, lines.values
        if len(indices) and not 0 <= indices.min() <= indices.max() <= self._inputs.old_rows:
            raise LangadaptError(f"`{self._method}` named a row that the base does not have")
        keys = [self._noise_key(place, token) for place, token in enumerate(self._tokens)]
        return RowMap(
            new_ids=np.array([token.id for token in self._tokens], dtype=np.int64),
            old_rows=self._inputs.old_rows,
            population=self._inputs.population,
            indptr=indptr,
            indices=indices,
            values=values,
            noise=self._noise,
            correlated=self._correlated,
            noise_keys=np.array(keys, dtype=np.uint64).reshape(-1, 2),
            provenance=tuple(self._notes(indptr, indices, values)),
            dense=tuple(self._dense),
            measured=self._measured,
        )

    def _noise_key(self, place: int, token: NewToken) -> tuple[int, int]:
        """The two halves of the key of a line's stream; zeros for a line without noise."""
        if place in self._keys or not self._noise[place]:
            return self._keys.get(place, (0, 0))
        key = stream_key(self._inputs.seed, "row", self._inputs.role, token.content.hex())
        return key & (2**64 - 1), key >> 64

    def _singles(self) -> _Lines:
        lengths = [len(ids) for _, ids, _ in self._single]
        return _Lines(
            np.array([place for place, _, _ in self._single], dtype=np.int64),
            np.cumsum([0, *lengths], dtype=np.int64),
            np.array([id for _, ids, _ in self._single for id in ids], dtype=np.int64),
            np.array([weight for _, _, weights in self._single for weight in weights], dtype=np.float32),
        )

    def _notes(self, indptr: Ints, indices: Ints, values: Floats) -> list[dict[str, Any]]:
        """Provenance of each line: the token, why, and the pieces; of a long line the heaviest ones."""
        notes = []
        for place, token in enumerate(self._tokens):
            part = slice(indptr[place], indptr[place + 1])
            ids = indices[part]
            note: dict[str, Any] = {
                "id": token.id,
                "piece": token.piece,
                "hex": token.content.hex(),
                "method": self._method,
                "why": self._why[place],
            }
            if len(ids) > MOST_PIECES:
                note["of"] = len(ids)
                ids = ids[np.argsort(-np.abs(values[part]), kind="stable")[:MOST_PIECES]]
            note["pieces"] = [self._inputs.base.piece(id) for id in ids.tolist() if id != self._inputs.old_rows]
            notes.append(note)
        return notes
