"""Inputs of a step: found, checked, and reduced to a digest of their content (never their path)."""

import importlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.core.artifact import Artifact, is_artifact, its_folder, open_artifact, partial_folder
from langadapt.core.config import InputField, StepConfig, input_fields
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.io import canonical_json, is_text, sha256_file, sha256_text


@dataclass(frozen=True)
class Input:
    """One resolved input. `artifact` is None for plain files and folders; `facts` is empty for them.

    In a dry run an input may not exist yet: `path` is then where it will be and `facts` what its step predicts.
    A `word` that the step knows (see `Reads`) is no file at all.
    """

    given: str
    path: Path
    artifact: Artifact | None
    digest: str
    facts: Mapping[str, Any]
    exists: bool = True
    word: bool = False

    def made_from(self, other: "Input") -> bool:
        """Was this model made from the other one, in one step or in the usual two?"""
        if self.artifact is None:
            return False
        return other.digest in (self.artifact.manifest["inputs"].get("model"), self.facts.get("base_digest"))


Inputs = Mapping[str, Input | tuple[Input, ...] | dict[str, Input] | None]


def one(inputs: Inputs, name: str) -> Input:
    """The only input of a field. ConfigError if it is missing."""
    value = inputs[name]
    if not isinstance(value, Input):
        raise ConfigError(f"`{name}` is missing")
    return value


def maybe(inputs: Inputs, name: str) -> Input | None:
    """The only input of a field that may be left out."""
    value = inputs.get(name)
    return value if isinstance(value, Input) else None


def many(inputs: Inputs, name: str) -> tuple[Input, ...]:
    """All inputs of a field that takes several."""
    value = inputs[name]
    return value if isinstance(value, tuple) else ()


def resolve_input(given: str, field: InputField) -> Input:
    """Find one input. DataError if it is missing or of another kind."""
    if not given.strip():
        # `Path("")` is the current folder: never what `"$UNSET"` means
        raise DataError("an empty path", where=f"input `{field.name}`", hint="is a variable of the shell not set?")
    if given in field.reads.words:
        # no file stands behind it: the word itself is what the result depends on
        return Input(given, Path(given), None, sha256_text(given), {}, exists=False, word=True)
    if field.reads.resolver is not None:
        module, _, function = field.reads.resolver.partition(":")
        path = Path(getattr(importlib.import_module(module), function)(given))
    else:
        path = Path(given)
    if is_artifact(path):
        artifact = open_artifact(path, *field.reads.kinds)
        return Input(given, path, artifact, artifact.digest, artifact.facts)
    if partial_folder(path).is_dir() and not path.exists():
        open_artifact(path)
    if not path.exists():
        raise DataError(f"`{given}` does not exist", where=f"input `{field.name}`")
    if not field.reads.plain:
        expected = " or ".join(field.reads.kinds)
        raise DataError(
            f"`{given}` is not an artifact of langadapt; expected a {expected}",
            where=f"input `{field.name}`",
            hint=its_folder(path),
        )
    return Input(given, path, None, digest_of(path), {})


def _check_there(given: str, field: InputField) -> None:
    """DataError for a path that does not exist, unless it may name something that the resolver finds elsewhere."""
    path = Path(given)
    if not given.strip() or given in field.reads.words or path.exists() or partial_folder(path).is_dir():
        return
    plainly_a_path = path.is_absolute() or given.startswith((".", "~")) or path.suffix.lower() == ".gguf"
    if field.reads.resolver is None or plainly_a_path:
        raise DataError(f"`{given}` does not exist", where=f"input `{field.name}`")


def resolve_inputs(config: StepConfig) -> dict[str, Input | tuple[Input, ...] | dict[str, Input] | None]:
    """Resolve every input field of a config; what is plainly not there is said before anything is read or converted."""
    for field in input_fields(type(config)):
        value = getattr(config, field.name) or ()
        for given in (value,) if isinstance(value, str) else value.values() if isinstance(value, dict) else value:
            _check_there(given, field)
    resolved: dict[str, Input | tuple[Input, ...] | dict[str, Input] | None] = {}
    for field in input_fields(type(config)):
        value = getattr(config, field.name)
        if value is None:
            resolved[field.name] = None
        elif field.shape == "one":
            resolved[field.name] = resolve_input(value, field)
        elif field.shape == "many":
            resolved[field.name] = tuple(resolve_input(item, field) for item in value)
        else:
            resolved[field.name] = {key: resolve_input(item, field) for key, item in value.items()}
    return resolved


def digests(inputs: Inputs) -> dict[str, Any]:
    """The digests that go into the fingerprint."""
    found: dict[str, Any] = {}
    for name, value in inputs.items():
        if isinstance(value, Input):
            found[name] = value.digest
        elif isinstance(value, tuple):
            found[name] = [item.digest for item in value]
        elif isinstance(value, dict):
            found[name] = {key: item.digest for key, item in value.items()}
    return found


def digest_of(path: Path) -> str:
    """Content digest of a plain file, or of all files below a plain folder (hidden ones left out)."""
    if path.is_file():
        return sha256_file(path)
    if path.exists() and not path.is_dir():
        # stdin and pipes can be read once only; commands copy them to a file first
        raise DataError(f"`{path}` is not a regular file ({stat.filemode(path.stat().st_mode)})")
    files = {}
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in relative.parts):
            if not is_text(relative.as_posix()):
                raise DataError(
                    f"the name {str(relative)!a} below `{path}` is not text in UTF-8", hint="rename the file"
                )
            files[relative.as_posix()] = sha256_file(file)
    if not files:
        raise DataError(f"folder `{path}` holds no files")
    return sha256_text(canonical_json(files))
