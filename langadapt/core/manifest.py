"""The manifest of an artifact: its shape, and the digest that keeps its own digests safe."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from langadapt.core.errors import DataError, SafetyError
from langadapt.core.io import canonical_json, read_json_object, sha256_text

MANIFEST = "artifact.json"
FORMAT = 1
MADE_AGAIN = "make the artifact again, or copy it again from where it came"


class _File(TypedDict):
    bytes: int
    sha256: str


class _Manifest(TypedDict):
    format: int
    kind: str
    verb: str
    schema: int
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, Any]
    facts: dict[str, Any]
    files: dict[str, _File]
    checksum: str


_SHAPE = TypeAdapter(_Manifest)


class Facts(dict[str, Any]):
    """What an artifact's step found out. DataError for a fact that is not there: another program wrote the manifest."""

    def __init__(self, place: Path, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._place = place

    def __missing__(self, name: str) -> Any:
        raise DataError(f"the manifest of `{self._place}` lacks the fact `{name}`", hint=MADE_AGAIN)


def checksum(manifest: Mapping[str, Any]) -> str:
    """Digest of everything else in a manifest: the files are safe by their digests, this keeps the digests safe."""
    return sha256_text(canonical_json({key: value for key, value in manifest.items() if key != "checksum"}))


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest. DataError: another shape, version or content; SafetyError: it names a file elsewhere."""
    manifest = read_json_object(path)
    try:
        _SHAPE.validate_python(manifest, strict=True)
        right = checksum(manifest) == manifest["checksum"]
    except (ValidationError, RecursionError, ValueError) as error:
        # ValueError: Infinity or half a surrogate pair, which were never written
        raise DataError(f"`{path}` is not a manifest of this version of langadapt", hint=MADE_AGAIN) from error
    for name in manifest["files"]:
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
            raise SafetyError(f"`{path}` names a file outside its folder: {name!r}")
    if not right:
        raise DataError(f"`{path}` was changed after it was written", hint=MADE_AGAIN)
    if manifest["format"] != FORMAT:
        raise DataError(f"`{path}` is not a manifest of this version of langadapt", hint=MADE_AGAIN)
    return manifest
