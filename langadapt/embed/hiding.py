"""Tokens whose rows are known, given to a method as if they were new: how near does it come to the true rows?"""

import hashlib
import math
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from langadapt.core.types import NewToken
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap
from langadapt.embed.types import Floats, Ints
from langadapt.model.token_table import TokenTable
from langadapt.model.without import table_without, tokenizer_without

# A hundred would do for a share; of a large vocabulary more than this only cost time.
MOST = 2000
# Rows whose cosines to the whole table are in memory together.
_BLOCK = 128
_DIGITS = 4


@dataclass(frozen=True)
class Hidden:
    """`old` [n] and `new` [n]: ids of the hidden tokens in either tokenizer, by ascending new id.

    `base` is the base's table of tokens without them.
    """

    old: Ints
    new: Ints
    tokens: tuple[NewToken, ...] = field(repr=False)
    base: TokenTable = field(repr=False)

    def from_method(self, inputs: InitInputs, *, alone: bool) -> InitInputs:
        """`inputs` as if the base had never had the hidden tokens.

        They keep no row, count in no mean, and the base tokenizer cuts no text into them. `alone`: the truly new tokens
        are left out, which changes nothing for a method whose rows do not depend on each other.
        """
        gone = set(self.old.tolist())
        others = () if alone else tuple(inputs.new_tokens)
        without = cache(lambda: tokenizer_without(self.base, gone))
        mark = hashlib.blake2b(np.ascontiguousarray(self.old).tobytes(), digest_size=8).hexdigest()
        # what a method keeps in the cache of the base's tokens may not be found by a run that hides none
        digests = {name: f"{digest}-{mark}" if name == "model" else digest
                   for name, digest in inputs.given.digests.items()}  # fmt: skip
        return replace(
            inputs,
            base=self.base,
            new_tokens=tuple(sorted((*others, *self.tokens), key=lambda token: token.id)),
            kept={old: new for old, new in inputs.kept.items() if old not in gone},
            population=np.setdiff1d(inputs.population, self.old),
            given=replace(inputs.given, base_tokenizer=without, digests=digests),
        )


def hide(inputs: InitInputs, base: TokenTable, target: TokenTable, share: float) -> Hidden:
    """Choose `share` of the text tokens that both tokenizers have, by a hash of seed and bytes: at most MOST.

    Tokens that the base cannot spell without them (its letters) stay as they are.
    """
    both = [
        (old, new)
        for old, new in zip(*(ids.tolist() for ids in inputs.anchors()), strict=True)
        if target.kind_of(new) == "text" and len(target.bytes_of(new)) > 1
    ]
    ranked = sorted(both, key=lambda pair: _rank(inputs.seed, target.bytes_of(pair[1]), target.piece(pair[1])))
    chosen = dict(ranked[: min(MOST, math.ceil(share * len(both)))])
    without = table_without(base, chosen)
    usable = []
    for old, new in chosen.items():
        pieces = without.spell(base.bytes_of(old))
        if pieces and not chosen.keys() & set(pieces):
            usable.append((new, old))
    usable.sort()
    old_ids = np.array([old for _, old in usable], dtype=np.int64)
    new_ids = np.array([new for new, _ in usable], dtype=np.int64)
    tokens = tuple(NewToken(new, target.piece(new), target.bytes_of(new), 0, "hidden") for new in new_ids.tolist())
    return Hidden(old_ids, new_ids, tokens, table_without(base, set(old_ids.tolist())))


def _rank(seed: int, content: bytes, piece: str) -> bytes:
    text = b"\x1f".join([str(seed).encode(), b"hidden", content, piece.encode()])
    return hashlib.blake2b(text, digest_size=16).digest()


def looked(rows: RowMap, hidden: Hidden) -> int:
    """Hidden tokens whose line in the map is made with a hidden row: a method that was not to see it has seen it."""
    lines = np.flatnonzero(np.isin(rows.new_ids, hidden.new))
    parts = (rows.indices[rows.indptr[line] : rows.indptr[line + 1]] for line in lines.tolist())
    return sum(bool(np.isin(part, hidden.old).any()) for part in parts)


def recovery(rows: RowMap, hidden: Hidden, table: Floats, population: Ints) -> dict[str, Any]:
    """How near the made rows of hidden tokens come to the true ones in the base table [rows, width].

    `cosine` is the mean to the true row, `cosine_of_mean` that of the mean row of all text tokens: what nothing known
    would give. The true row's rank is its place among all text rows by cosine to the made one (those as near count as
    nearer): `top1` and `top10` are shares of tokens, `median_rank` is of `among`.
    """
    lines = np.searchsorted(rows.new_ids, hidden.new)
    if not len(lines):
        return {"tokens": 0, "among": len(population)}
    made = _directions(rows.apply(table)[lines])
    keys = _directions(table[population])
    places = np.searchsorted(population, hidden.old)
    cosines, ranks = [], []
    for start in range(0, len(made), _BLOCK):
        found = made[start : start + _BLOCK] @ keys.T
        own = found[np.arange(len(found)), places[start : start + _BLOCK]]
        cosines.append(own)
        ranks.append((found >= own[:, None]).sum(axis=1))
    rank = np.concatenate(ranks)
    mean = _directions(table[rows.population].mean(axis=0, dtype=np.float64).astype(np.float32)[None])
    return {
        "tokens": len(made),
        "among": len(keys),
        "cosine": round(float(np.concatenate(cosines).mean()), _DIGITS),
        "cosine_of_mean": round(float((keys[places] @ mean.T).mean()), _DIGITS),
        "top1": round(float((rank == 1).mean()), _DIGITS),
        "top10": round(float((rank <= 10).mean()), _DIGITS),
        "median_rank": float(np.median(rank)),
    }


def _directions(rows: Floats) -> Floats:
    """Rows of length 1, in the memory of `rows`; a row of zeros stays."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows /= np.where(lengths > 0, lengths, 1)[:, None]
    return rows
