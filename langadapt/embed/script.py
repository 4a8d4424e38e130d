"""Means of the old tokens of the same writing system, kind and place in a word: a start for what nothing is known of"""

from collections import Counter

import numpy as np
from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap
from langadapt.embed.script_groups import Group, group_of, wider
from langadapt.embed.types import Floats, Ints

# Rows of a group that are summed at a time.
_ROWS_AT_A_TIME = 8192


class Options(BaseOptions):
    """How large a group must be, and how far rows stand from its mean."""

    min_tokens: int = Field(default=20, ge=1)
    """Old tokens that a group must have; a smaller one gives way to the next wider."""

    scale: float = Field(default=0.1, ge=0)
    """Standard deviations of the old rows that are drawn on top in each dimension, to tell tokens apart; 0: none."""


@method(
    needs=("base_tokenizer", "base_rows"),
    laws=("linear", "local"),
    cite="Downey et al. 2023, Embedding structure matters: Comparing methods to adapt multilingual vocabularies",
)
def script(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = mean of the old text tokens of its script, kind and place in a word, plus a little noise.

    Of groups with few old tokens the place is left out, then the kind, then the script. Every token has a stream of its
    own, keyed by its bytes.
    """
    rows = RowMapBuilder(inputs, "script")
    tokens = sorted(inputs.new_tokens, key=lambda token: token.id)
    if not tokens:
        return rows.build()
    members = _members(inputs)
    large = {group: ids for group, ids in members.items() if len(ids) >= options.min_tokens}
    chosen = [next((group for group in wider(group_of(token.content)) if group in large), None) for token in tokens]
    groups = sorted({group for group in chosen if group is not None})
    place = {group: number for number, group in enumerate(groups)}
    made = [(token, group) for token, group in zip(tokens, chosen, strict=True) if group is not None]
    if made:
        means = np.stack([_mean(inputs, large[group]) for group in groups])
        which = np.zeros((len(made), len(groups)), dtype=np.float32)
        which[np.arange(len(made)), [place[group] for _, group in made]] = 1
        why = [f"mean of {group.named}" for _, group in made]
        rows.dense([token for token, _ in made], which, why, matrix=means, noise=options.scale)
    for token, group in zip(tokens, chosen, strict=True):
        if group is None:
            rows.fallback(token, "no group has enough old tokens")
    rows.measured(groups=len(groups), largest=max(Counter(group for _, group in made).values(), default=0))
    return rows.build()


def _members(inputs: InitInputs) -> dict[Group, Ints]:
    """Old text tokens of every group, in groups of all widths."""
    found: dict[Group, list[int]] = {}
    for id in inputs.population.tolist():
        for group in wider(group_of(inputs.base.bytes_of(id))):
            found.setdefault(group, []).append(id)
    return {group: np.array(ids, dtype=np.int64) for group, ids in found.items()}


def _mean(inputs: InitInputs, ids: Ints) -> Floats:
    """Mean of some base rows, summed in float64."""
    total = sum(
        inputs.base_rows(ids[start : start + _ROWS_AT_A_TIME]).sum(axis=0, dtype=np.float64)
        for start in range(0, len(ids), _ROWS_AT_A_TIME)
    )
    return np.asarray(total / len(ids), dtype=np.float32)
