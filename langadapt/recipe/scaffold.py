"""Writes a workspace: a commented recipe for one language, one model and some text."""

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.core.errors import ConfigError, DataError, OutputError
from langadapt.core.io import replace_durably
from langadapt.core.languages import normalise
from langadapt.core.sources import show_value
from langadapt.recipe.workspace import OVERRIDES, RECIPE, remember

TEMPLATE = "workspace.yaml.jinja"


@dataclass(frozen=True)
class Wish:
    """What a person wants to adapt; `source_text` may be empty."""

    lang: str
    text: Sequence[str]
    model: str
    source_lang: str = "en"
    source_text: Sequence[str] = ()


def write_workspace(folder: Path, wish: Wish) -> Path:
    """Write `langadapt.yaml` into `folder` and return its path; OutputError (exit 4) if there is one already.

    Paths outside the folder cannot stand in a recipe; they are recorded in `overrides.json`.
    """
    recipe = folder / RECIPE
    for path in (recipe, folder / OVERRIDES):
        if path.exists():
            raise OutputError(
                f"`{path}` exists", hint=f"edit it, or take another folder: langadapt init DIR; see {folder} first"
            )
    for name in ("artifact.json", "config.json", "tokenizer.json"):
        if (folder / name).is_file():
            there = "an artifact" if name == "artifact.json" else "a model"
            raise OutputError(
                f"`{folder.absolute()}` holds {there} (`{name}`); a workspace gets a folder of its own",
                hint=f"langadapt init {normalise(wish.lang)} --lang {wish.lang} --text FILE --model {wish.model}",
            )
    target, source = normalise(wish.lang), normalise(wish.source_lang)
    if wish.source_text and target == source:
        raise ConfigError(f"target and source are both `{target}`", hint="give another `--source-lang`")
    places = {
        "target_text": _texts(folder, wish.text, "--text"),
        "source_text": _texts(folder, wish.source_text, "--source-text"),
        "model": _model(folder, wish.model),
    }
    inside = {name: place.inside for name, place in places.items()}
    values = {"name": folder.absolute().name or "workspace", "target": target, "source": source, **inside}
    shown: dict[str, Any] = {name: show_value(value) for name, value in values.items()}
    shown["with_source"] = bool(wish.source_text)
    shown["outside"] = {
        name: "" if place.inside is not None else f"  # outside this folder: recorded in {OVERRIDES}"
        for name, place in places.items()
    }
    text = _render(shown)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        elsewhere = {name: place.outside for name, place in places.items() if place.outside is not None}
        if elsewhere:
            remember(folder, {"vars": elsewhere})
        replace_durably(recipe, text)
    except OSError as error:
        raise OutputError(f"cannot write into `{folder}`: {error.strerror}") from error
    return recipe


@dataclass(frozen=True)
class _Place:
    """A value as it stands in the recipe, or, if it leads out of the folder, as it is recorded."""

    inside: Any
    outside: Any


def _texts(folder: Path, given: Sequence[str], flag: str) -> _Place:
    for text in given:
        if not Path(text).exists():
            raise DataError(f"`{text}` does not exist", where=flag)
    below = [_below(folder, text) for text in given]
    if all(path is not None for path in below):
        return _Place(below, None)
    return _Place(None, [str(Path(text).absolute()) for text in given])


def _model(folder: Path, given: str) -> _Place:
    if not Path(given).exists():
        if given.endswith(".gguf") or given.startswith((".", "/", "~")):
            raise DataError(f"`{given}` does not exist", where="--model")
        return _Place(given, None)  # a hub id
    below = _below(folder, given)
    return _Place(None, str(Path(given).absolute())) if below is None else _Place(below, None)


def _below(folder: Path, given: str) -> str | None:
    """`given` as a path from `folder`, or None if it is not below it (links followed)."""
    if not Path(given).resolve().is_relative_to(folder.resolve()):
        return None
    path = Path(given).absolute()
    try:
        relative = path.relative_to(folder.absolute())
    except ValueError:
        return None
    return None if ".." in relative.parts else relative.as_posix()


def _render(values: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    source = importlib.resources.files("langadapt.recipe").joinpath(TEMPLATE).read_text(encoding="utf-8")
    # values are YAML already; `${name}` is no syntax of jinja's
    template = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True).from_string(source)
    return template.render(values)
