"""Initialisers on a table of 128,000 x 4,096: seconds and memory, beside the plain formula as references compute it.

    python -m tests.benchmarks.embed_large WORK [--new 32000,128000] [--only clp,omp] [--page docs/PAGE.md]
    python -m tests.benchmarks.embed_large WORK --finished --page docs/PAGE.md

Everything is random, see `peers/large.py`; each cell is a process of one thread, and its result stays in WORK. Of
methods whose reference makes tokens one by one, so many are made as take a minute or so, and the seconds of all are
that times their number; the page marks such figures. A plain formula that would hold more than 20 GB is left out.
`--finished` runs nothing and shows what is there.
Nothing passes or fails by speed.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.cells import fill, say
from tests.benchmarks.peers.large import KEPT, ROWS, SHARED, WIDTH, base_table

BEGIN = "<!-- table made by tests/benchmarks/embed_large.py -->"
MOST_BYTES = 20e9
# Of the plain formula: tokens that are made, and what its code holds for each token beside the row itself, in bytes.
_MADE = {"mean": 10**6, "subtoken-mean": 10**6, "wechsel": 1024, "knn": 4096, "focus": 4096, "clp": 128, "omp": 64,
         "sava": 10**6, "ofa": 10**6}  # fmt: skip
_ALL_COSINES = {"focus": 4 * SHARED, "clp": 4 * SHARED}
# 32,000 tokens take `omp` a quarter of an hour; its cost is that of so many.
_OURS_MOST = {"omp": 2048}
_ROW = 4 * WIDTH


def cells(work: Path, new: int, only: Sequence[str], *, finished: bool) -> dict[str, dict[str, Any]]:
    """Method -> what both sides gave. With `finished` nothing is run, and methods without our side are left out."""
    found: dict[str, dict[str, Any]] = {}
    for name, most in _MADE.items():
        if only and name not in only:
            continue
        if finished and not (work / f"{new}-{name}-ours" / "measured.json").exists():
            continue
        made = min(new, _OURS_MOST.get(name, new))
        found[name] = {"ours": measured(work, f"{new}-{name}-ours", "large", name, made)}
        held = _ALL_COSINES.get(name, 0) * new + _ROW * (ROWS + new)
        if held > MOST_BYTES:
            found[name]["plain"] = {"failed": f"not run: {held / 1e9:.0f} GB"}
        elif finished and not (work / f"{new}-{name}-plain" / "measured.json").exists():
            found[name]["plain"] = {"failed": "not run"}
        else:
            found[name]["plain"] = measured(work, f"{new}-{name}-plain", "plain", name, new, most)
        found[name]["held"] = held
        found[name]["apart"] = apart(work / f"{new}-{name}-ours", work / f"{new}-{name}-plain")
        say(f"{new} {name} {json.dumps(found[name])}")
    return found


def measured(work: Path, cell: str, module: str, *arguments: object) -> dict[str, Any]:
    """Run it alone with one thread, unless its results are there."""
    out = work / cell
    if not (out / "measured.json").exists():
        out.mkdir(parents=True, exist_ok=True)
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", f"tests.benchmarks.peers.{module}", str(out), *map(str, arguments)]
        with (out / "log").open("w") as log:
            done = subprocess.run(command, stdout=log, stderr=log, env=os.environ | threads)
        if done.returncode:
            return {"failed": f"exit {done.returncode}"}
    found: dict[str, Any] = json.loads((out / "measured.json").read_text())
    return found


def apart(ours: Path, plain: Path) -> float | None:
    """Largest difference of the first rows, as a share of their length; None where the two are not the same thing."""
    if not ((ours / "rows.npy").exists() and (plain / "rows.npy").exists()):
        return None
    first, second = np.load(ours / "rows.npy"), np.load(plain / "rows.npy")
    if not len(second):
        return None
    distance = np.linalg.norm(first[:KEPT] - second[:KEPT], axis=1) / np.linalg.norm(second[:KEPT], axis=1)
    return float(np.median(distance))


def table(results: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> str:
    lines = [
        "| new tokens | method | ours (s) | of these the map | plain (s) | ratio | ours, peak (GB) "
        "| of both tables | plain, peak (GB) | rows apart, median |",
        "|" + "---|" * 10,
    ]
    for new, found in results.items():
        for name, sides in found.items():
            ours, plain = sides["ours"], sides["plain"]
            times = new / ours["tokens"]
            seconds, about = ours["seconds"] * times, "~" if times > 1 else ""
            cells = [f"{new:,}", f"`{name}`", f"{about}{seconds:.1f}", f"{about}{ours['map_seconds'] * times:.1f}"]
            if "failed" in plain:
                cells += [plain["failed"], ""]
            else:
                scaled = "" if plain["whole"] else "~"
                cells += [f"{scaled}{plain['seconds']:,.1f}", f"{plain['seconds'] / seconds:,.1f}"]
            cells += [f"{about}{ours['peak_bytes'] / 1e9:.2f}", f"{ours['peak_bytes'] / ours['table_bytes']:.1f}"]
            # a sample holds less than all tokens would: table, rows, and cosines where they are there all at once
            held = 0.0 if "failed" in plain else max(plain["peak_bytes"], sides["held"]) / 1e9
            cells += [f"{'' if plain.get('whole') else '~'}{held:.1f}" if held else ""]
            cells += ["" if sides["apart"] is None else f"{sides['apart']:.0e}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--new", default="32000,128000")
    parser.add_argument("--only", default="")
    parser.add_argument("--finished", action="store_true")
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if not given.finished:
        base_table(given.work)
    only = given.only.split(",") if given.only else []
    found = {int(new): cells(given.work, int(new), only, finished=given.finished) for new in given.new.split(",")}
    text = table(found)
    sys.stdout.write(f"{text}\n")
    if given.page:
        fill(given.page, BEGIN, text)


if __name__ == "__main__":
    main()
