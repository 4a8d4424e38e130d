"""Everything a report shows, read from artifacts into plain values: no markup, no times, no paths."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langadapt.core.artifact import Artifact
from langadapt.core.io import read_json_lines, read_json_object
from langadapt.core.languages import display_name
from langadapt.core.units import show_bytes

# How many digits of a digest people compare by eye.
_SHORT = 12


@dataclass(frozen=True)
class Sources:
    """The artifacts of a run; only the scores must be there."""

    scores: Artifact
    model: Artifact | None = None
    control: Artifact | None = None
    tokenizer: Artifact | None = None
    data: Artifact | None = None
    corpora: Mapping[str, Artifact] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """What page and Markdown are made from."""

    title: str
    summary: dict[str, Any]
    splits: list[dict[str, Any]]
    continuations: list[dict[str, Any]]
    losses: list[tuple[int, float]]
    probes: dict[str, list[tuple[int, float]]]
    tokenizer: dict[str, Any]
    sizes: list[tuple[int, float]]
    """Bytes per token against new tokens."""
    costs: list[tuple[str, str]]
    corpora: list[dict[str, Any]]
    ledger: list[dict[str, Any]]
    settings: list[tuple[str, str]]
    artifacts: list[dict[str, str]]
    warnings: list[str]

    @property
    def sets(self) -> list[tuple[str, dict[str, Any], str, dict[str, Any]]]:
        """(language code, language, set name, set) for every set, target languages first."""
        languages = sorted(self.summary["languages"].items(), key=_target_first)
        return [(code, lang, name, entry) for code, lang in languages for name, entry in sorted(lang["sets"].items())]

    @property
    def languages(self) -> list[dict[str, Any]]:
        """Languages, targets first."""
        return [language for _, language in sorted(self.summary["languages"].items(), key=_target_first)]

    @property
    def has_control(self) -> bool:
        """Was a control model scored?"""
        return "control" in self.summary["models"]


def _target_first(item: tuple[str, dict[str, Any]]) -> tuple[bool, str]:
    return item[1]["role"] != "target", item[0]


def collect(sources: Sources, title: str = "") -> Content:
    """Read all artifacts. DataError if a file is damaged."""
    summary = read_json_object(sources.scores.file("summary.json"))
    samples = list(read_json_lines(sources.scores.file("samples.jsonl")))
    losses, probes = _curves(sources.model)
    target = display_name(str(summary.get("target", "und")))
    return Content(
        title=title or f"Adaptation to {target}",
        summary=summary,
        splits=[sample for sample in samples if sample["kind"] == "split"],
        continuations=[sample for sample in samples if sample["kind"] == "continuation"],
        losses=losses,
        probes=probes,
        tokenizer=dict(sources.tokenizer.facts) if sources.tokenizer else {},
        sizes=_sizes(sources.tokenizer),
        costs=_costs(sources, summary),
        corpora=[_corpus(name, artifact) for name, artifact in sorted(sources.corpora.items())],
        ledger=_ledger(sources.model),
        settings=_settings(sources, summary),
        artifacts=_artifacts(sources, summary),
        warnings=[str(text) for text in summary.get("warnings", [])],
    )


def _has(artifact: Artifact | None, name: str) -> bool:
    return artifact is not None and name in artifact.manifest["files"]


def _curves(model: Artifact | None) -> tuple[list[tuple[int, float]], dict[str, list[tuple[int, float]]]]:
    losses: list[tuple[int, float]] = []
    probes: dict[str, list[tuple[int, float]]] = {}
    if model is None or not _has(model, "metrics.jsonl"):
        return losses, probes
    for line in read_json_lines(model.file("metrics.jsonl")):
        if "loss" in line:
            losses.append((int(line["tokens"]), float(line["loss"])))
        for name, value in sorted(dict(line.get("probes", {})).items()):
            probes.setdefault(name, []).append((int(line["tokens"]), float(value)))
    return losses, probes


def _sizes(tokenizer: Artifact | None) -> list[tuple[int, float]]:
    if tokenizer is None or not _has(tokenizer, "curve.json"):
        return []
    points = read_json_object(tokenizer.file("curve.json"))["points"]
    return [(int(point["added"]), float(point["bytes_per_token"])) for point in points if point["bytes_per_token"]]


def _costs(sources: Sources, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Amounts, not times: times differ from run to run and stand in `timings.jsonl` of each artifact."""
    facts = sources.model.facts if sources.model else {}
    rows = []
    for key, text in (
        ("tokens", "tokens trained on"),
        ("steps", "optimiser steps"),
        ("epochs", "passes over the text"),
        ("parameters", "parameters"),
        ("trained_parameters", "parameters that could move"),
        ("added", "new tokens"),
    ):
        if facts.get(key) is not None:
            rows.append((text, _number(facts[key])))
    if drift := facts.get("drift"):
        moved = ", ".join(f"{group.replace('_', ' ')} {share:.2%}" for group, share in sorted(drift.items()))
        rows.append(("change of the weights, of their norm", moved))
    if sources.data is not None:
        for name, source in sorted(sources.data.facts.get("sources", {}).items()):
            rows.append(
                (f"train text of `{name}`, packed", f"{show_bytes(source['bytes'])}, {source['tokens']:,} tokens")
            )
    scored = [entry for language in summary["languages"].values() for entry in language["sets"].values()]
    size, segments = sum(entry["bytes"] for entry in scored), sum(entry["segments"] for entry in scored)
    rows.append(("text scored by each model", f"{show_bytes(size)} in {segments:,} segments"))
    return rows


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _corpus(name: str, artifact: Artifact) -> dict[str, Any]:
    facts = artifact.facts
    dropped = sorted(dict(facts.get("dropped", {})).items(), key=lambda item: (-item[1]["documents"], item[0]))
    return {
        "name": name,
        "lang": facts.get("lang", "und"),
        "documents": facts.get("documents", 0),
        "size": show_bytes(facts.get("bytes", 0)),
        "held_out": f"{facts.get('held_out_documents', 0):,} documents, {show_bytes(facts.get('held_out_bytes', 0))}",
        "dropped": [
            f"{reason}: {amount['documents']:,} documents, {show_bytes(amount['bytes'])}" for reason, amount in dropped
        ],
    }


