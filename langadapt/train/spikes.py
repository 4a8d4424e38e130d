"""When a run has gone wrong although every number is finite. A pure function of the losses so far."""

from collections import deque
from statistics import median

# The rule of research notes and of large runs: above the running median by 4 median deviations, 20 steps in a row.
_DEVIATIONS = 4.0
PATIENCE = 20
_WINDOW = 100
_FEWEST = 20
# A loss that hardly varies would make any rise a spike: deviations count as at least this share of the median.
_LEAST_DEVIATION = 0.01
# Worse than guessing for some steps in a row: no need to wait for a median.
_GUESSES = 2.0
_LOST_PATIENCE = 3


class Watch:
    """Is told the loss of every finished step, after a restart all of them again."""

    def __init__(self, guessing: float) -> None:
        """`guessing` is the loss of a model that knows nothing: ln(rows of the head), in nats."""
        self._calm: deque[float] = deque(maxlen=_WINDOW)
        self._first: float | None = None
        self._guessing = guessing
        self.high = 0
        self.lost = 0

    def add(self, loss: float) -> None:
        """Take note of the loss of one step."""
        if self._first is None:
            self._first = loss
        self.lost = self.lost + 1 if loss > _GUESSES * max(self._guessing, self._first) else 0
        if len(self._calm) >= _FEWEST and loss > self.limit:
            # not part of the median: a plateau of high losses must not become the new normal
            self.high += 1
            return
        self.high = 0
        self._calm.append(loss)

    def forget(self) -> None:
        """Another stage begins: what was usual so far says nothing about it."""
        self._calm.clear()
        self.high = self.lost = 0

    @property
    def limit(self) -> float:
        """The loss above which a step counts as high: median + 4 x median absolute deviation."""
        middle = median(self._calm)
        spread = max(median(abs(loss - middle) for loss in self._calm), _LEAST_DEVIATION * abs(middle))
        return middle + _DEVIATIONS * spread

    @property
    def streak(self) -> int:
        """For how many steps it has been so."""
        return max(self.high, self.lost, 1)

    def complaint(self) -> str | None:
        """What is wrong, as half a sentence; None if nothing is."""
        if self.lost >= _LOST_PATIENCE:
            return f"the loss is worse than twice that of guessing for {self.lost} steps in a row"
        if self.high >= PATIENCE:
            return f"the loss has been above {self.limit:.3f} (median + 4 deviations) for {self.high} steps in a row"
        return None
