"""Near-duplicates: langadapt beside datasketch and rensa, one core each, the same 112 hashes in 14 bands.

    python -m tests.benchmarks.near_duplicates FILE.jsonl [MEGABYTES]

The peers get the same word 5-grams, cut by `str.split`, which is less than what ours does. Needs datasketch and rensa
(`pip install datasketch rensa`); they are not dependencies. Prints megabytes of text a second and ratios; nothing
passes or fails by speed.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from langadapt.corpus.clusters import near_duplicates
from langadapt.corpus.neardup import BANDS, ROWS, SHINGLE, band_keys


def read(path: Path, megabytes: float) -> list[str]:
    texts, size = [], 0
    with path.open(encoding="utf-8") as file:
        for line in file:
            texts.append(json.loads(line)["text"])
            size += len(texts[-1].encode())
            if size >= megabytes * 1e6:
                break
    return texts


def grams(text: str) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[at : at + SHINGLE]) for at in range(len(words) - SHINGLE + 1)]


def ours_signatures(texts: list[str]) -> int:
    step = 200
    return sum(band_keys(texts[at : at + step])[0].shape[1] for at in range(0, len(texts), step))


def ours(texts: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        root = near_duplicates(enumerate(texts), len(texts), Path(folder))
    return len(texts) - len(set(root.tolist()))


def datasketch(texts: list[str], *, index: bool) -> int:
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    found = 0
    for number, text in enumerate(texts):
        shingles = grams(text)
        if len(shingles) < SHINGLE:
            continue
        sketch = MinHash(num_perm=BANDS * ROWS)
        sketch.update_batch([each.encode() for each in shingles])
        if index:
            found += bool(lsh.query(sketch))
            lsh.insert(number, sketch)
    return found


def rensa(texts: list[str], *, index: bool) -> int:
    from rensa import RMinHash, RMinHashLSH

    lsh = RMinHashLSH(threshold=0.7, num_perm=BANDS * ROWS, num_bands=BANDS)
    found = 0
    for number, text in enumerate(texts):
        shingles = grams(text)
        if len(shingles) < SHINGLE:
            continue
        sketch = RMinHash(num_perm=BANDS * ROWS, seed=42)
        sketch.update(shingles)
        if index:
            found += bool(lsh.query(sketch))
            lsh.insert(number, sketch)
    return found


def main(path: Path, megabytes: float) -> None:
    texts = read(path, megabytes)
    size = sum(len(text.encode()) for text in texts) / 1e6
    runs: dict[str, Callable[[], int]] = {
        "ours, keys only": lambda: ours_signatures(texts),
        "ours, clusters": lambda: ours(texts),
        "datasketch, signatures only": lambda: datasketch(texts, index=False),
        "datasketch, with index": lambda: datasketch(texts, index=True),
        "rensa, signatures only": lambda: rensa(texts, index=False),
        "rensa, with index": lambda: rensa(texts, index=True),
    }
    print(f"{len(texts):,} documents, {size:.1f} MB")
    speed = {}
    for name, run in runs.items():
        times = []
        for _ in range(2):
            began = time.process_time()
            found = run()
            times.append(time.process_time() - began)
        speed[name] = size / min(times)
        print(f"{name:30} {speed[name]:7.1f} MB/s   found {found:,}")
    print(f"ours / datasketch, end to end: {speed['ours, clusters'] / speed['datasketch, with index']:.1f}")
    print(f"ours / rensa, end to end: {speed['ours, clusters'] / speed['rensa, with index']:.1f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 20.0)
