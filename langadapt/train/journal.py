"""The record of a run: one line a step, one line a probe; the same bytes whether the run was interrupted or not."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from langadapt.core.io import append_json_line, canonical_json, is_full, read_json_lines, write_durably


class Journal:
    """`metrics.jsonl` of a run in progress.

    A step line holds `step`, `tokens` (read so far), `loss` (nats a token), `learning_rate`, `grad_norm`; a step that
    moved nothing holds `skipped`, the reason, in their place; a probe line `step`, `tokens`, `probes` (bits per byte by
    name) and what each gauge gave, under its name. Steps count finished optimiser steps, so probes before training
    stand at step 0. No times: those differ from run to run.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        """A new, empty record at `path`; `warn` is told when lines have to wait for space on the disk."""
        self.path = path
        self._warn = warn
        self._full = False
        self._waiting: list[dict[str, Any]] = []
        self.last_loss: float | None = None
        self.losses: dict[int, float] = {}
        self.skipped: list[int] = []
        self._probes: dict[int, dict[str, float]] = {}
        self._beside: dict[int, dict[str, Any]] = {}
        write_durably(path, b"")

    def add_step(self, step: int, tokens: int, loss: float, learning_rate: float, grad_norm: float) -> None:
        """Record one finished optimiser step."""
        self._add({
            "step": step, "tokens": tokens, "loss": loss, "learning_rate": learning_rate, "grad_norm": grad_norm
        })  # fmt: skip

    def add_skipped(self, step: int, tokens: int, reason: str) -> None:
        """Record a step whose text was read but which moved nothing."""
        self._add({"step": step, "tokens": tokens, "skipped": reason})

    def add_probes(
        self, step: int, tokens: int, values: Mapping[str, float], beside: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Record bits per byte by probe name, and what gauges measured beside them."""
        self._add({"step": step, "tokens": tokens, "probes": dict(values), **(beside or {})})

    def probes_at(self, step: int) -> dict[str, float] | None:
        """Bits per byte recorded at a step, None if there were none."""
        return self._probes.get(step)

    @property
    def first_probed(self) -> int | None:
        """The step whose probes later ones are compared with: 0, or where a branch began to read other data."""
        return min(self._probes, default=None)

    def beside(self, step: int, gauge: str) -> dict[str, Any]:
        """What a gauge gave at a step; nothing if it was not asked or had nothing to say."""
        return dict(self._beside.get(step, {}).get(gauge, {}))

    def last_beside(self, gauge: str) -> dict[str, Any]:
        """What a gauge gave last."""
        return self.beside(max(self._beside, default=0), gauge)

    def content(self) -> bytes:
        """The whole record, lines that wait for space included."""
        self._write()
        waiting = "".join(canonical_json(line) + "\n" for line in self._waiting)
        return self.path.read_bytes() + waiting.encode()

    def rewind(self, content: bytes, *, probes: bool = True) -> None:
        """Make the record what it was when a checkpoint was written; without its `probes` where those are now of
        other text."""
        write_durably(self.path, content)
        self._waiting = []
        self._probes, self._beside, self.last_loss, self.losses, self.skipped = {}, {}, None, {}, []
        lines = [line for line in read_json_lines(self.path) if probes or "probes" not in line]
        if not probes:
            write_durably(self.path, "".join(canonical_json(line) + "\n" for line in lines).encode())
        for line in lines:
            self._remember(line)

    def _add(self, line: dict[str, Any]) -> None:
        self._waiting.append(line)
        self._write()
        self._remember(line)

    def _write(self) -> None:
        """Append what waits. A full disk is no reason to stop: the lines are kept and tried again with the next one."""
        while self._waiting:
            try:
                append_json_line(self.path, self._waiting[0])
            except OSError as error:
                if not is_full(error):
                    raise
                if not self._full:
                    self._warn(f"no space left for `{self.path}`: training goes on, its lines wait in memory")
                self._full = True
                return
            del self._waiting[0]
        self._full = False

    def _remember(self, line: Mapping[str, Any]) -> None:
        if "probes" in line:
            self._probes[int(line["step"])] = dict(line["probes"])
            self._beside[int(line["step"])] = {key: value for key, value in line.items() if isinstance(value, Mapping)}
        elif "skipped" in line:
            self.skipped.append(int(line["step"]))
        else:
            self.last_loss = self.losses[int(line["step"])] = float(line["loss"])

    def summary(self) -> dict[str, dict[str, float]]:
        """First and last value of every probe: {name: {start, end}}."""
        if not self._probes:
            return {}
        first, last = self._probes[min(self._probes)], self._probes[max(self._probes)]
        return {name: {"start": first[name], "end": last[name]} for name in sorted(first.keys() & last.keys())}

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Every value of every probe as (step, bits per byte)."""
        found: dict[str, list[tuple[int, float]]] = {}
        for step, values in sorted(self._probes.items()):
            for name, value in sorted(values.items()):
                found.setdefault(name, []).append((step, value))
        return found
