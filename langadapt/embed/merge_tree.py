"""Average along the merges that make the new token: its left part is half of the row, its right part the other half"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from langadapt.core.config import Options as BaseOptions
from langadapt.core.errors import ConfigError
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap
from langadapt.embed.spelling import spelled
from langadapt.embed.types import Vocabulary
from langadapt.model.bare_model import merges_of

# Old id -> its weight in a row; the weights sum to 1.
Weights = dict[int, float]


class Options(BaseOptions):
    """Which parts count."""

    skip_bare_space: bool = False
    """A token that is merged of a lone space and a word gets the row of the word, and not half of the space's."""


@method(
    needs=("base_tokenizer", "target_tokenizer"),
    laws=("linear", "convex", "local"),
    cite="Yamaguchi et al. 2024, How Can We Effectively Expand the Vocabulary of LLMs with 0.01GB of Target Language "
    "Text? (Merge)",
)
def merge_tree(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = (row(a) + row(b)) / 2, where (a, b) is the merge that makes it.

    row(a) is the row that a keeps, or made in the same way. A token that several merges make gets the mean over them,
    one that none makes the mean of its pieces.
    """
    rows = RowMapBuilder(inputs, "merge-tree")
    tokens = sorted(inputs.new_tokens, key=lambda token: token.id)
    if not tokens:
        return rows.build()
    parts = _parts(inputs)
    weights = _weights(inputs, parts, [token.id for token in tokens], options.skip_bare_space)
    made = [token for token in tokens if token.id in parts and weights[token.id]]
    lines = [weights[token.id] for token in made]
    ids = [id for line in lines for id in line]
    values = [weight for line in lines for weight in line.values()]
    rows.many(made, np.cumsum([0, *map(len, lines)]), ids, values, "merges")
    there = {token.id for token in made}
    spelled(rows, inputs, [token for token in tokens if token.id not in there], "no merge")
    return rows.build()


def _parts(inputs: InitInputs) -> dict[int, list[tuple[int, int]]]:
    """The (left, right) ids of every merge that makes a token, by the token's id; ConfigError without merges."""
    model = json.loads(inputs.target_tokenizer().to_str())["model"]
    if model["type"] != "BPE":
        raise ConfigError(
            f"`merge-tree` follows the merges of the new tokenizer, and {model['type']} has none",
            where="method",
            hint="`position-weighted` and `subtoken-mean` take the pieces of a token, whatever made it",
        )
    ids: dict[str, int] = model["vocab"]
    found: dict[int, list[tuple[int, int]]] = {}
    for left, right in merges_of(model, Path("tokenizer.json")):
        found.setdefault(ids[left + right], []).append((ids[left], ids[right]))
    return found


def _weights(
    inputs: InitInputs, parts: dict[int, list[tuple[int, int]]], wanted: Sequence[int], skip_bare_space: bool
) -> dict[int, Weights]:
    """Weights over old rows of the wanted new ids and of all they are merged of; none of what no old row can make."""
    target = inputs.target or inputs.base
    old, new = inputs.anchors()
    # of two old tokens that became one, the lower
    kept = dict(zip(new[::-1].tolist(), old[::-1].tolist(), strict=True))
    needed: set[int] = set()
    waiting = list(wanted)
    while waiting:
        if (id := waiting.pop()) not in needed:
            needed.add(id)
            waiting += [part for pair in parts.get(id, ()) for part in pair] if id not in kept else []
    found: dict[int, Weights] = {}
    # a token is longer than its parts, so these come first; a recursion would be as deep as the longest token
    for id in sorted(needed, key=lambda id: (len(target.piece(id)), id)):
        if id in kept:
            found[id] = {kept[id]: 1.0}
        elif id in parts:
            merges = [[found[part] for part in _counted(pair, target, skip_bare_space)] for pair in parts[id]]
            found[id] = _mean([_mean(both) for both in merges if all(both)])
        else:
            pieces = inputs.base.spell(target.bytes_of(id))
            found[id] = _mean([{piece: 1.0} for piece in pieces])
    return found


def _counted(pair: tuple[int, int], target: Vocabulary, skip_bare_space: bool) -> list[int]:
    """The parts that count; of two spaces both do."""
    words = [part for part in pair if target.bytes_of(part) != b" "] if skip_bare_space else []
    return words or list(pair)


def _mean(several: Sequence[Weights]) -> Weights:
    total: Weights = {}
    for weights in several:
        for id, weight in weights.items():
            total[id] = total.get(id, 0.0) + weight / len(several)
    return total
