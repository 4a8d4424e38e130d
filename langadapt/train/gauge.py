"""What is measured beside the probes: a line of the record, perhaps a warning, perhaps the end of the run."""

from collections.abc import Mapping
from typing import Any, Protocol


class Gauge(Protocol):
    """Measured whenever the probes are; what it gives stands in their line of `metrics.jsonl` under `name`."""

    @property
    def name(self) -> str:
        """A word that no other gauge has."""
        ...

    def measure(self, step: int) -> Mapping[str, Any]:
        """Plain values by name; nothing if there is nothing to say at this step."""
        ...

    def judge(self, step: int, now: Mapping[str, Any], start: Mapping[str, Any]) -> str | None:
        """A warning about what was measured now; the first probe gave `start`. TrainingFailed: the run must stop."""
        ...
