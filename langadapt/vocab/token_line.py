"""What every line of vocab_map.jsonl says of a new token."""

from langadapt.core.types import NewToken


def line_of(token: NewToken) -> dict[str, object]:
    """Id, string, bytes, how often the text ends with it, and where it comes from."""
    return {
        "id": token.id,
        "piece": token.piece,
        "hex": token.content.hex(),
        "count": token.count,
        "reason": token.reason,
    }
