"""What a run leaves in its folder beside the outputs of its steps: history, timings, and the last report."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langadapt.core.artifact import Artifact
from langadapt.core.host import peak_memory_bytes
from langadapt.core.io import append_json_line, is_full, pretty_json, read_json_object, replace_durably
from langadapt.recipe.graph import Graph, members
from langadapt.recipe.look import Look
from langadapt.recipe.sources import FromStep

HISTORY = "run.jsonl"
TIMINGS = "timings.jsonl"
REPORT_FILES = ("report.html", "report.md")
SUMMARY = "summary.json"
MODELS = ("base", "adapted", "control")


@dataclass
class Record:
    """Appends to `run.jsonl` (everything) and `timings.jsonl` (one line per executed step)."""

    folder: Path
    warn: Callable[[str], None]
    run: str = field(default_factory=lambda: f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}")
    began: float = field(default_factory=time.monotonic)
    peak: int = 0
    _full: bool = False

    def _append(self, file: str, line: Mapping[str, Any]) -> None:
        """Add a line; no step needs it, so a full disk costs the line and not the run."""
        try:
            append_json_line(self.folder / file, line)
        except OSError as error:
            if not is_full(error):
                raise
            if not self._full:
                self.warn(f"no space left for `{self.folder / file}`: the run goes on, its record has gaps")
            self._full = True

    def event(self, name: str, **values: Any) -> None:
        """One line of history."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._append(HISTORY, {"event": name, "run": self.run, "time": stamp, **values})

    def timing(self, look: Look, state: str, artifact: Artifact, seconds: float) -> int:
        """Time and memory of one executed step; returns its peak memory in bytes."""
        peak = int(read_json_object(artifact.path / "run.json").get("peak_memory_bytes", 0))
        self.peak = max(self.peak, peak)
        line = {"step": look.step.id, "verb": look.step.verb.name, "state": state, "peak_memory_bytes": peak}
        self._append(TIMINGS, {**line, "seconds": round(seconds, 3), "run": self.run})
        return peak

    def whole(self) -> float:
        """The line of the whole run; returns its seconds. Its peak counts this process and the largest step."""
        seconds = time.monotonic() - self.began
        line = {
            "step": "whole run",
            "verb": None,
            "state": "done",
            "peak_memory_bytes": self.peak + peak_memory_bytes(),
        }
        self._append(TIMINGS, {**line, "seconds": round(seconds, 3), "run": self.run})
        return seconds


def point(pointer: Path, place: Path) -> None:
    """Make the relative link `pointer` show to `place`, in one step for anyone who looks."""
    temporary = pointer.with_name(f"{pointer.name}.link-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(place.name, target_is_directory=True)
    temporary.replace(pointer)


def publish(
    folder: Path, graph: Graph, looks: Mapping[str, Look], artifacts: Mapping[str, Artifact]
) -> Artifact | None:
    """Copy the last report of the run into the run folder; its summary gets the paths of the models."""
    reports = [name for name in artifacts if artifacts[name].kind == "report"]
    if not reports:
        return None
    name = reports[-1]
    report = artifacts[name]
    for file in REPORT_FILES:
        if file in report.manifest["files"]:
            replace_durably(folder / file, report.file(file).read_bytes())
    if SUMMARY in report.manifest["files"]:
        summary = read_json_object(report.file(SUMMARY))
        summary["model_facts"] = summary.get("models")
        summary["models"] = _model_paths(name, graph, looks)
        replace_durably(folder / SUMMARY, pretty_json(summary))
    return report


def _model_paths(report: str, graph: Graph, looks: Mapping[str, Look]) -> dict[str, str | None]:
    """Absolute folders of the models that were scored: the inputs of the step whose scores the report reads."""
    paths: dict[str, str | None] = dict.fromkeys(MODELS)
    for wiring in graph.steps[report].wiring.values():
        for source in members(wiring):
            if isinstance(source, FromStep) and graph.steps[source.step].verb.kind == "scores":
                inputs = looks[source.step].inputs
                for name in MODELS:
                    path = getattr(inputs.get(name), "path", None)
                    paths[name] = None if path is None else str(path.resolve())
    return paths
