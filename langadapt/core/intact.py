"""Every artifact in a folder, those inside others too: each file read and compared with its digest."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.core.artifact import UNHASHED, open_artifact
from langadapt.core.errors import DataError
from langadapt.core.io import sha256_file
from langadapt.core.manifest import MANIFEST, read_manifest
from langadapt.core.progress import Progress, Task


@dataclass(frozen=True)
class Condition:
    """One artifact: `damaged` says what is wrong with which file, `unlisted` are files that its manifest does not name.

    `place` is the folder as it stands below the one that was asked for, `.` for that one itself. Without a manifest
    that can be read there is no kind and nothing to compare.
    """

    place: str
    kind: str
    files: int
    bytes: int
    damaged: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()


def conditions(folder: Path, progress: Progress | None = None) -> list[Condition]:
    """The state of every artifact in `folder`, by place. DataError if there is none.

    Nothing that was remembered of an earlier look is believed: every byte is read once.
    """
    places = sorted(path.parent for path in folder.rglob(MANIFEST))
    if not places:
        open_artifact(folder)  # says why it is none
    manifests: dict[Path, dict[str, Any] | str] = {}
    for place in places:
        try:
            manifests[place] = read_manifest(place / MANIFEST)
        except DataError as error:
            manifests[place] = error.message
    readable = {place: found for place, found in manifests.items() if not isinstance(found, str)}
    total = sum(path.stat().st_size for path in {path for item in readable.items() for path in _files(*item)})
    task = (progress or Progress()).start("comparing files with their digests", total=total, unit="bytes")
    seen: dict[Path, str] = {}
    found = []
    for place, manifest in manifests.items():
        name = place.relative_to(folder).as_posix()
        if isinstance(manifest, str):
            found.append(Condition(name, "", 0, 0, (manifest,)))
        else:
            found.append(_condition(name, place, manifest, places, seen, task))
    task.finish()
    return found


def _files(place: Path, manifest: Mapping[str, Any]) -> list[Path]:
    return [path for name in manifest["files"] if (path := place / name).is_file()]


def _condition(
    name: str, place: Path, manifest: Mapping[str, Any], places: list[Path], seen: dict[Path, str], task: Task
) -> Condition:
    files = manifest["files"]
    damaged = []
    for file, entry in sorted(files.items()):
        path = place / file
        if not path.is_file():
            damaged.append(f"`{file}` is missing")
        elif path.stat().st_size != entry["bytes"]:
            damaged.append(f"`{file}` has {path.stat().st_size:,} bytes, its manifest says {entry['bytes']:,}")
        elif _digest(path, seen, task) != entry["sha256"]:
            damaged.append(f"`{file}` has another content than when it was written")
    inside = [other for other in places if other != place and other.is_relative_to(place)]
    there = (path for path in place.rglob("*") if path.is_file() and not any(map(path.is_relative_to, inside)))
    names = {path.relative_to(place).as_posix() for path in there} - files.keys() - {MANIFEST, *UNHASHED}
    return Condition(
        name,
        str(manifest["kind"]),
        len(files),
        sum(entry["bytes"] for entry in files.values()),
        tuple(damaged),
        tuple(sorted(names)),
    )


def _digest(path: Path, seen: dict[Path, str], task: Task) -> str:
    """A file of an inner artifact is one of the outer's too: it is read once."""
    if path not in seen:
        seen[path] = sha256_file(path)
        task.advance(path.stat().st_size)
    return seen[path]
