"""Artifacts: folders that are complete or do not exist. This file is the only writer of them.

A folder counts if it has a valid `artifact.json`. It is written beside its place under a temporary name, fsynced,
its manifest last, and renamed in once. Nothing in the manifest holds a time, a path or a host, so two identical
runs give identical bytes.
"""

import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langadapt.core.difference import named_differences
from langadapt.core.errors import DataError, LangadaptError, OutputError, ResourceError
from langadapt.core.host import environment, peak_device_memory_bytes, peak_memory_bytes
from langadapt.core.io import (
    append_json_line,
    canonical_json,
    fsync_path,
    is_full,
    may_write,
    pretty_json,
    read_json_object,
    replace_durably,
    sha256_file,
    sha256_text,
    write_durably,
)
from langadapt.core.lock import Lock
from langadapt.core.manifest import FORMAT, MADE_AGAIN, MANIFEST, Facts, checksum, read_manifest
from langadapt.core.progress import Progress

# Written beside the hashed files but never hashed: they hold times, paths and hosts.
UNHASHED = ("run.json", "timings.jsonl")
NOTE = "partial.json"
_OTHER = "`langadapt show DIR` says what a folder is and what made it"
_TOKEN = re.compile(r"[0-9a-f]{8}")


def stage(name: str) -> None:
    """Called between the stages of a commit; does nothing. Fault tests replace it to kill the process there."""


@dataclass(frozen=True)
class Artifact:
    """A complete artifact on disk."""

    path: Path
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        """One line: a notebook shows it, and a manifest has hundreds."""
        return f"<{self.kind} made by {self.manifest['verb']}: {self.path}>"

    @property
    def kind(self) -> str:
        """One of the kinds of docs/artifacts.md."""
        return str(self.manifest["kind"])

    @property
    def fingerprint(self) -> str:
        """Digest of verb, schema, resolved config and input digests."""
        return str(self.manifest["fingerprint"])

    @property
    def facts(self) -> Facts:
        """What the step found out: counts, measurements, checks."""
        return Facts(self.path, self.manifest["facts"])

    @property
    def digest(self) -> str:
        """Digest of the whole content: of the manifest, which holds the digest of every file."""
        return sha256_text(pretty_json(self.manifest))

    def file(self, name: str, *, check_size: bool = True) -> Path:
        """Path of one of its files; DataError if it is missing or has another size than the manifest says."""
        entry = self.manifest["files"].get(name)
        path = self.path / name
        if entry is None or not path.is_file():
            raise DataError(f"`{self.path}` has no file `{name}`")
        if check_size and path.stat().st_size != entry["bytes"]:
            raise DataError(
                f"`{path}` has {path.stat().st_size:,} bytes, its manifest says {entry['bytes']:,}", hint=MADE_AGAIN
            )
        return path

    def verify(self, *, content: bool = True) -> None:
        """Check every file against the manifest: presence and size, and with `content` also its SHA-256."""
        for name, entry in sorted(self.manifest["files"].items()):
            path = self.file(name)
            if content and sha256_file(path) != entry["sha256"]:
                raise DataError(
                    f"`{path}` was changed after it was written: its SHA-256 does not match", hint=MADE_AGAIN
                )


def open_artifact(path: Path, *kinds: str) -> Artifact:
    """Open a complete artifact of one of `kinds` (any kind if none is given); DataError says what is wrong."""
    if not (path / MANIFEST).is_file():
        if partial_folder(path).is_dir():
            raise DataError(f"`{path}` is not finished", hint="run the command that makes it again, it will go on")
        if not path.exists():
            raise DataError(f"`{path}` does not exist")
        raise DataError(f"`{path}` is not an artifact: it has no {MANIFEST}", hint=its_folder(path))
    manifest = read_manifest(path / MANIFEST)
    if kinds and manifest["kind"] not in kinds:
        raise DataError(f"`{path}` is a {manifest['kind']} artifact; expected {' or '.join(kinds)}", hint=_OTHER)
    artifact = Artifact(path, manifest)
    artifact.verify(content=False)
    return artifact


def is_artifact(path: Path) -> bool:
    """Does the folder have a manifest?"""
    return (path / MANIFEST).is_file()


def its_folder(path: Path) -> str | None:
    """The hint for a file of an artifact that was given in its place."""
    return f"give its folder: `{path.parent}`" if path.is_file() and is_artifact(path.parent) else None


def named(place: Path) -> Path:
    """The same place with a name of its own: `.` and `a/..` are replaced by the folder they mean."""
    return place if place.name not in ("", "..") else place.resolve()


