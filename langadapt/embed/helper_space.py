"""New and shared tokens as a helper sees them: what the methods that use a helper begin with."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from langadapt.core.types import NewToken
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.fitting import Fit, Flags, fit, held_out_cosine
from langadapt.embed.inputs import InitInputs
from langadapt.embed.spelling import spelled
from langadapt.embed.types import Floats, Ints

# Parts in which anchors are hidden, for the quality of a learned helper.
_FOLDS = 5


@dataclass(frozen=True)
class HelperSpace:
    """Helper rows of `tokens` in `new` [n, d], and of the shared text tokens `old` [m] (base ids) in `shared` [m, d].

    Of the helper's head where the rows are for a head. None of these rows is zero.
    """

    tokens: Sequence[NewToken]
    new: Floats = field(repr=False)
    old: Ints = field(repr=False)
    shared: Floats = field(repr=False)


def helper_space(inputs: InitInputs, rows: RowMapBuilder) -> HelperSpace:
    """Ask the helper; new tokens that it lacks, or has as zeros, get the mean of their pieces in `rows`.

    Special tokens are no anchors. Without shared tokens the helper is of no use, and all new ones are such tokens. How
    good a helper is that was learned from the corpus is said and measured: nobody has used it before.
    """
    tokens = sorted(inputs.new_tokens, key=lambda token: token.id)
    helper = inputs.helper()
    old, ids = inputs.anchors()
    there = helper.row_of[ids] >= 0
    old, shared = old[there], helper.rows(ids[there], inputs.role)
    alive = np.abs(shared).sum(axis=1) > 0
    old, shared = old[alive], shared[alive]
    if not len(old) or not tokens:
        if tokens:
            inputs.progress.warn("the helper and the base model share no tokens: new ones get the mean of their pieces")
        spelled(rows, inputs, tokens, "no shared tokens")
        return HelperSpace([], shared[:0], old, shared)
    places = np.flatnonzero(helper.row_of[[token.id for token in tokens]] >= 0)
    new = helper.rows(np.array([tokens[place].id for place in places.tolist()], dtype=np.int64), inputs.role)
    alive = np.abs(new).sum(axis=1) > 0
    kept = places[alive].tolist()
    lacking = np.setdiff1d(np.arange(len(tokens)), kept).tolist()
    spelled(rows, inputs, [tokens[place] for place in lacking], "the helper lacks it")
    if helper.learned:
        _say_quality(inputs, rows, shared, old)
    return HelperSpace([tokens[place] for place in kept], new[alive], old, shared)


def _say_quality(inputs: InitInputs, rows: RowMapBuilder, shared: Floats, old: Ints) -> None:
    """The cosine between true rows of hidden anchors and those that a linear map predicts from the helper."""
    if len(old) < 2 * _FOLDS:
        return
    true = inputs.base_rows(old)
    random = inputs.stream("quality of the helper")
    # choosing the penalty is most of the work: once for all parts
    penalty = fit(shared, true, "ridge", random).penalty

    def fitted(some: Flags) -> Fit:
        return fit(shared[some], true[some], "ridge", random, penalty=penalty)

    cosine = held_out_cosine(fitted, shared, true, _FOLDS)
    rows.measured(helper_width=int(shared.shape[1]), helper_anchors=len(old), helper_cosine=round(cosine, 4))
    inputs.progress.note(f"the learned helper predicts rows of hidden shared tokens with a cosine of {cosine:.3f}")
