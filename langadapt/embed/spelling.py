"""The old tokens that a new token is made of."""

from collections.abc import Iterable

from langadapt.core.types import NewToken
from langadapt.embed.builder import RowMapBuilder
from langadapt.embed.inputs import InitInputs


def pieces_of(inputs: InitInputs, token: NewToken, *, skip_bare_space: bool) -> list[int]:
    """Old ids that spell the token, first to last; empty if the base tokenizer cannot spell it."""
    pieces = inputs.base.spell(token.content)
    if skip_bare_space and len(pieces) > 1:
        # never all of them: a token of spaces alone keeps its pieces
        pieces = [id for id in pieces if inputs.base.bytes_of(id) != b" "] or pieces
    return pieces


def spelled(rows: RowMapBuilder, inputs: InitInputs, tokens: Iterable[NewToken], why: str) -> None:
    """The mean of their pieces for tokens that a method cannot build, or the mean of all text rows without pieces."""
    for token in tokens:
        pieces = pieces_of(inputs, token, skip_bare_space=True)
        if pieces:
            rows.mean(token, pieces, f"{why}: mean of its pieces")
        else:
            rows.fallback(token, f"{why}, and the base tokenizer cannot spell it")
