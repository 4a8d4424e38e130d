"""What a check of a tokenizer found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langadapt.core.errors import DataError

_SHOWN = 10


@dataclass(frozen=True)
class Outcome:
    """One check: how many things it looked at, and those that break it (none: it holds)."""

    name: str
    examined: int
    broken: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """For checks.json."""
        return {"examined": self.examined, "broken": len(self.broken), "examples": list(self.broken[:_SHOWN])}


def insist(outcomes: Sequence[Outcome]) -> None:
    """Raise DataError naming every check that does not hold."""
    bad = [outcome for outcome in outcomes if outcome.broken]
    if bad:
        text = "; ".join(
            f"{outcome.name}: {len(outcome.broken)} of {outcome.examined}, e.g. {outcome.broken[0]}" for outcome in bad
        )
        raise DataError(f"the new tokenizer fails its checks: {text}")
