"""What a run would do: the state of every step, why, and the price, before anything runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.core.progress import Listener, ignore
from langadapt.core.types import Estimate, Table
from langadapt.core.units import show_bytes, show_seconds
from langadapt.recipe.graph import Graph
from langadapt.recipe.look import Bench, Look


@dataclass(frozen=True)
class Plan:
    """What a run would do, in order."""

    folder: Path
    looks: tuple[Look, ...]
    off: tuple[str, ...]

    @property
    def total(self) -> Estimate:
        """Price of the steps that would run: times and disk add up, memory is that of the largest step."""
        priced = [look.estimate for look in self.looks if look.estimate is not None]
        seconds = [item.seconds for item in priced if item.seconds is not None]
        memory = [item.memory_bytes for item in priced if item.memory_bytes is not None]
        disk = [item.disk_bytes for item in priced if item.disk_bytes is not None]
        return Estimate(sum(seconds) if seconds else None, max(memory, default=None), sum(disk) if disk else None)

    def data(self) -> dict[str, Any]:
        """The plan as plain data."""
        total = self.total
        return {
            "schema": "langadapt/plan/1",
            "path": str(self.folder),
            "seconds": total.seconds,
            "memory_bytes": total.memory_bytes,
            "disk_bytes": total.disk_bytes,
            "off": list(self.off),
            "steps": [_plain(look) for look in self.looks],
        }

    def table(self) -> Table:
        """The plan for people, with totals."""
        rows: list[tuple[str, ...]] = []
        rows += [(look.step.id, look.state, look.reason, *_price(look.estimate)) for look in self.looks]
        rows += [(name, "off", "switched off in the recipe", "", "", "") for name in self.off]
        running = sum(look.artifact is None for look in self.looks)
        total = self.total if running else None
        rows.append(("whole run", f"{running} of {len(self.looks)} steps", "", *_price(total)))
        notes = [f"{look.step.id}: {text}" for look in self.looks for text in _problems(look)]
        unknown = [look.step.id for look in self.looks if look.estimate is not None and look.estimate.seconds is None]
        if unknown:
            notes.append(f"the time of {', '.join(unknown)} is not known beforehand and not in the total")
        notes += [f"{look.step.id}: {name}: {value}" for look in self.looks for name, value in _said(look)]
        columns = ("step", "state", "why", "time", "memory", "disk")
        return Table(f"what a run would do ({self.folder})", columns, tuple(rows), tuple(notes))


def _price(estimate: Estimate | None) -> tuple[str, str, str]:
    if estimate is None:
        return ("", "", "")
    return (
        "?" if estimate.seconds is None else show_seconds(estimate.seconds),
        "?" if estimate.memory_bytes is None else show_bytes(estimate.memory_bytes),
        "?" if estimate.disk_bytes is None else show_bytes(estimate.disk_bytes),
    )


def _plain(look: Look) -> dict[str, Any]:
    estimate = look.estimate or Estimate()
    return {
        "step": look.step.id,
        "verb": look.step.verb.name,
        "state": look.state,
        "reason": look.reason,
        "path": None if look.place is None else str(look.place),
        "seconds": estimate.seconds,
        "memory_bytes": estimate.memory_bytes,
        "disk_bytes": estimate.disk_bytes,
        "rows": dict(estimate.rows),
        "facts": estimate.facts,
        "problems": list(estimate.problems),
    }


def _said(look: Look) -> tuple[tuple[str, str], ...]:
    """What a step that would run says about its price; the table has no place for tokens, steps and passes."""
    return () if look.estimate is None or look.artifact is not None else look.estimate.rows


def _problems(look: Look) -> tuple[str, ...]:
    return () if look.estimate is None else look.estimate.problems


def plan(graph: Graph, folder: Path, *, estimates: bool = True, listener: Listener = ignore) -> Plan:
    """Look at every step without running any; later steps are priced with the facts that earlier ones predict."""
    bench = Bench(folder.absolute(), listener)
    looks = []
    for step in graph.steps.values():
        look = bench.look(step)
        if look.artifact is not None:
            bench.done(step.id, look.artifact)
        elif estimates:
            look = bench.price(look)
        looks.append(look)
    return Plan(folder, tuple(looks), graph.off)
