"""The learning rate as a pure function of the step."""

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["cosine", "linear", "constant", "wsd"]


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to the peak, then the course that `kind` names, to `final_share` of the peak at the last step.

    `wsd` (warm-up, stable, decay) stays at the peak until step `decay_from` and then falls by 1 - sqrt(progress), the
    form that Hägele et al. 2024 (arXiv 2405.18392) found best; `constant` never falls.
    """

    peak: float
    steps: int
    warmup_steps: int
    final_share: float = 0.1
    kind: Kind = "cosine"
    decay_from: int = 0

    def at(self, step: int) -> float:
        """Learning rate of step 0..steps-1; the peak is reached at step `warmup_steps` - 1."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return self.peak
        if self.kind == "wsd":
            if step < self.decay_from:
                return self.peak
            # the first step of the decay is already below the peak, the last one is at the final share
            return self._between(1.0 - math.sqrt((step - self.decay_from + 1) / (self.steps - self.decay_from)))
        rest = self.steps - 1 - self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / rest) if rest > 0 else 1.0
        if self.kind == "linear":
            return self._between(1.0 - progress)
        return self._between(0.5 * (1.0 + math.cos(math.pi * progress)))

    def _between(self, height: float) -> float:
        """Height 1 is the peak, height 0 the final share of it."""
        return self.peak * (self.final_share + (1.0 - self.final_share) * height)

    def words(self) -> str:
        """The course after the warm-up, for people."""
        last = f"{self.peak * self.final_share:.2g}"
        return {
            "cosine": f"then down to {last}",
            "linear": f"then straight down to {last}",
            "constant": "then constant",
            "wsd": f"then constant, from step {self.decay_from:,} on down to {last}",
        }[self.kind]


def decay_start(steps: int, share: float, *, not_before: int = 0) -> int:
    """First step of the decay of a `wsd` run, `not_before` the step that it branches from."""
    return max(not_before, steps - max(1, round(share * steps)))
