"""A linear map from a helper model with the new tokenizer to the base, fitted on the tokens that both have"""

from typing import Literal

from pydantic import Field

from langadapt.core.config import Options as BaseOptions
from langadapt.core.registry import method
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.fitting import Fit, Flags, fit, held_out_cosine
from langadapt.embed.helper_space import helper_space
from langadapt.embed.inputs import InitInputs
from langadapt.embed.rowmap import RowMap


class Options(BaseOptions):
    """How the map is fitted."""

    align: Literal["ridge", "ortho", "sgd"] = "ridge"
    """Least squares with a penalty; a rotation of standardised rows; or the published gradient descent (slow)."""

    penalty: float | None = Field(default=None, ge=0)
    """Of `ridge`, in sums of squares of a helper dimension over the anchors; by default leave-one-out chooses."""

    steps: int = Field(default=1000, ge=1, le=100_000)
    """Of `sgd`: steps of Adam over all anchors."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """Of `sgd`."""

    folds: int = Field(default=5, ge=0, le=20)
    """Parts for the held-out cosine of anchors in the facts; 0: none. `sgd` is repeated as often."""


@method(
    needs=("helper", "base_rows", "base_tokenizer"),
    laws=("linear", "local"),
    cite="Moroni et al. 2025, Optimizing LLMs for Italian, through Vocabulary Adaptation (SAVA)",
)
def sava(inputs: InitInputs, options: Options) -> RowMap:
    """Row of a new token = (g_new - centre of G) M + centre of E, M fitted so that it gives E_o from G_o of shared o.

    G are rows of the helper. The facts have the cosine between true and predicted rows of anchors that were hidden:
    what the map knows of tokens that it has not seen.
    """
    rows = RowMapBuilder(inputs, "sava")
    space = helper_space(inputs, rows)
    if not space.tokens:
        return rows.build()
    old = inputs.base_rows(space.old)

    def fitted(some: "Flags | slice", penalty: float | None) -> Fit:
        random = inputs.stream("sava", options.align)
        return fit(
            space.shared[some], old[some], options.align, random,
            penalty=penalty, steps=options.steps, rate=options.learning_rate,
        )  # fmt: skip

    whole = fitted(slice(None), options.penalty)
    vectors = whole.vectors(space.new)
    rows.dense(space.tokens, vectors, "mapped from the helper", matrix=whole.matrix, offset=whole.offset)
    rows.measured(anchors=len(space.old))
    if whole.penalty is not None:
        rows.measured(penalty=float(f"{whole.penalty:.3g}"))
    if options.folds > 1 and len(space.old) >= 2 * options.folds:
        cosine = held_out_cosine(lambda some: fitted(some, whole.penalty), space.shared, old, options.folds)
        rows.measured(held_out_cosine=round(cosine, 4))
        inputs.progress.note(f"rows of hidden anchors are predicted with a cosine of {cosine:.3f}")
    return rows.build()
