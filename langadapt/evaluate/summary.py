"""From rows of segments to the figures of one set: bits per byte, intervals, null line, verdicts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langadapt.core.errors import DataError
from langadapt.evaluate.bootstrap import Comparison, Interval, Resampled, uniform_bits_per_byte
from langadapt.evaluate.partial import Partial, SegmentRow
from langadapt.evaluate.segments import MIN_SEGMENTS, ScoringSet

# Digits that survive another number of threads; they also keep the files readable.
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class SetScores:
    """All that was measured on one set: rows of each model in the order of the segments, table rows by model."""

    name: str
    lang: str
    chosen: ScoringSet
    rows: Mapping[str, Sequence[SegmentRow]]
    table_rows: Mapping[str, int]


def summarise_set(scores: SetScores, *, samples: int, seed: int) -> dict[str, Any]:
    """The entry `languages.<code>.sets.<name>` of summary.json."""
    lengths = [row.bytes for row in next(iter(scores.rows.values()))]
    for model, rows in scores.rows.items():
        if [row.bytes for row in rows] != lengths:
            raise DataError(f"set `{scores.name}`: `{model}` was scored on other bytes")
    total = sum(lengths)
    entry: dict[str, Any] = {
        "bytes": total,
        "segments": len(lengths),
        "documents": scores.chosen.documents,
        "available_bytes": scores.chosen.available_bytes,
        "tokens_per_byte": {
            model: _round(sum(row.tokens for row in rows) / total) for model, rows in scores.rows.items()
        },
        "unknown_bytes": {model: sum(row.unknown_bytes for row in rows) for model, rows in scores.rows.items()},
        "reason": None,
    }
    bits: dict[str, Any] = {
        f"uniform_{model}": _round(
            uniform_bits_per_byte(scores.table_rows[model], sum(row.tokens for row in rows), total)
        )
        for model, rows in scores.rows.items()
    }
    nats: dict[str, list[float]] = {}
    for model, rows in scores.rows.items():
        values = [row.nll for row in rows if row.nll is not None]
        if len(values) == len(rows):
            nats[model] = values
        else:
            entry["reason"] = f"the {model} model gave no number on {len(rows) - len(values)} of {len(rows)} segments"
    bits |= _figures(scores, nats, lengths, samples, seed)
    if entry["reason"] is None and len(lengths) < MIN_SEGMENTS:
        entry["reason"] = f"{len(lengths)} segments are too few for an interval (at least {MIN_SEGMENTS})"
    return {"bits_per_byte": bits} | entry


def _figures(
    scores: SetScores, nats: Mapping[str, Sequence[float]], lengths: Sequence[int], samples: int, seed: int
) -> dict[str, Any]:
    bits: dict[str, Any] = dict.fromkeys(scores.rows)
    resampled = Resampled(nats, lengths, samples=samples, seed=seed, name=scores.name) if nats else None
    for model in nats:
        if resampled is not None:
            interval = resampled.bits_per_byte(model)
            bits |= {model: _round(interval.value), f"{model}_low": _round(interval.low)}
            bits[f"{model}_high"] = _round(interval.high)
    pairs = [("base", "")] + ([("control", "_control")] if "control" in scores.rows else [])
    for other, suffix in pairs:
        both = resampled is not None and {"adapted", other} <= nats.keys()
        comparison = resampled.compare("adapted", other) if resampled is not None and both else None
        bits |= _comparison(comparison, suffix)
    return bits


def _comparison(found: Comparison | None, suffix: str) -> dict[str, Any]:
    delta = found.delta if found else _NONE
    ratio = found.ratio if found else _NONE
    return {
        f"ratio{suffix}": _round(ratio.value if found else None),
        f"ratio{suffix}_low": _round(ratio.low),
        f"ratio{suffix}_high": _round(ratio.high),
        f"delta{suffix}": _round(delta.value if found else None),
        f"delta{suffix}_low": _round(delta.low),
        f"delta{suffix}_high": _round(delta.high),
        f"detectable{suffix}": _round(found.detectable if found else None),
        f"verdict{suffix}": found.verdict if found else None,
    }


_NONE = Interval(0.0, None, None)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def segment_lines(scores: SetScores) -> Iterator[dict[str, Any]]:
    """Lines of segments.jsonl: one a segment, with nats and tokens of every model."""
    columns = list(scores.rows.items())
    for at, segment in enumerate(scores.chosen.segments):
        yield {
            "set": scores.name,
            "lang": scores.lang,
            "document": segment.document,
            "segment": segment.index,
            "start": segment.start,
            "bytes": segment.end - segment.start,
            "nll": {model: rows[at].nll for model, rows in columns},
            "tokens": {model: rows[at].tokens for model, rows in columns},
        }


def score_lines(lang: str, name: str, entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lines of scores.jsonl: one a score, with n and its interval."""
    bits = entry["bits_per_byte"]
    for model in ("base", "adapted", "control"):
        if model in bits:
            yield _line(lang, name, "bits_per_byte", model, entry, bits, model)
            yield {
                "lang": lang,
                "set": name,
                "metric": "uniform_bits_per_byte",
                "model": model,
                "n": entry["segments"],
                "value": bits[f"uniform_{model}"],
                "low": None,
                "high": None,
            }
    for suffix, pair in (("", "adapted - base"), ("_control", "adapted - control")):
        if f"delta{suffix}" in bits:
            line = _line(lang, name, "bits_per_byte", pair, entry, bits, f"delta{suffix}")
            yield line | {"verdict": bits[f"verdict{suffix}"]}


def _line(
    lang: str, name: str, metric: str, model: str, entry: Mapping[str, Any], bits: Mapping[str, Any], key: str
) -> dict[str, Any]:
    return {
        "lang": lang,
        "set": name,
        "metric": metric,
        "model": model,
        "n": entry["segments"],
        "value": bits[key],
        "low": bits.get(f"{key}_low"),
        "high": bits.get(f"{key}_high"),
    }


def paired_continuations(partial: Partial, models: Sequence[str], name: str) -> list[dict[str, Any]]:
    """Lines of samples.jsonl with what every model wrote after the same prompt."""
    found = {model: partial.load("continuations", model, name) for model in models}
    return [
        {
            "kind": "continuation",
            "set": name,
            "document": line["document"],
            "prompt": line["prompt"],
            "actual": line["actual"],
            **{model: found[model][at]["text"] for model in models},
        }
        for at, line in enumerate(found[models[0]])
    ]


def headline(languages: Mapping[str, Any]) -> dict[str, Any]:
    """The few figures of each set that belong into the facts of the artifact."""
    keys = ("base", "adapted", "control", "ratio", "delta", "delta_low", "delta_high", "verdict")
    return {
        f"{lang}/{name}": {key: entry["bits_per_byte"][key] for key in keys if key in entry["bits_per_byte"]}
        for lang, language in languages.items()
        for name, entry in language["sets"].items()
    }
