"""Bits per byte of an n-gram model over bytes that has seen nothing but the user's text: a line to compare models with.

A language model that is worse than this has less of the language in it than a few hundred kB of text have. The text is
of the same domain as what is scored, which favours the n-grams.
"""

import math
from collections.abc import Iterable, Sequence

# Hungarian help texts, bits per byte by bytes read: 100 kB 2.41, 300 kB 2.10, 1 MB 1.88 (13 s). Order 5 is better
# from 1 MB on only.
ORDER = 4
MAX_BYTES = 300_000
# With less the line is too easy to beat.
LEAST_BYTES = 100_000


def ngram_bits(
    train: Iterable[str], test: Sequence[str], order: int = ORDER, *, least_bytes: int = LEAST_BYTES
) -> float | None:
    """Witten-Bell interpolation from a uniform byte up to `order` bytes of context; None with too little to train on.

    p_k(b | c) = (n(c, b) + t(c) p_{k-1}(b | c')) / (n(c) + t(c)), with t(c) the number of different bytes seen after c
    (Witten and Bell 1991, method C). Every test text is scored from its beginning, and must not be in `train`.
    """
    follow: list[dict[bytes, dict[int, int]]] = [{} for _ in range(order + 1)]
    left = MAX_BYTES
    for text in train:
        content = text.encode()[:left]
        left -= len(content)
        for at, byte in enumerate(content):
            for length in range(min(order, at) + 1):
                seen = follow[length].setdefault(content[at - length : at], {})
                seen[byte] = seen.get(byte, 0) + 1
        if left <= 0:
            break
    if MAX_BYTES - left < least_bytes or not any(test):
        return None
    size, bits = 0, 0.0
    for text in test:
        content = text.encode()
        size += len(content)
        for at, byte in enumerate(content):
            share = 1 / 256
            for length in range(min(order, at) + 1):
                after = follow[length].get(content[at - length : at])
                if after is None:
                    break  # a longer context has not been seen either
                total, kinds = sum(after.values()), len(after)
                share = (after.get(byte, 0) + kinds * share) / (total + kinds)
            bits -= math.log2(share)
    return bits / size
