"""The old tokens that a new token is made of."""

from langadapt.core.types import NewToken
from langadapt.embed.rowmap import InitInputs


def pieces_of(inputs: InitInputs, token: NewToken, *, skip_bare_space: bool) -> list[int]:
    """Old ids that spell the token, first to last; empty if the base tokenizer cannot spell it."""
    pieces = inputs.base.spell(token.content)
    if skip_bare_space and len(pieces) > 1:
        # never all of them: a token of spaces alone keeps its pieces
        pieces = [id for id in pieces if inputs.base.bytes_of(id) != b" "] or pieces
    return pieces