def _ledger(model: Artifact | None) -> list[dict[str, Any]]:
    if model is None or not _has(model, "ledger.json"):
        return []
    account = read_json_object(model.file("ledger.json"))
    return [
        {
            "name": name,
            "planned": entry["planned_tokens"],
            "read": entry["consumed_tokens"],
            "bytes": show_bytes(entry["consumed_bytes"]),
            "epochs": f"{entry['epochs']:.2f}",
        }
        for name, entry in sorted(account["sources"].items())
    ]


def _settings(sources: Sources, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [(f"scoring: {key.replace('_', ' ')}", _number(value)) for key, value in sorted(summary["settings"].items())]
    parts = (("training", sources.model), ("vocabulary", sources.tokenizer), ("mixture", sources.data))
    for part, artifact in parts:
        for key, value in sorted((artifact.manifest["config"] if artifact else {}).items()):
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                rows.append((f"{part}: {key.replace('_', ' ')}", _number(value)))
    return rows


def _artifacts(sources: Sources, summary: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = [
        {
            "name": f"{role} model (as scored)",
            "what": f"{record['parameters']:,} parameters, {record['rows']:,} rows",
            "digest": record["digest"],
        }
        for role, record in ((role, summary["models"].get(role)) for role in ("base", "adapted", "control"))
        if record is not None
    ]
    known = (("scores", sources.scores), ("tokenizer", sources.tokenizer), ("data", sources.data))
    for name, artifact in (*known, *((f"corpus {name}", item) for name, item in sorted(sources.corpora.items()))):
        if artifact is not None:
            verb = artifact.manifest["verb"]
            rows.append({"name": name, "what": f"{artifact.kind}, made by {verb}", "digest": artifact.digest})
    return [row | {"short": row["digest"][:_SHORT]} for row in rows]
