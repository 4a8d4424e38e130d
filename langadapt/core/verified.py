"""Has a file of an artifact changed since it was written? Asked before every use, answered without reading it twice.

The manifest has the SHA-256 of each file. A file that was hashed once is known by (inode, size, times of change); as
long as those stay, its content is not read again. What is remembered lies in the cache folder and may be removed.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langadapt.core.artifact import Artifact
from langadapt.core.errors import DataError
from langadapt.core.io import cache_folder, canonical_json, read_json_object, replace_durably, sha256_file, sha256_text

Known = dict[str, list[Any]]


def verify_content(artifact: Artifact) -> None:
    """DataError if a file is missing, has another size, or another content than the manifest says."""
    known = _recall(artifact)
    found: Known = {}
    for name, entry in sorted(artifact.manifest["files"].items()):
        path = artifact.file(name)
        state = _state(path, entry)
        if known.get(name) != state:
            if sha256_file(path) != entry["sha256"]:
                raise DataError(
                    f"`{path}` was changed after it was written: its SHA-256 does not match",
                    hint="copy it again from where it came, or make it again with `--overwrite`",
                )
            if _state(path, entry) != state:
                raise DataError(f"`{path}` changed while it was read", hint="run the same command again")
        found[name] = state
    if found != known:
        _remember(artifact, found)


def remember_written(artifact: Artifact) -> None:
    """Note that this process has just hashed all files of `artifact` (the commit does)."""
    files: Mapping[str, Any] = artifact.manifest["files"]
    _remember(artifact, {name: _state(artifact.path / name, entry) for name, entry in sorted(files.items())})


def _state(path: Path, entry: Mapping[str, Any]) -> list[Any]:
    facts = path.stat()
    # No program can set the time at which the inode changed, so an edit that keeps size and mtime shows too
    return [facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, entry["sha256"]]


def _note(artifact: Artifact) -> Path:
    return cache_folder() / "verified" / f"{sha256_text(ascii(os.fspath(artifact.path.resolve())))[:32]}.json"


def _recall(artifact: Artifact) -> Known:
    try:
        return read_json_object(_note(artifact))
    except DataError:
        return {}


def _remember(artifact: Artifact, files: Known) -> None:
    note = _note(artifact)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(note, canonical_json(files))
    except OSError:
        # A cache that cannot be written costs time at the next use, nothing else
        return
