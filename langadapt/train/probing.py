"""What is measured beside training, recorded and compared with the first of its kind: may the run go on?"""

import math

from langadapt.core.errors import TrainingFailed
from langadapt.train.around import Surroundings
from langadapt.train.incident import what_is_left

# A rise of the source probes that is worth a warning; `Settings.max_forgetting` is the one that stops the run.
WARN_FORGETTING = 0.03
# A probe of the target's language that needs twice the bits it needed at first: that is no training.
_RUINED = 1.0
_LOWER = "lower `--learning-rate`, with another `--out`"


def measure(around: Surroundings, step: int, batch_tokens: int) -> None:
    """Record bits per byte at this step, and what gauges give, unless that was done before a restart."""
    if around.journal.probes_at(step) is not None:
        return
    with around.plainly():
        values = around.probe()
        beside = {gauge.name: found for gauge in around.gauges if (found := gauge.measure(step))}
    wrong = [name for name, value in sorted(values.items()) if not math.isfinite(value)]
    if wrong:
        raise TrainingFailed(f"{around.unit} of `{wrong[0]}` are not finite at step {step}", hint=_LOWER)
    for gauge, found in beside.items():
        if any(isinstance(value, float) and not math.isfinite(value) for value in found.values()):
            raise TrainingFailed(f"`{gauge}` is not finite at step {step}", hint=_LOWER)
    around.journal.add_probes(step, step * batch_tokens, values, beside)
    shown = ", ".join(f"{name} {value:.3f}" for name, value in sorted(values.items()))
    around.progress.note(f"step {step}: {shown} {around.unit}")


def check_ruin(around: Surroundings, step: int) -> None:
    """TrainingFailed: what is learned needs twice its bits. What there is now is not worth keeping."""
    for name, rise, said in _rises(around, step):
        if name not in around.watched and not rise <= _RUINED:
            left = what_is_left(bool(around.checkpoints.places()))
            raise TrainingFailed(f"{said}: training ruins the model; {left}", hint=_LOWER)


def judge(around: Surroundings, step: int, max_forgetting: float) -> None:
    """Compare what must not get worse with the first probe; TrainingFailed where the run must not go on."""
    first = around.journal.first_probed
    if first is None or first == step:
        return
    for gauge in around.gauges:
        warning = gauge.judge(step, around.journal.beside(step, gauge.name), around.journal.beside(first, gauge.name))
        if warning is not None:
            around.progress.warn(warning)
    for name, rise, said in _rises(around, step):
        if name not in around.watched:
            continue
        if not rise <= max_forgetting:  # a value that is not a number must not pass
            raise TrainingFailed(
                f"{said}: the model is forgetting; the last checkpoint is kept",
                hint="lower `--learning-rate` or mix in more replay, with another `--out`; "
                f"or go on with `--max-forgetting {math.ceil(rise * 100 + 1) / 100:.2f}`"
                if math.isfinite(rise)
                else _LOWER,
            )
        if rise > WARN_FORGETTING:
            around.progress.warn(said)


def _rises(around: Surroundings, step: int) -> list[tuple[str, float, str]]:
    """(name, rise over the first, both in words) of each probe of a step."""
    values, start = (around.journal.probes_at(at) or {} for at in (step, around.journal.first_probed or 0))
    found = []
    for name in sorted(values.keys() & start.keys()):
        rise = values[name] / start[name] - 1.0
        course = f"from {start[name]:.3f} to {values[name]:.3f} {around.unit}"
        found.append((name, rise, f"`{name}` went {course} ({rise:+.1%}) at step {step}"))
    return found
