"""Named random streams: every use has its own generator, so adding one never changes another."""

import hashlib

import numpy as np


def stream_key(seed: int, purpose: str, *index: int | str) -> int:
    """128-bit key of the stream (seed, purpose, index...)."""
    text = "\x1f".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def stream(seed: int, purpose: str, *index: int | str) -> np.random.Generator:
    """A Philox generator for one purpose, e.g. `stream(7, "row", token_hex)`."""
    return np.random.Generator(np.random.Philox(key=stream_key(seed, purpose, *index)))
