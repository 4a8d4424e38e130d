"""How often words end with each token."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all

# Words cut at once: bounds the memory of the library's results (about 1 kB a word).
_BATCH = 20_000


def uses_on(base: TokenizerFile, words: Mapping[str, int]) -> Counter[int]:
    """Uses of each token that words with counts end with; 0 for all others."""
    types, model = sorted(words), base.model_stage()
    totals = np.zeros(base.next_id, np.int64)
    for start in range(0, len(types), _BATCH):
        part = types[start : start + _BATCH]
        cut = list(encode_all(model, part))
        ids = np.fromiter((number for segment in cut for number in segment), np.int64)
        weights = np.repeat([words[word] for word in part], [len(segment) for segment in cut])
        np.add.at(totals, ids, weights.astype(np.int64))
    return Counter({number: int(totals[number]) for number in np.flatnonzero(totals).tolist()})
