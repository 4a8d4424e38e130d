"""Which learning rate: short runs at several rates, each from the same weights over the same text, before the run.

A short run has a schedule of its own (a tenth of it warm-up, then straight down), because the first steps of a long
run are warm-up and would say nothing. What is compared are the probes, never the training loss: a rate that is too
high for the languages that must be kept may well be the best for the one that is learnt.
"""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from langadapt.core.errors import ConfigError, TrainingFailed
from langadapt.core.io import pretty_json, read_json_object, replace_durably
from langadapt.core.progress import Progress
from langadapt.core.types import Table
from langadapt.train.plan import Plan
from langadapt.train.probing import WARN_FORGETTING
from langadapt.train.schedule import Schedule

# Beside the checkpoints while rates are tried.
FILE = "lr_probe.json"
_WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class Tried:
    """One short run: first and last value of every probe (bits per byte), or why it was stopped."""

    learning_rate: float
    probes: dict[str, dict[str, float]]
    stopped: str | None = None

    def sentence(self) -> str:
        """What came of it."""
        if self.stopped is not None:
            return f"learning rate {self.learning_rate:g} was stopped: {self.stopped}"
        ends = [f"{name} {two['end']:.3f} ({two['end'] / two['start'] - 1:+.1%})" for name, two in self.probes.items()]
        return f"learning rate {self.learning_rate:g}: bits per byte of {', '.join(sorted(ends))}"

    def change(self, names: set[str]) -> float:
        """Mean relative change of some probes: -0.1 is a tenth fewer bits."""
        return fmean(self.probes[name]["end"] / self.probes[name]["start"] - 1.0 for name in names)

    def forgotten(self, watched: frozenset[str]) -> float:
        """The largest relative rise of a watched probe; 0 without any."""
        rises = [ends["end"] / ends["start"] - 1.0 for name, ends in self.probes.items() if name in watched]
        return max(rises, default=0.0)


@dataclass(frozen=True)
class Choice:
    """The rate that was picked, and half a sentence why."""

    learning_rate: float
    why: str
    steps: int
    tried: tuple[Tried, ...]

    def content(self) -> dict[str, Any]:
        """As `lr_probe.json` holds it."""
        return asdict(self)


Attempt = Callable[[Plan, Path], dict[str, dict[str, float]]]


def rates_to_try(peak: float, factors: Sequence[float]) -> list[float]:
    """Each factor of the peak, rising, as a person would write it; the peak itself stays as it was given."""
    return sorted({peak if factor == 1.0 else float(f"{peak * factor:.3g}") for factor in factors})


def probe_steps(plan: Plan, wanted: int) -> int:
    """Steps of one short run: never more than the run itself has."""
    return min(wanted, plan.budget.steps)


def short_plan(plan: Plan, rate: float, steps: int, checkpoint_steps: int | None) -> Plan:
    """The plan of one short run: the same batches as the first of the run, probes at both ends."""
    warmup = max(1, round(_WARMUP_SHARE * steps))
    return replace(
        plan,
        budget=replace(plan.budget, steps=steps, warmup_steps=warmup, tokens=steps * plan.budget.batch_tokens),
        schedule=Schedule(rate, steps, warmup, plan.schedule.final_share, "linear"),
        probe_every=steps,
        checkpoint_every=checkpoint_steps or steps,
        kept_step=None,
    )


def watched_in(langs: Mapping[str, str], targets: Collection[str]) -> frozenset[str]:
    """Names of the probes that are guarded, of all with their languages. ConfigError: none is left to compare by."""
    watched = frozenset(name for name, lang in langs.items() if lang not in targets)
    if not langs.keys() - watched:
        raise ConfigError(
            "`lr_probe` compares held-out text of the language that is learnt, and the data have none",
            where="lr_probe",
            hint="make them from corpora of `prepare`, which holds some out, or give `--learning-rate`",
        )
    return watched


