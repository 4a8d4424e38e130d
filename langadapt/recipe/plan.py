"""What a run would do: the state of every step, why, and the price, before anything runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.core.progress import Listener, ignore
from langadapt.core.types import Estimate, Table
from langadapt.core.units import show_bytes, show_seconds
from langadapt.core.verb import busy_rows
from langadapt.recipe.graph import Graph
from langadapt.recipe.look import Bench, Look
from langadapt.recipe.why import Change, last_output, other_versions


@dataclass(frozen=True)
class Plan:
    """What a run would do, in order."""

    folder: Path
    looks: tuple[Look, ...]
    off: tuple[str, ...]
    taken: tuple[Look, ...] = ()

    @property
    def total(self) -> Estimate:
        """Price of the steps that would run: times and what stays on the disk add up, memory is the largest step's.

        What a step needs of the disk only while it runs is that of the step with the most.
        """
        priced = [look.estimate for look in self.looks if look.estimate is not None]
        seconds = [item.seconds for item in priced if item.seconds is not None]
        memory = [item.memory_bytes for item in priced if item.memory_bytes is not None]
        disk = [item.disk_bytes for item in priced if item.disk_bytes is not None]
        passing = [item.passing_bytes for item in priced]
        whole = sum(disk) - sum(passing) + max(passing) if disk else None
        return Estimate(sum(seconds) if seconds else None, max(memory, default=None), whole)

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
            "taken": [_plain(look) for look in self.taken],
            "steps": [_plain(look) for look in self.looks],
        }

    def why(self) -> dict[str, Any]:
        """Which part of the key of each step is another than that of its last output, as plain data."""
        return {
            "schema": "langadapt/why/1",
            "path": str(self.folder),
            "steps": [self._why(look) for look in self.looks],
        }

    def _why(self, look: Look) -> dict[str, Any]:
        last = look.artifact or last_output(self.folder.absolute() / "steps" / look.step.id)
        return {
            "step": look.step.id,
            "verb": look.step.verb.name,
            "state": look.state,
            "reason": look.reason,
            "fingerprint": look.fingerprint,
            "compared_with": None if last is None else str(last.path),
            "changes": [
                {"part": item.part, "name": item.name, "old": item.old, "new": item.new} for item in look.changes
            ],
            "versions": [] if last is None else [list(item) for item in other_versions(last)],
        }

    def why_table(self) -> Table:
        """The same for people: a row for each part of the key that changed."""
        rows: list[tuple[str, ...]] = []
        for entry, look in zip(self.why()["steps"], self.looks, strict=True):
            found = [
                (f"{item.part} `{item.name}`", _brief(item.old, "default"), _brief(item.new, _after(item)))
                for item in look.changes
            ]
            found = found or [(look.reason, "", "")]
            found += [(f"not in the key: {name}", then, now) for name, then, now in entry["versions"]]
            rows += [(look.step.id if not row else "", look.state if not row else "", *cells) for row, cells in
                     enumerate(found)]  # fmt: skip
        columns = ("step", "state", "what changed", "before", "now")
        return Table(f"what the outputs were made from, and what they would be made from now ({self.folder})", columns,
                     tuple(rows))  # fmt: skip

    def table(self) -> Table:
        """The plan for people, with totals."""
        rows: list[tuple[str, ...]] = []
        rows += [(look.step.id, "as it is", look.reason, "", "", "") for look in self.taken]
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
        priced = [look.estimate for look in self.looks if look.estimate is not None and look.artifact is None]
        notes += [f"{name}: {value}, where nothing says that it was timed" for name, value in busy_rows(*priced)]
        columns = ("step", "state", "why", "time", "memory", "disk")
        return Table(f"what a run would do ({self.folder})", columns, tuple(rows), tuple(notes))


def _brief(value: Any, missing: str) -> str:
    """A value, or the beginning of a digest, for a cell of a table."""
    text = missing if value is None else str(value)
    return text[:10] if len(text) == 64 else text


def _after(change: Change) -> str:
    return "will be made anew" if change.part == "input" and "anew" in change.text else "default"


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
    taken = bench.take_all(graph)
    looks = []
    for step in graph.steps.values():
        look = bench.look(step)
        if look.artifact is not None:
            bench.done(step.id, look.artifact)
        elif estimates:
            look = bench.price(look)
        looks.append(look)
    return Plan(folder, tuple(looks), graph.off, tuple(taken))
