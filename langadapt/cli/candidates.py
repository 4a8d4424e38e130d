"""What a shell can offer for a word: methods, languages, steps, recipes and artifacts, with a short text each."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from langadapt.core import listing
from langadapt.core.errors import LangadaptError

Candidate = tuple[str, str]
Source = Callable[[], list[Candidate]]

# A manifest names every file; 1 MB is thousands of them, and a shell waits for the answer.
_MANIFEST_BYTES = 1_000_000
_FOLDERS = 300
# Outputs of recipe steps carry their fingerprint; the pointer beside them is what a person names.
_FINGERPRINTED = re.compile(r".+-[0-9a-f]{10}(\.partial)?")
WORKSPACE = Path("langadapt.yaml")


def languages() -> list[Candidate]:
    """Codes with the English name of the language."""
    from langadapt.core.languages import known_languages

    return [(code, name) for code, name in known_languages()]


def methods(room: str | None = None) -> list[Candidate]:
    """Methods of one room, or of all."""
    rooms = [room] if room is not None else listing.method_rooms()
    found = {
        name: listing.summary(f"langadapt.{place}", name)
        for place in rooms
        for name in listing.source_names(f"langadapt.{place}", containing="\n@method(")
    }
    return sorted(found.items())


def steps(recipe: Path = WORKSPACE) -> list[Candidate]:
    """Steps of a recipe with the verb that each uses; nothing for a recipe that cannot be read."""
    found = _recipe(recipe).get("steps")
    if not isinstance(found, dict):
        return []
    return [(name, str(step.get("use", name)) if isinstance(step, dict) else name) for name, step in found.items()]


def variables(recipe: Path = WORKSPACE) -> list[Candidate]:
    """`NAME=` for the variables of a recipe and `STEP.` for its steps: what `-o` takes."""
    found = _recipe(recipe).get("vars")
    names = [(f"{name}=", "variable") for name in found] if isinstance(found, dict) else []
    return names + [(f"{name}.", verb) for name, verb in steps(recipe)]


def _recipe(path: Path) -> dict[str, object]:
    from langadapt.core.yaml import load_file

    try:
        return load_file(path).values if path.is_file() else {}
    except (LangadaptError, OSError):
        return {}


def recipes() -> list[Candidate]:
    """Recipes of this folder and those that come with a checkout."""
    from langadapt.cli.list_ import recipe_files, recipe_summary

    return [(str(path), recipe_summary(path)) for path in recipe_files()]


def artifacts(begin: str, kinds: tuple[str, ...] = ()) -> list[Candidate]:
    """Artifact folders of these kinds (all if empty) below the folder of `begin`, its children and `steps/` of runs."""
    parent = os.path.dirname(begin)  # noqa: PTH120  (`a/` and `a` differ here, and `./a` keeps its dot)
    base = Path(parent or ".")
    found: list[Candidate] = []
    for pattern in ("*/artifact.json", "steps/*/artifact.json", "work/*/steps/*/artifact.json"):
        try:
            places = sorted(base.glob(pattern))[:_FOLDERS]
        except OSError:
            continue
        for manifest in places:
            folder, kind = manifest.parent, _kind(manifest)
            if kind is None or (kinds and kind not in kinds) or _FINGERPRINTED.fullmatch(folder.name):
                continue
            text = os.path.join(parent, str(folder.relative_to(base)))  # noqa: PTH118
            found.append((text, kind))
    return found


def _kind(manifest: Path) -> str | None:
    try:
        if manifest.stat().st_size > _MANIFEST_BYTES:
            return None
        value = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    kind = value.get("kind") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None