def choose_rate(
    plan: Plan,
    factors: Sequence[float],
    steps: int,
    checkpoint_steps: int | None,
    attempt: Attempt,
    *,
    watched: frozenset[str],
    folder: Path,
    progress: Progress,
) -> Choice:
    """Try each rate and pick one; what is done already stands in `folder` and is not done again.

    `attempt(plan, folder)` trains from the start weights and returns the first and last value of every probe.
    TrainingFailed: no rate came through.
    """
    record, count = folder / FILE, probe_steps(plan, steps)
    done = _read(record)
    for number, rate in enumerate(rates_to_try(plan.schedule.peak, factors)):
        place = folder / "lr-probe" / str(number)
        if rate not in done:
            progress.note(f"trying learning rate {rate:g} for {count} steps")
            place.mkdir(parents=True, exist_ok=True)
            try:
                done[rate] = Tried(rate, attempt(short_plan(plan, rate, count, checkpoint_steps), place))
            except TrainingFailed as error:
                done[rate] = Tried(rate, {}, error.message)
            replace_durably(record, pretty_json({"tried": [asdict(each) for each in done.values()]}))
            progress.note(done[rate].sentence())
        shutil.rmtree(place, ignore_errors=True)  # also that of a run which was killed between the record and here
    choice = pick([done[rate] for rate in sorted(done)], watched, count)
    progress.note(f"learning rate {choice.learning_rate:g}: {choice.why}")
    return choice


def pick(tried: Sequence[Tried], watched: frozenset[str], steps: int) -> Choice:
    """The lowest mean of the target's probes among the rates whose watched probes stayed below the warning limit.

    When all are above it, the one that forgets least. TrainingFailed when all were stopped.
    """
    through = [each for each in tried if each.stopped is None]
    if not through:
        raise TrainingFailed(
            f"every learning rate that was tried ruins the model; {tried[0].learning_rate:g}: {tried[0].stopped}",
            hint="give a lower `--learning-rate`, with another `--out`",
        )
    calm = [each for each in through if each.forgotten(watched) <= WARN_FORGETTING]
    if not calm:
        least = min(through, key=lambda each: (each.forgotten(watched), each.learning_rate))
        why = (
            f"every rate makes a guarded probe worse by more than {WARN_FORGETTING:.0%}; "
            f"this one the least, {least.forgotten(watched):+.1%}"
        )
        return Choice(least.learning_rate, why, steps, tuple(tried))
    best = min(calm, key=lambda each: (each.change(each.probes.keys() - watched), each.learning_rate))
    why = f"the target's bits change by {best.change(best.probes.keys() - watched):+.1%} in {steps} steps, the most"
    if len(calm) < len(tried):
        why += f" of {len(calm)} that keep what is guarded" if len(calm) > 1 else "; the only one that keeps the guard"
    edge = "higher" if best is tried[-1] else "lower" if best is tried[0] else None
    if edge is not None and len(tried) > 1:
        why += f"; nothing {edge} was tried"
    return Choice(best.learning_rate, why, steps, tuple(tried))


def _read(record: Path) -> dict[float, Tried]:
    lines = read_json_object(record)["tried"] if record.is_file() else []
    return {each["learning_rate"]: Tried(each["learning_rate"], each["probes"], each["stopped"]) for each in lines}


def table_of(content: Mapping[str, Any]) -> Table:
    """The rates side by side, from `lr_probe.json` or the facts of the model."""
    tried = content["tried"]
    names = sorted({name for each in tried for name in each["probes"]})
    rows = []
    for each in tried:
        ends = [each["probes"].get(name) for name in names]
        cells = ["-" if two is None else f"{two['end']:.3f} ({two['end'] / two['start'] - 1:+.1%})" for two in ends]
        last = "picked" if each["learning_rate"] == content["learning_rate"] else "stopped" if each["stopped"] else ""
        rows.append((f"{each['learning_rate']:g}", *cells, last))
    note = f"bits per byte after {content['steps']} steps; {content['why']}"
    return Table("learning rates tried", ("rate", *names, ""), tuple(rows), (note,))
