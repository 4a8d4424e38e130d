"""The learning rate as a pure function of the step."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a cosine down to `final_share` of the peak at the last step."""

    peak: float
    steps: int
    warmup_steps: int
    final_share: float = 0.1

    def at(self, step: int) -> float:
        """Learning rate of step 0..steps-1; the peak is reached at step `warmup_steps` - 1."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        rest = self.steps - 1 - self.warmup_steps
        progress = (step - self.warmup_steps) / rest if rest > 0 else 1.0
        wave = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        return self.peak * (self.final_share + (1.0 - self.final_share) * wave)
