"""Names of what all methods handle: arrays, which table rows are for, and a tokenizer as far as they ask it."""

from typing import Any, Literal, Protocol

import numpy as np

Role = Literal["input", "head", "tied"]
Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


class Vocabulary(Protocol):
    """What a method may ask of a tokenizer."""

    def spell(self, content: bytes) -> list[int]: ...
    def bytes_of(self, id: int) -> bytes: ...
    def piece(self, id: int) -> str: ...
