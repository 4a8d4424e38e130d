"""The summary of an evaluation as a table for a terminal."""

from collections.abc import Mapping
from typing import Any

from langadapt.core.types import Table
from langadapt.core.units import show_bytes


def summary_table(summary: Mapping[str, Any]) -> Table:
    """One row a set; the sentences and what the sets were capped at stand below."""
    control = "control" in summary["models"]
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    sizes = []
    for lang, language in summary["languages"].items():
        for name, entry in language["sets"].items():
            bits = entry["bits_per_byte"]
            models = [_cell(bits["base"]), _cell(bits["adapted"])] + ([_cell(bits["control"])] if control else [])
            change = f"{_cell(bits['delta'])} [{_cell(bits['delta_low'])}, {_cell(bits['delta_high'])}]"
            rows.append((lang, name, *models, change, _guessing(bits), str(bits["verdict"] or "no score")))
            notes += entry["sentences"]
            sizes.append((entry["segments"], entry["bytes"]))
    if "icl" in summary:
        notes.append(summary["icl"]["sentence"])
    settings = summary["settings"]
    segments, size = sum(count for count, _ in sizes), sum(size for _, size in sizes)
    notes.append(
        f"Sets are capped near {show_bytes(settings['set_bytes'])}; here {segments:,} segments and {show_bytes(size)} "
        f"in all, scored in {settings['compute']}, `{settings['document_separator']}` before each document."
    )
    models_shown = ("base", "adapted", "control") if control else ("base", "adapted")
    columns = ("language", "set", *models_shown, "difference [95 %]", "guessing", "verdict")
    return Table("bits per byte (lower is better)", columns, tuple(rows), (*notes, *summary["warnings"]))


def _guessing(bits: Mapping[str, Any]) -> str:
    """The null lines: what guessing every token alike scores with the base's and with the adapted vocabulary."""
    return f"{_cell(bits['uniform_base'])}, {_cell(bits['uniform_adapted'])}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}".replace("-", "−")
