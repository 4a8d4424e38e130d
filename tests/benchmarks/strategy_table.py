"""Results of strategy_quality.py as markdown, written between two marks of a page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from langadapt.evaluate.bootstrap import Resampled
from tests.benchmarks.cells import Results

BEGIN = "<!-- table made by tests/benchmarks/strategy_quality.py -->"
CONTROL = "full"
_SAMPLES = 10_000
_TITLES = {"target": "{}", "source": "{}, replayed domain", "other": "{}, other domain"}

Runs = Sequence[Mapping[str, Any]]


def table(results: Results, peaks: Mapping[str, float]) -> str:
    """Two tables, one row an arm: bits per byte with the difference from `full` (95 %), and what it cost.

    `peaks` are bytes by arm. Values are means over seeds, with half of how far the seeds lie apart. Differences are
    paired: of the seeds that both have, resampled over segments.
    """
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for (name, _), entry in results.items():
        grouped.setdefault(name, []).append(entry)
    first = next(iter(results.values()))
    titles = [title.format(lang) for title, lang in zip(_TITLES.values(), first["langs"], strict=True)]
    # None where the questions were not asked
    base_icl = next((entry["icl"]["base"] for entry in results.values() if entry.get("icl") is not None), None)
    icl = base_icl is not None
    head = ["arm", "seeds"] + [part for title in titles for part in (title, "more than `full`, 95 %")]
    quality = [head + ["in-context learning, bits"] * icl]
    bits = ["base", ""]
    for role in _TITLES:
        bits += [f"{_bits(first['scores'][role], 'base'):.3f}", ""]
    quality.append(bits + ([f"{base_icl:.3f}"] if icl else []))
    # no times: cells run side by side, so that they tell more of the machine than of the arm (see slice_state.py)
    cost = [["arm", "numbers that move", "state", "peak memory"]]
    for name, runs in grouped.items():
        row = [f"`{name}`", str(len(runs))]
        for role in _TITLES:
            row += [_spread([_bits(run["scores"][role], "adapted") for run in runs]), _beside(grouped, name, role)]
        asked = [run["icl"]["adapted"] for run in runs if run.get("icl") is not None]
        less = f" ({len(asked)} seeds)" if 0 < len(asked) < len(runs) else ""
        quality.append(row + ([_spread(asked) + less if asked else "-"] if icl else []))
        cost.append([f"`{name}`", f"{runs[0]['trained']:,}", _bytes(runs[0]["state_bytes"]),
                     _bytes(peaks.get(name))])  # fmt: skip
    return f"After {first['steps']} steps:\n\n{_markdown(quality)}\n\n{_markdown(cost)}"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rest))


def _bits(found: Mapping[str, Any], model: str) -> float:
    return math.fsum(found[model]) / math.log(2) / sum(found["bytes"])


def _spread(values: Sequence[float]) -> str:
    apart = f" ± {(max(values) - min(values)) / 2:.3f}" if max(values) - min(values) > 0.0005 else ""
    return f"{sum(values) / len(values):.3f}{apart}"


def _bytes(size: float | None) -> str:
    return "-" if size is None else f"{size / 1e9:.2f} GB"


def _beside(grouped: Mapping[str, Runs], name: str, role: str) -> str:
    """Difference from the control, means over the seeds that both have."""
    if name == CONTROL or CONTROL not in grouped:
        return "-"
    both = {run["seed"] for run in grouped[name]} & {run["seed"] for run in grouped[CONTROL]}
    if not both:
        return "-"
    nats = {}
    for arm in (name, CONTROL):
        columns = [run["scores"][role]["adapted"] for run in grouped[arm] if run["seed"] in both]
        nats[arm] = [math.fsum(values) / len(values) for values in zip(*columns, strict=True)]
    lengths = grouped[name][0]["scores"][role]["bytes"]
    delta = Resampled(nats, lengths, samples=_SAMPLES, seed=0, name=role).compare(name, CONTROL).delta
    interval = "" if delta.low is None or delta.high is None else f" [{delta.low:+.3f}, {delta.high:+.3f}]"
    return f"{delta.value:+.3f}{interval}".replace("-", "−")
