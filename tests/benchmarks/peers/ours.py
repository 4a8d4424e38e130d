"""langadapt beside them: python -m tests.benchmarks.peers.ours OUT TOKENS.bin|- FLAGS OF init-embeddings...

With TOKENS.bin, `focus` takes the vectors of that file, which are what its peer gets, instead of learning its own.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from langadapt.core import registry
from langadapt.core.host import peak_memory_bytes


def main(out: str, tokens_bin: str, *flags: str) -> None:
    load, taken = registry.load_method, []

    def timed_method(room: str, name: str) -> registry.Method:
        found = load(room, name)

        def timed(*args: Any) -> Any:
            began = time.process_time()
            rows = found.function(*args)
            taken.append(time.process_time() - began)
            return rows

        return dataclasses.replace(found, function=timed)

    registry.load_method = timed_method
    if tokens_bin != "-":
        from langadapt.embed import focus

        focus.token_vectors = lambda inputs, ids, *rest: given_vectors(tokens_bin, inputs, ids)
    from langadapt.cli.app import main as cli

    sys.argv = ["langadapt", "init-embeddings", *flags, "--out", str(Path(out) / "model"), "-q"]
    try:
        cli()
    except SystemExit as ended:
        if ended.code:
            raise
    found = {"seconds": sum(taken), "all_seconds": time.process_time(), "peak_bytes": peak_memory_bytes()}
    (Path(out) / "measured.json").write_text(json.dumps(found))


def given_vectors(path: str, inputs: Any, ids: Sequence[int]) -> tuple[Any, Any]:
    """Vectors that a .bin file has of the new tokenizer's pieces, and which it has."""
    from langadapt.embed.fasttext_process import read_words

    words, _, table = read_words(Path(path), 10**6)
    index = {word: place for place, word in enumerate(words)}
    places = np.array([index.get(inputs.target.piece(id), -1) for id in ids])
    vectors = table[np.maximum(places, 0)]
    vectors[places < 0] = 0
    return vectors, places >= 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(*sys.argv[1:])
