"""mergekit's tokensurgeon: python mergekit_rows.py MODEL DONOR METHOD OUT [FLAGS...] (see embed_peers.py)."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from mergekit.scripts import tokensurgeon


def main(model: str, donor: str, method: str, out: str, *flags: str) -> None:
    build, taken = tokensurgeon.build_embedding_matrix, []

    def timed(*args: Any, **named: Any) -> Any:
        began = time.process_time()
        rows = build(*args, **named)
        taken.append(time.process_time() - began)
        np.save(Path(out) / "rows.npy", rows.float().numpy())
        return rows

    tokensurgeon.build_embedding_matrix = timed
    arguments = [model, donor, str(Path(out) / "model"), "-a", method, *flags]
    tokensurgeon.main.main(arguments, standalone_mode=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"seconds": sum(taken), "all_seconds": time.process_time(), "peak_bytes": peak}
    (Path(out) / "measured.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