def partial_folder(out: Path) -> Path:
    """Where a step keeps committed checkpoints until its artifact is complete."""
    place = named(out)
    return place.parent / f"{place.name}.partial"


def _kept(partial: Path) -> bool:
    """Does an unfinished run hold anything to go on with? Its note, empty folders and empty files are nothing."""
    files = (path for path in partial.rglob("*") if path.is_file() and not path.name.startswith(NOTE))
    return partial.is_dir() and any(path.stat().st_size > 0 for path in files)


def _sweep_partial(place: Path) -> None:
    """Remove `<place>.partial` if it is ours: a folder without our note is somebody's, whatever its name."""
    if (partial_folder(place) / NOTE).is_file():
        # A kill in the middle of the removal must not leave a folder without its note: nobody could tell whose it is
        doomed = place.with_name(f"{place.name}.tmp-{secrets.token_hex(4)}")
        partial_folder(place).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


@dataclass(frozen=True)
class Identity:
    """What makes two runs the same: the digest of this is the fingerprint."""

    kind: str
    verb: str
    schema: int
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]

    @property
    def parts(self) -> dict[str, Any]:
        """What the fingerprint is made of, to name what differs from another run."""
        return {
            "verb": self.verb, "schema": self.schema, "config": dict(self.config), "inputs": dict(self.inputs)
        }  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """Hex digest; equal for runs that must give equal bytes."""
        return sha256_text(canonical_json([self.verb, self.schema, self.config, self.inputs]))[:32]


