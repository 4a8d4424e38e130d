"""What one model of strategy_quality.py is worth: the segments and questions of `evaluate`, without a second model.

`evaluate` scores its base each time; thirty cells have the same one.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    from langadapt.model.score import score_texts
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
        found = score_texts(model, tokenizer, chosen.scored_texts(_CONTEXT_BYTES), prefix_id=prefix, compute=compute)
        segments = [segment for one in found for segment in one.segments]
        sets[name] = {
            "bytes": [segment.bytes for segment in segments],
            "nats": [round(segment.nll, 4) for segment in segments],
        }
    asked = answer(model, tokenizer, questions(seed=SEED), prefix_id=prefix, compute=compute)
    return {"sets": sets, "icl": round(math.fsum(each.bits for each in asked) / len(asked), 4)}


def kept(path: Path, folder: Path, separator: str, corpora: Mapping[str, Path], set_bytes: int) -> dict[str, Any]:
    """What `path` holds of an earlier call, else `scores_of`, written there."""
    asked = [separator, set_bytes]
    if path.is_file():
        there: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if there["asked"] == asked:
            return there
    found = {"asked": asked, **scores_of(folder, separator, corpora, set_bytes)}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(found), encoding="utf-8")
    unfinished.replace(path)
    return found
