"""Vectors of words: what a .vec file holds, or a trained model; and vectors of tokens made of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from langadapt.core.errors import ConfigError
from langadapt.core.progress import Progress
from langadapt.embed.inputs import Floats


@dataclass(frozen=True)
class WordVectors:
    """`words` by falling frequency, `table` [words, width] in float32 in the same order."""

    words: Sequence[str] = field(repr=False)
    table: Floats = field(repr=False)

    @property
    def width(self) -> int:
        """Dimensions of a vector."""
        return int(self.table.shape[1])

    def places(self, words: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """The line of each word in `table`, -1 for a word that is not there."""
        index = {word: place for place, word in reversed(list(enumerate(self.words)))}
        return np.array([index.get(word, -1) for word in words], dtype=np.int64)


def open_vectors(path: Path, digest: str, texts: Callable[[], Iterator[str]], progress: Progress) -> WordVectors:
    """Vectors of a .vec or .bin file, or trained on `texts` where the path is neither."""
    raise ConfigError(f"`{path}`: word vectors cannot be read yet")
