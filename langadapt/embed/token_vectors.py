"""Vectors of the new tokenizer's tokens themselves, learned from text that it has cut: FOCUS's auxiliary space."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from langadapt.embed.fasttext_process import END_OF_LINE
from langadapt.embed.inputs import InitInputs
from langadapt.embed.types import Floats, Ints, Vocabulary
from langadapt.embed.vectors import learned

_TEXTS_AT_A_TIME = 256


def token_vectors(
    inputs: InitInputs, ids: Sequence[int], settings: dict[str, Any], most_bytes: int
) -> "tuple[Floats, np.ndarray[tuple[int], np.dtype[np.bool_]]]":
    """(vectors [ids, dim], which of them were learned) for ids of the new tokenizer.

    A token has a vector if it occurs `settings["minCount"]` times in the first `most_bytes` of the corpus. The model is
    fastText's, so a token's vector also has a part of its letter n-grams.
    """
    target = inputs.target
    if target is None:
        return np.zeros((len(ids), 1), dtype=np.float32), np.zeros(len(ids), dtype=np.bool_)
    digests = inputs.given.digests
    source = {"corpus": digests.get("corpus", ""), "tokenizer": digests.get("tokenizer", ""), "bytes": most_bytes}
    found = learned(_lines(inputs, target, most_bytes), settings, source | {"tokens": 1}, inputs.progress, "tokens")
    index = found.index()
    places: Ints = np.array([index.get(name_of(target.bytes_of(id)), -1) for id in ids], dtype=np.int64)
    known = places >= 0
    vectors = found.table[np.maximum(places, 0)]
    vectors[~known] = 0
    return vectors, known


def _lines(inputs: InitInputs, target: Vocabulary, most_bytes: int) -> Iterator[str]:
    """Each text as its tokens between blanks."""
    tokenizer = inputs.target_tokenizer()
    names: dict[int, str] = {}
    texts = _until(inputs.corpus(), most_bytes)
    while block := list(islice(texts, _TEXTS_AT_A_TIME)):
        for encoding in tokenizer.encode_batch(block, add_special_tokens=False):
            for id in encoding.ids:
                if id not in names:
                    names[id] = name_of(target.bytes_of(id))
            yield " ".join(names[id] for id in encoding.ids)


def _until(texts: Iterator[str], most_bytes: int) -> Iterator[str]:
    taken = 0
    for text in texts:
        taken += len(text.encode())
        if taken > most_bytes:
            return
        yield text


def name_of(content: bytes) -> str:
    """A token as a word without white space: its text with `▁` for spaces, or its bytes in hexadecimal."""
    try:
        text = content.decode().replace(" ", "▁")
    except UnicodeDecodeError:
        return f"0x{content.hex()}"
    plain = text.isprintable() and text not in ("", END_OF_LINE) and not text.startswith("0x") and not text.isspace()
    return text if plain else f"0x{content.hex()}"
