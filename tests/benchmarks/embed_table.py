"""Results of embed_quality.py as a markdown table, written between two marks of a page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from langadapt.evaluate.bootstrap import Resampled, uniform_bits_per_byte
from tests.benchmarks.cells import Results

BEGIN = "<!-- table made by tests/benchmarks/embed_quality.py -->"
BASE = "base"
_SAMPLES = 10_000


def table(results: Results) -> str:
    """One row a method, the lowest target bits per byte after training first; values are means over seeds."""
    first = next(iter(results.values()))
    [target], steps = first["target"], first["steps"]
    [source] = [lang for lang in first["before"] if lang not in ("rows", target)]
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for (name, _), entry in sorted(results.items(), key=lambda item: item[0]):
        grouped.setdefault(name, []).append(entry)
    methods = [name for name in grouped if name != BASE]
    order = sorted(methods, key=lambda name: _bits(grouped[name], "after", target))
    lines = [
        f"| method | seeds | {target} before | more than the lowest, 95 % | {source} before "
        f"| {target} after {steps} steps | more than the lowest, 95 % | {source} after | s |",
        "|" + "---|" * 9,
    ]
    beside = {stage: _beside({name: grouped[name] for name in methods}, stage, target) for stage in ("before", "after")}
    for name in order:
        runs = grouped[name]
        seconds = f"{sum(run['init_seconds'] for run in runs) / len(runs):.0f}"
        cells = [f"`{name}`", str(len(runs))]
        for stage in ("before", "after"):
            cells += [_cell(runs, stage, target), beside[stage][name], _cell(runs, stage, source)]
        lines.append(f"| {' | '.join([*cells, seconds])} |")
    if BASE in grouped:
        runs = grouped[BASE]
        cells = [f"{_cell(runs, stage, target)} | | {_cell(runs, stage, source)}" for stage in ("before", "after")]
        lines.append(f"| base, own tokenizer | {len(runs)} | {' | '.join(cells)} | |")
    for name, title in ((order[0] if order else None, "guessing, new tokenizer"), (BASE, "guessing, own tokenizer")):
        if name in grouped:
            values = [_guess(grouped[name][0]["before"], lang) for lang in (target, source)]
            lines.append(f"| {title} | | {values[0]:.3f} | | {values[1]:.3f} | | | | |")
    return "\n".join(lines)


def _bits(runs: Sequence[Mapping[str, Any]], stage: str, lang: str) -> float:
    return sum(_one(run[stage][lang]) for run in runs) / len(runs)


def _one(found: Mapping[str, Any]) -> float:
    return math.fsum(found["nats"]) / math.log(2) / sum(found["bytes"])


def _cell(runs: Sequence[Mapping[str, Any]], stage: str, lang: str) -> str:
    """Mean over seeds, and how far they lie apart."""
    values = [_one(run[stage][lang]) for run in runs]
    apart = f" ± {(max(values) - min(values)) / 2:.3f}" if max(values) - min(values) > 0.0005 else ""
    return f"{sum(values) / len(values):.3f}{apart}"


def _guess(found: Mapping[str, Any], lang: str) -> float:
    return uniform_bits_per_byte(found["rows"], found[lang]["tokens"], sum(found[lang]["bytes"]))


def _beside(grouped: Mapping[str, Sequence[Mapping[str, Any]]], stage: str, lang: str) -> dict[str, str]:
    """Difference from the lowest with its interval over segments; nats are means over seeds."""
    if not grouped:
        return {}
    lengths = next(iter(grouped.values()))[0][stage][lang]["bytes"]
    nats = {
        name: [sum(values) / len(runs) for values in zip(*(run[stage][lang]["nats"] for run in runs), strict=True)]
        for name, runs in grouped.items()
    }
    resampled = Resampled(nats, lengths, samples=_SAMPLES, seed=0, name=f"{stage} {lang}")
    lowest = min(nats, key=lambda name: sum(nats[name]))
    found = {lowest: "-"}
    for name in nats.keys() - {lowest}:
        delta = resampled.compare(name, lowest).delta
        interval = "" if delta.low is None or delta.high is None else f" [{delta.low:.3f}, {delta.high:.3f}]"
        found[name] = f"{delta.value:.3f}{interval}".replace("-", "−")
    return found
