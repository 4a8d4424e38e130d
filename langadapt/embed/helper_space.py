"""New and shared tokens as a helper sees them: what the methods that use a helper begin with."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from langadapt.core.types import NewToken
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import Floats, InitInputs, Ints
from langadapt.embed.spelling import spelled


@dataclass(frozen=True)
class HelperSpace:
    """Helper rows of `tokens` in `new` [n, d], and of the shared text tokens `old` [m] (base ids) in `shared` [m, d].

    Of the helper's head where the rows are for a head. `lacking` are new tokens without a row there, or a zero one.
    """

    tokens: Sequence[NewToken]
    new: Floats = field(repr=False)
    old: Ints = field(repr=False)
    shared: Floats = field(repr=False)
    lacking: Sequence[NewToken] = field(repr=False)
    why: str = "the helper lacks it"

    def give_up(self, rows: RowMapBuilder, inputs: InitInputs) -> None:
        """The mean of their pieces for the tokens that the helper does not help with."""
        spelled(rows, inputs, self.lacking, self.why)


def helper_space(inputs: InitInputs) -> HelperSpace:
    """Ask the helper. Special tokens are no anchors. Without shared tokens all new ones are `lacking`."""
    tokens = sorted(inputs.new_tokens, key=lambda token: token.id)
    helper = inputs.helper()
    old, ids = inputs.anchors()
    there = helper.row_of[ids] >= 0
    old, shared = old[there], helper.rows(ids[there], inputs.role)
    alive = np.abs(shared).sum(axis=1) > 0
    old, shared = old[alive], shared[alive]
    if not len(old):
        if tokens:
            inputs.progress.warn("the helper and the base model share no tokens: new ones get the mean of their pieces")
        return HelperSpace([], shared[:0], old, shared, tokens, "no shared tokens")
    places = np.flatnonzero(helper.row_of[[token.id for token in tokens]] >= 0) if tokens else np.zeros(0, np.int64)
    new = helper.rows(np.array([tokens[place].id for place in places.tolist()], dtype=np.int64), inputs.role)
    alive = np.abs(new).sum(axis=1) > 0
    kept = places[alive].tolist()
    lacking = np.setdiff1d(np.arange(len(tokens)), kept).tolist()
    return HelperSpace([tokens[place] for place in kept], new[alive], old, shared, [tokens[place] for place in lacking])
