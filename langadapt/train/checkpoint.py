"""Checkpoints: what training needs to go on, written with the commit protocol of every artifact."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from langadapt.core.artifact import Artifact, Identity, Output, keeping, open_artifact
from langadapt.core.deadline import reserve
from langadapt.core.errors import DataError, ResourceError
from langadapt.core.io import canonical_json, free_disk_bytes, pretty_json, read_json_object, write_durably
from langadapt.core.manifest import MANIFEST
from langadapt.core.progress import Progress
from langadapt.core.units import show_bytes
from langadapt.train.ema import PREFIX
from langadapt.train.journal import Journal
from langadapt.train.optimiser import Optimiser

# On a GPU the tensors of one file are copied to memory at a time.
FILE_BYTES = 256_000_000
_NAME = re.compile(r"step-\d{6,}")


@dataclass(frozen=True)
class Saved:
    """Where a checkpoint stands: its step, blocks read per source, how it was computed, and what it belongs to.

    `moved` counts the steps of each parameter that has taken one; `origin` is what a branch from here must know.
    `parts` is the digest of what moves of which tensor, empty where all that moves does so as a whole.
    """

    step: int
    consumed: dict[str, int] = field(default_factory=dict)
    computed_with: dict[str, Any] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    parts: str = ""


def read_saved(artifact: Artifact) -> Saved:
    """What a checkpoint says of itself. DataError if it is not one of this version."""
    state = read_json_object(artifact.file("state.json"))
    try:
        return Saved(
            int(state["step"]),
            dict(state["consumed"]),
            dict(state["computed_with"]),
            {name: int(steps) for name, steps in state["moved"].items()},
            dict(state["origin"]),
            str(state.get("parts", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"`{artifact.path / 'state.json'}` is not of this version of langadapt") from error


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in `folder`; `run` is the fingerprint of the run they belong to.

    A checkpoint at a step in `pinned` is kept to the end of the run: it becomes part of the result.
    """

    folder: Path
    run: str
    keep: int
    progress: Progress
    computed_with: dict[str, Any] = field(default_factory=dict)
    pinned: frozenset[int] = frozenset()
    origin: Callable[[int], Mapping[str, Any]] = lambda step: {}

    def save(self, step: int, optimiser: Optimiser, journal: Journal, consumed: Mapping[str, int]) -> None:
        """Write a checkpoint, then remove the oldest beyond `keep`. ResourceError when the disk is full."""
        began, place = time.monotonic(), self._place(step)
        identity = Identity("checkpoint", "cpt", 1, {"step": step}, {"run": self.run})
        # what is there was skipped as damaged, and the run has come to this step again
        with keeping(place, identity, progress=self.progress) as target:
            files = _write_tensors(target, optimiser)
            write_durably(target.folder / "metrics.jsonl", journal.content())
            state = {
                "step": step,
                "consumed": dict(consumed),
                "computed_with": dict(self.computed_with),
                "moved": optimiser.moved(),
                "origin": dict(self.origin(step)),
                "files": files,
            }
            if optimiser.parts.digest:
                state["parts"] = optimiser.parts.digest
            write_durably(target.folder / "state.json", pretty_json(state))
            target.commit({"step": step})
        reserve(2 * (time.monotonic() - began))
        usual = [place for place in self.places() if _step(place) not in self.pinned]
        for old in usual[: -self.keep]:
            shutil.rmtree(old)

    def newest_before(self, step: int) -> Path | None:
        """Folder of the newest checkpoint of fewer than `step` steps."""
        return next((place for place in reversed(self.places()) if _step(place) < step), None)

    def holds(self, step: int) -> bool:
        """Is there an intact checkpoint of this step?"""
        return self._intact(self._place(step)) is not None

    def places(self) -> list[Path]:
        """Folders of all checkpoints, oldest first, damaged ones too."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=_step)

    def newest(self) -> tuple[Artifact, Saved] | None:
        """The newest checkpoint whose content is intact; damaged ones are named and passed over."""
        for torn in self.folder.glob("step-*.tmp-*"):  # of a run that was killed; the caller holds the run's lock
            shutil.rmtree(torn, ignore_errors=True)
        for place in reversed(self.places()):
            found = self._intact(place)
            if found is None:
                continue
            lost = [step for step in self.pinned if step < _step(place) and self._intact(self._place(step)) is None]
            if lost:
                self.progress.warn(f"checkpoint `{place.name}` is passed over: that of step {lost[0]:,} is needed too")
                continue
            return found
        return None

    def _intact(self, place: Path) -> tuple[Artifact, Saved] | None:
        """A checkpoint of this run, checked to the last byte; None if it is missing, damaged or of another run."""
        if not place.is_dir():
            return None
        try:
            artifact = open_artifact(place, "checkpoint")
            artifact.verify()
            saved = read_saved(artifact)
        except DataError as error:
            self.progress.warn(f"checkpoint `{place.name}` is passed over: {error.message}")
            return None
        if artifact.manifest["inputs"].get("run") != self.run:
            self.progress.warn(f"checkpoint `{place.name}` is passed over: it belongs to another run")
            return None
        return artifact, saved

    def copy_pinned(self, step: int, target: Path) -> None:
        """Copy the checkpoint of a pinned step, without what differs from run to run."""
        artifact = open_artifact(self._place(step), "checkpoint")
        target.mkdir()
        for name in [*artifact.manifest["files"], MANIFEST]:
            shutil.copyfile(artifact.path / name, target / name)

    def restore(
        self, artifact: Artifact, saved: Saved, optimiser: Optimiser, journal: Journal, *, other_data: bool = False
    ) -> None:
        """Put weights, moments and journal back as they were, but for probes where `other_data` has its own.

        DataError if the checkpoint is of other weights.
        """
        if saved.parts != optimiser.parts.digest:
            raise other_moves(artifact.path)
        if strange := saved.moved.keys() - optimiser.parameters.keys():
            raise _of_others(artifact, min(strange))
        missing, average = optimiser.expect(saved.moved), optimiser.average
        for name, tensor in _read_tensors(artifact):
            if name.startswith(PREFIX):
                # A branch may average what the run before it did not, and the other way round
                if average is not None and not average.put_back(name, tensor):
                    raise _of_others(artifact, name)
                continue
            if name not in missing or not optimiser.put_back(name, tensor):
                raise _of_others(artifact, name)
            missing.discard(name)
        if missing:
            raise _of_others(artifact, min(missing))
        if average is not None:
            average.settle()
        journal.rewind(artifact.file("metrics.jsonl").read_bytes(), probes=not other_data)

    def check_disk(self, bytes_of_one: int, bytes_of_result: int, *, due: int) -> None:
        """ResourceError if the checkpoints that will lie side by side and the result do not fit; `due` are to come."""
        there = sum(file.stat().st_size for place in self.places() for file in place.iterdir())
        # one that a stopped run has left lies beside those to come
        ever = due + len(self.places())
        count = most_at_once(self.keep, ever)
        needed = max(0, count * bytes_of_one - there) + bytes_of_result
        free = free_disk_bytes(self.folder)
        if needed > free:
            raise ResourceError(
                f"this run needs {show_bytes(needed)} of disk for the result and {count} "
                f"checkpoint{'' if count == 1 else 's'} (one being written); {show_bytes(free)} are free",
                hint="free some space, or give an `--out` on another disk"
                + (", or `-o keep_checkpoints=1`" if count > most_at_once(1, ever) else ""),
            )

    def _place(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"


def most_at_once(keep: int, due: int) -> int:
    """How many checkpoints lie side by side at most, of a run in which `due` of them fall due.

    A stopped run writes one more than those; the oldest goes after the newest is complete.
    """
    return min(keep, due) + 1


def other_moves(place: Path) -> DataError:
    """The error for a state of a run in which not the same may move."""
    return DataError(
        f"`{place}` was written by a run in which other rows, columns or values may move than in this",
        hint="give the selection, or the strategy with its options, of that run",
    )


def _of_others(artifact: Artifact, name: str) -> DataError:
    return DataError(
        f"`{artifact.path}` was not written by a run that trains what this one does: they differ in `{name}`",
        hint="give the strategy, its options and the `--moments` of that run",
    )


def _step(place: Path) -> int:
    return int(place.name.removeprefix("step-"))


def _write_tensors(target: Output, optimiser: Optimiser) -> list[str]:
    names: list[str] = []
    group: dict[str, torch.Tensor] = {}
    size = 0

    def flush() -> None:
        name = f"trained-{len(names):05d}.safetensors"
        _write_file(target.folder / name, group)
        names.append(name)
        group.clear()

    for name, tensor in optimiser.tensors():
        amount = tensor.numel() * tensor.element_size()
        if group and size + amount > FILE_BYTES:
            flush()
            size = 0
        group[name] = tensor.cpu().contiguous()
        size += amount
    if group:
        flush()
    return names


_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint8: "U8"}


def _write_file(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors in the safetensors layout: length of the header, header, values.

    The library's own writer makes two copies of everything in memory and reports a full disk without its number.
    """
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.element_size() * tensor.numel()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = canonical_json(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            # as bytes: numpy knows no bfloat16
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())


def _read_tensors(artifact: Artifact) -> Iterator[tuple[str, torch.Tensor]]:
    for name in read_json_object(artifact.file("state.json"))["files"]:
        try:
            with safe_open(str(artifact.file(name)), framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a mapping)
                    yield key, file.get_tensor(key)
        except SafetensorError as error:
            raise DataError(f"`{artifact.path / name}` cannot be read: {error}") from error
