"""Where an input of a step comes from: another step, or a path that may not leave the recipe's folder."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from langadapt.core.config import InputField
from langadapt.core.errors import ConfigError, SafetyError

_MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# A data set always has its owner in front; `org/name@revision:configuration:split`.
_TEXT_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+?)?(:[\w.-]+){0,2}")
_FILE = re.compile(r".*\.(txt|json|jsonl|ndjson|csv|tsv|parquet|gz|zst)")


@dataclass(frozen=True)
class FromStep:
    """The artifact of another step."""

    step: str


@dataclass(frozen=True)
class FromPath:
    """A file or folder (absolute), or a name that the field's resolver understands (a hub id), or one of its words."""

    path: str


Source = FromStep | FromPath


def find(text: str, field: InputField, *, folder: Path, steps: list[str], typed: bool, where: str | None) -> FromPath:
    """The path, or the name that the field's resolver understands, that `text` means; it is no step.

    Paths start from `folder`. Those written in the recipe must stay below it (SafetyError), those typed on the
    command line may be anything. ConfigError if there is nothing; `steps` are for the hint.
    """
    if text in field.reads.words:
        return FromPath(text)
    if typed:
        path = folder / Path(text).expanduser()
        found = path.absolute() if path.exists() else None
    else:
        found = _below(text, folder, where)
    if found is not None:
        return FromPath(str(found))
    near = get_close_matches(text, steps, n=1, cutoff=0.6)
    if field.reads.resolver is not None and ("/" in text or not near) and _hub_id(text, field, folder):
        return FromPath(text)
    raise ConfigError(
        f"`{field.name}: {text}` is neither a step of this recipe nor a file",
        where=where,
        hint=f"did you mean `{near[0]}`?" if near else f"paths start from here: ls {folder.absolute()}",
    )


def _hub_id(text: str, field: InputField, folder: Path) -> bool:
    """May it be fetched? `texts/hu.txt`, and what lies in a folder that is here, are misspelt paths."""
    if field.reads.kinds:
        return _MODEL_ID.fullmatch(text) is not None
    here = (folder / text.partition("/")[0]).exists()
    return _TEXT_ID.fullmatch(text) is not None and not here and not _FILE.fullmatch(text.lower())


def _below(text: str, folder: Path, where: str | None) -> Path | None:
    """The existing path `text` below `folder`; SafetyError if it leads out, by itself or through a link."""
    path = Path(text)
    leaves = path.is_absolute() or ".." in path.parts or text.startswith("~")
    if not leaves:
        root = folder.resolve()
        leaves = not (root / path).resolve().is_relative_to(root)
    if leaves:
        raise SafetyError(
            f"the path `{text}` leads out of the recipe's folder",
            where=where,
            hint="make it a variable and give the path on the command line: -o name=PATH",
        )
    found = folder.absolute() / path
    return found if found.exists() else None
