"""Held-out split by content: adding text later never moves an old document, and copies stay on one side."""

PARTS = 10_000


def is_held_out(content_low: int, share: float) -> bool:
    """`content_low` is the low half of `dedup.content_hash`; `share` is a fraction with a resolution of 1/10,000."""
    return content_low % PARTS < round(share * PARTS)
