"""Going on from the checkpoint of another run: with more steps, other data, or without some of the text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from langadapt.core.artifact import Artifact, open_artifact
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input
from langadapt.train.checkpoint import Saved, read_saved

# Where a model artifact keeps the state before its decay.
FOLDER = "branch"


@dataclass(frozen=True)
class Branch:
    """A checkpoint to begin from; `same_data`: the run goes on in the stream that the checkpoint stood in."""

    artifact: Artifact
    saved: Saved
    same_data: bool

    @property
    def step(self) -> int:
        """Steps that lie behind."""
        return self.saved.step

    @property
    def data_from(self) -> int:
        """The step at which the data of the run to come were begun; those before it read other data."""
        return int(self.saved.origin.get("data_from", 0)) if self.same_data else self.step

    def origin(self, name: str) -> Any:
        """One of the settings of the run that wrote the checkpoint."""
        return self.saved.origin[name]


def open_branch(given: Input, model: Input, data: Input) -> Branch:
    """The checkpoint in a model that was made with `keep_branch`, or a checkpoint itself.

    DataError: there is none, or it was begun from another model.
    """
    if not given.exists or given.artifact is None:
        raise ConfigError(f"`{given.given}` has to exist before it can be branched from")
    artifact = given.artifact
    if artifact.kind == "model":
        if not (artifact.path / FOLDER).is_dir():
            raise DataError(
                f"`{given.given}` does not hold the state before its decay",
                hint="make it with `--schedule wsd --keep-branch`, or give a checkpoint: "
                "`DIR.partial/checkpoints/step-...` of a run that was stopped",
            )
        artifact = open_artifact(artifact.path / FOLDER, "checkpoint")
    saved = read_saved(artifact)
    if saved.origin.get("model") != model.digest:
        raise DataError(
            f"`{given.given}` was begun from another model than `{model.given}`",
            hint="give the model that its training began with: only what moved is in the checkpoint",
        )
    return Branch(artifact, saved, saved.origin.get("data") == data.digest)


@dataclass(frozen=True)
class Places:
    """Where in the stream a step reads: `blocks` places a step from `start` on, without those that are left out.

    `start` is where step `start_step` reads; `data_from` is the step at which the stream was begun.
    """

    blocks: int
    start: int = 0
    start_step: int = 0
    skipped: tuple[range, ...] = ()
    data_from: int = 0

    def at(self, step: int) -> list[int]:
        """Positions of a step."""
        first = self.start + (step - self.start_step) * self.blocks
        return [self._actual(first + offset) for offset in range(self.blocks)]

    def end(self, steps: int) -> int:
        """The position after the last one that was read when `steps` steps are done."""
        return self.start if steps <= self.start_step else self.at(steps - 1)[-1] + 1

    def skipped_before(self, end: int) -> tuple[range, ...]:
        """Those left out below a position."""
        return tuple(range(each.start, min(each.stop, end)) for each in self.skipped if each.start < end)

    def _actual(self, position: int) -> int:
        for each in self.skipped:
            if each.start < self.start:  # of the run before; `start` is behind it
                continue
            if position < each.start:
                break
            position += len(each)
        return position


def make_places(blocks: int, wanted: Sequence[str], branch: Branch | None) -> Places:
    """Places of a run. `wanted` are ranges `first:last` of positions to leave out, the last one excluded.

    ConfigError: a range that is none, overlaps another, or lies in what the branch has read.
    """
    same = branch is not None and branch.same_data
    start = int(branch.origin("position")) if branch is not None and same else 0
    before = [_range(text) for text in branch.origin("skipped")] if branch is not None and same else []
    own = sorted((_range(text) for text in wanted), key=lambda each: each.start)
    for one, other in pairwise(own):
        if one.stop > other.start:
            raise ConfigError(f"`skip_positions`: {words(one)} and {words(other)} overlap")
    if own and own[0].start < start:
        raise ConfigError(f"`skip_positions`: {words(own[0])} was read before the branch, which is at {start}")
    step, data_from = (branch.step, branch.data_from) if branch is not None else (0, 0)
    return Places(blocks, start, step, (*before, *own), data_from)


def words(positions: range) -> str:
    """A range as people write it: `3200:3264`."""
    return f"{positions.start}:{positions.stop}"


def _range(text: str) -> range:
    first, _, last = text.partition(":")
    if not (first.isascii() and first.isdecimal() and last.isascii() and last.isdecimal() and int(first) < int(last)):
        raise ConfigError(f"`skip_positions`: `{text}` is not a range of positions", hint="write e.g. 3200:3264")
    return range(int(first), int(last))


def origin_of(
    model: Input, data: Input, places: Places, *, batch_tokens: int, learning_rate: float, warmup_steps: int
) -> Callable[[int], Mapping[str, Any]]:
    """What a branch from the checkpoint of a step has to know, as a function of the step."""

    def at(step: int) -> Mapping[str, Any]:
        position = places.end(step)
        return {
            "model": model.digest,
            "data": data.digest,
            "batch_tokens": batch_tokens,
            "learning_rate": learning_rate,
            "warmup_steps": warmup_steps,
            "position": position,
            "data_from": places.data_from,
            "skipped": [words(each) for each in places.skipped_before(position)],
        }

    return at
