"""What one model of strategy_quality.py is worth: the segments and questions of `evaluate`, without a second model.

`evaluate` scores its base each time; thirty cells have the same one.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.cells import segment_scores

# Half of what `evaluate` gives a segment to see: cells are many.
_CONTEXT_BYTES = 600
_SEGMENT_BYTES = 600


def scores_of(folder: Path, separator: str, corpora: Mapping[str, Path], set_bytes: int) -> dict[str, Any]:
    """Bytes and nats of every segment, by set, and bits a question on in-context learning.

    The same segments for every model: chosen by a hash of the text, with the name of its set.
    """
    from langadapt.corpus.store import documents
    from langadapt.evaluate.icl import answer, questions
    from langadapt.evaluate.segments import choose_segments
    from langadapt.model.compute import choose_device, resolve_compute
    from langadapt.model.load import load_model, load_tokenizer
    from langadapt.steps._icl import SEED

    device = choose_device()
    compute = resolve_compute("auto", device)
    model, tokenizer = load_model(folder).to(device), load_tokenizer(folder)
    prefix = tokenizer.get_vocab()[separator]
    sets: dict[str, Any] = {}
    for name, corpus in corpora.items():
        chosen = choose_segments(
            documents(corpus, "held-out"), set_bytes=set_bytes, segment_bytes=_SEGMENT_BYTES, seed=0, name=name
        )
        sets[name] = segment_scores(model, tokenizer, chosen.scored_texts(_CONTEXT_BYTES), prefix, compute)
    asked = answer(model, tokenizer, questions(seed=SEED), prefix_id=prefix, compute=compute)
    return {"sets": sets, "icl": round(math.fsum(each.bits for each in asked) / len(asked), 4)}
