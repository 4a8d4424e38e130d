"""Checkpoints: what training needs to go on, written with the commit protocol of every artifact."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from langadapt.core.artifact import Artifact, Identity, Output, open_artifact, writing
from langadapt.core.errors import DataError, LangadaptError, ResourceError
from langadapt.core.io import canonical_json, free_disk_bytes, pretty_json, read_json_object, write_durably
from langadapt.core.progress import Progress
from langadapt.core.units import show_bytes
from langadapt.train.journal import Journal
from langadapt.train.optimiser import Optimiser

# On a GPU the tensors of one file are copied to memory at a time.
FILE_BYTES = 256_000_000
_NAME = re.compile(r"step-\d{6,}")


@dataclass(frozen=True)
class Saved:
    """Where a checkpoint stands: its step, blocks read per source, and how it was computed."""

    step: int
    consumed: dict[str, int] = field(default_factory=dict)
    computed_with: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in `folder`; `run` is the fingerprint of the run they belong to."""

    folder: Path
    run: str
    keep: int
    progress: Progress
    computed_with: dict[str, Any] = field(default_factory=dict)

    def save(self, step: int, optimiser: Optimiser, journal: Journal, consumed: Mapping[str, int]) -> None:
        """Write a checkpoint, then remove the oldest beyond `keep`. ResourceError when the disk is full."""
        place = self._place(step)
        identity = Identity("checkpoint", "cpt", 1, {"step": step}, {"run": self.run})
        if place.exists():  # it was skipped as damaged, and the run has come to this step again
            shutil.rmtree(place)
        with writing(place, identity, inputs={}, progress=self.progress) as (_, target):
            if isinstance(target, Artifact):
                raise LangadaptError(f"internal: `{place}` appeared while it was being written")
            files = _write_tensors(target, optimiser)
            write_durably(target.folder / "metrics.jsonl", journal.path.read_bytes())
            state = {
                "step": step,
                "consumed": dict(consumed),
                "computed_with": dict(self.computed_with),
                "files": files,
            }
            write_durably(target.folder / "state.json", pretty_json(state))
            target.commit({"step": step})
        for old in self.places()[: -self.keep]:
            shutil.rmtree(old)

    def places(self) -> list[Path]:
        """Folders of all checkpoints, oldest first, damaged ones too."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    def newest(self) -> tuple[Artifact, Saved] | None:
        """The newest checkpoint whose content is intact; damaged ones are named and passed over."""
        for torn in self.folder.glob("step-*.tmp-*"):  # of a run that was killed; the caller holds the run's lock
            shutil.rmtree(torn, ignore_errors=True)
        for place in reversed(self.places()):
            try:
                artifact = open_artifact(place, "checkpoint")
                artifact.verify()
                state = read_json_object(artifact.file("state.json"))
            except DataError as error:
                self.progress.warn(f"checkpoint `{place.name}` is passed over: {error.message}")
                continue
            if artifact.manifest["inputs"].get("run") != self.run:
                self.progress.warn(f"checkpoint `{place.name}` is passed over: it belongs to another run")
                continue
            return artifact, Saved(int(state["step"]), dict(state["consumed"]), dict(state["computed_with"]))
        return None

    def restore(self, artifact: Artifact, saved: Saved, optimiser: Optimiser, journal: Journal) -> None:
        """Put weights, moments and journal back as they were. DataError if the checkpoint is of another model."""
        missing = optimiser.names()
        for name, tensor in _read_tensors(artifact):
            if name not in missing:
                raise DataError(f"`{artifact.path}` holds `{name}`, which this run does not train")
            optimiser.put_back(name, tensor)
            missing.discard(name)
        if missing:
            raise DataError(f"`{artifact.path}` lacks `{min(missing)}`")
        optimiser.set_steps(saved.step)
        journal.rewind(artifact.file("metrics.jsonl").read_bytes())

    def check_disk(self, bytes_of_one: int, bytes_of_result: int) -> None:
        """ResourceError if the kept checkpoints, one being written and the result do not fit."""
        there = sum(file.stat().st_size for place in self.places() for file in place.iterdir())
        needed = max(0, (self.keep + 1) * bytes_of_one - there) + bytes_of_result
        free = free_disk_bytes(self.folder)
        if needed > free:
            raise ResourceError(
                f"this run needs {show_bytes(needed)} of disk for {self.keep} checkpoints, one being written and the "
                f"result; {show_bytes(free)} are free",
                hint="free some space, give an `--out` on another disk, or `-o keep_checkpoints=1`",
            )

    def _place(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"


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


def _write_file(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write fp32 tensors in the safetensors layout: length of the header, header, values.

    The library's own writer makes two copies of everything in memory and reports a full disk without its number.
    """
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = canonical_json(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.to(torch.float32).numpy().data)
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