@dataclass
class Output:
    """What a running step writes into: a temporary folder that becomes the artifact at `commit`."""

    place: Path
    folder: Path
    identity: Identity
    progress: Progress
    inputs: Mapping[str, Any]
    run_record: dict[str, Any] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _committed: Artifact | None = None
    _timings_lost: bool = False

    @property
    def partial(self) -> Path:
        """Folder that survives a kill; empty on a first run, as the last run left it when this one continues."""
        folder = partial_folder(self.place)
        if not (folder / NOTE).is_file():
            if folder.is_dir() and any(not path.name.startswith(NOTE) for path in folder.iterdir()):
                raise OutputError(f"`{folder}` exists and is not of langadapt", hint="give another `--out`")
            folder.mkdir(exist_ok=True)
            replace_durably(
                folder / NOTE, pretty_json({"fingerprint": self.identity.fingerprint, **self.identity.parts})
            )
        return folder

    def timing(self, name: str, **values: Any) -> None:
        """Record something that differs from run to run; it goes to timings.jsonl of the artifact.

        Nothing depends on it: on a full disk the work goes on without.
        """
        if self._timings_lost:
            return
        try:
            append_json_line(self.folder / "timings.jsonl", {"name": name, **values})
        except OSError as error:
            if not is_full(error):
                raise
            self._timings_lost = True
            lost = "no space left for `timings.jsonl`: the work goes on, but its times are lost"
            if lost not in self.progress.warnings:  # a checkpoint has its own file and the same listener
                self.progress.warn(lost)

    def commit(self, facts: Mapping[str, Any]) -> Artifact:
        """Make the folder durable and rename it into place; `facts` summarise what the step found out."""
        stage("written")
        self.run_record |= environment() | {"seconds": round(time.monotonic() - self._began, 3)}
        self.run_record["peak_memory_bytes"] = peak_memory_bytes()
        if (device_bytes := peak_device_memory_bytes()) is not None:
            self.run_record["peak_device_memory_bytes"] = device_bytes
        self.timing("step", seconds=self.run_record["seconds"], peak_memory_bytes=self.run_record["peak_memory_bytes"])
        write_durably(self.folder / "run.json", pretty_json(self.run_record))
        files = {}
        for path in sorted(_files_below(self.folder)):
            fsync_path(path)
            name = path.relative_to(self.folder).as_posix()
            if name not in UNHASHED:
                files[name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(self.folder.rglob("*")):
            if path.is_dir():
                fsync_path(path)
        stage("files-durable")
        manifest = {
            "format": FORMAT,
            "kind": self.identity.kind,
            "verb": self.identity.verb,
            "schema": self.identity.schema,
            "fingerprint": self.identity.fingerprint,
            "config": dict(self.identity.config),
            "inputs": dict(self.identity.inputs),
            "facts": dict(facts),
            "files": files,
        }
        manifest["checksum"] = checksum(manifest)
        write_durably(self.folder / MANIFEST, pretty_json(manifest))
        fsync_path(self.folder)
        stage("manifest-durable")
        if self.place.exists():
            raise OutputError(f"`{self.place}` appeared while this step was running", hint="give another `--out`")
        self.folder.rename(self.place)
        stage("renamed")
        fsync_path(self.place.parent)
        _sweep_partial(self.place)
        stage("swept")
        self._committed = Artifact(self.place, manifest)
        return self._committed


def _files_below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise OutputError(f"`{path}` is a link; an artifact holds its own files only")
        if path.is_file():
            yield path


State = str  # "up to date" | "continue" | "new"


def output_state(place: Path, identity: Identity) -> State:
    """Decide what running again means; raises OutputError (exit 4) when the place holds something else."""
    if place.exists() or place.is_symlink():
        if not is_artifact(place):
            raise OutputError(f"`{place}` exists and is not an artifact of langadapt", hint="give another `--out`")
        there = open_artifact(place)
        if there.fingerprint == identity.fingerprint:
            return "up to date"
        raise OutputError(
            f"`{place}` holds a {there.kind} made by `{there.manifest['verb']}` with other settings or inputs: "
            + named_differences(there.manifest, identity.parts),
            hint="give another `--out`, or `--overwrite` to move the old one aside",
        )
    note = partial_folder(place) / NOTE
    if note.is_file() and _kept(note.parent):
        begun = read_json_object(note)
        if begun.get("fingerprint") == identity.fingerprint:
            return "continue"
        raise OutputError(
            f"`{partial_folder(place)}` holds an unfinished run with other settings or inputs: "
            + named_differences(begun, identity.parts),
            hint="give another `--out`, or `--overwrite` to move the old one aside",
        )
    return "new"


@contextmanager
def writing(
    place: Path,
    identity: Identity,
    *,
    inputs: Mapping[str, Any],
    progress: Progress,
    overwrite: bool = False,
    wait: bool = False,
    record: Mapping[str, Any] | None = None,
) -> Iterator[tuple[State, Output | Artifact]]:
    """Lock `place` and yield either its up-to-date Artifact or an Output to write into.

    On any error the temporary folder is removed and what was in `place` is untouched; `<place>.partial` stays.
    """
    _make_parent(place)
    if not may_write(place.parent) and output_state(place, identity) == "up to date":
        yield "up to date", open_artifact(place)  # no lock can be made here, and nothing has to be written
        return
    with Lock(place.parent / f"{place.name}.lock", wait=wait, on_wait=progress.note):
        stage("locked")
        for stale in place.parent.glob(f"{_glob_escape(place.name)}.tmp-*"):
            if _TOKEN.fullmatch(stale.name.removeprefix(f"{place.name}.tmp-")):
                shutil.rmtree(stale, ignore_errors=True)
        if overwrite:
            _move_aside(place, identity.fingerprint)
        state = output_state(place, identity)
        if state == "up to date":
            _sweep_partial(place)
            yield state, open_artifact(place)
            return
        if not _kept(partial_folder(place)):
            _sweep_partial(place)
        folder = place.with_name(f"{place.name}.tmp-{secrets.token_hex(4)}")
        folder.mkdir()
        stage("opened")
        output = Output(place, folder, identity, progress, inputs, dict(record or {}))
        try:
            yield state, output
        except OSError as failure:
            raise _disk_error(failure, place) from failure
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if not _kept(partial_folder(place)):
                _sweep_partial(place)


@contextmanager
def keeping(place: Path, identity: Identity, *, progress: Progress) -> Iterator[Output]:
    """Write what an unfinished run keeps. The caller holds the run's lock: what is in `place` was passed over by it."""
    if place.exists():
        shutil.rmtree(place)
    with writing(place, identity, inputs={}, progress=progress) as (_, target):
        if isinstance(target, Artifact):
            raise LangadaptError(f"internal: `{place}` appeared while it was being written")
        yield target


def _disk_error(error: OSError, place: Path) -> Exception:
    if is_full(error):
        return ResourceError(
            f"no space left while writing `{place}`: {error.strerror}",
            hint="free some space and run the same command again",
        )
    return error


def _make_parent(place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise OutputError(f"cannot create `{place.parent}`: {said}", hint="give another `--out`") from error


def _move_aside(place: Path, fingerprint: str) -> None:
    for path in (place, partial_folder(place)):
        if not path.exists() or (path == place and not is_artifact(path)):
            continue
        if path == place and _intact(path, fingerprint):
            continue
        path.rename(path.with_name(f"{path.name}.old-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"))


def _intact(place: Path, fingerprint: str) -> bool:
    try:
        there = open_artifact(place)
        there.verify()
    except DataError:
        return False
    return there.fingerprint == fingerprint


def _glob_escape(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
