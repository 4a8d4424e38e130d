"""Text from the hub: `org/name`, `org/name:split`, `org/name:config:split`, each also with `@revision` after the name.

`datasets` says which files of a repository are a split; they are fetched as they are and read like any other file.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.core.artifact import is_artifact, partial_folder
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.io import cache_folder, pretty_json, read_json_object, sha256_text, write_durably
from langadapt.corpus.files import KINDS, PACKED_SUFFIXES

DEFAULT_SPLIT = "train"
# Hidden, so that it is not part of the input's digest: the same text in another revision is the same input.
NOTE = ".hub.json"
_ID = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+?))?(:(?P<first>[\w.-]+))?(:(?P<second>[\w.-]+))?"
)
_HINT = "write a file, a folder, or a dataset of the hub such as org/name:train or org/name:config:train"


@dataclass(frozen=True)
class HubText:
    """A split of a dataset as a person names it; `first` is a split, or a configuration if `second` is the split."""

    name: str
    revision: str | None
    first: str | None
    second: str | None


def parse(given: str) -> HubText | None:
    """What a hub id asks for; None for text that can only be a path."""
    match = _ID.fullmatch(given)
    if match is None:
        return None
    name = match["name"]
    looks_like_a_file = name.lower().endswith((*KINDS, *PACKED_SUFFIXES))
    # `text/hu.txt` and `corpora/x` in a folder that is here are misspelt paths: nobody should be asked for them
    if looks_like_a_file or Path(name.partition("/")[0]).exists():
        return None
    return HubText(name, match["revision"], match["first"], match["second"])


def resolve(given: str) -> Path:
    """The path itself if it exists or cannot be a hub id, else a folder of links to the files of that split.

    Honours HF_HUB_OFFLINE. DataError if there is no such dataset, configuration or split, here or there.
    """
    path = Path(given)
    if path.exists() or is_artifact(path) or partial_folder(path).is_dir():
        return path
    wanted = parse(given)
    if wanted is None:
        return path
    return _folder_of_links(wanted, *_fetch(wanted))


def provenance(path: Path) -> dict[str, Any] | None:
    """Name, revision, configuration and split of a folder that `resolve` made; None for any other path."""
    return read_json_object(path / NOTE) if (path / NOTE).is_file() else None


def _fetch(wanted: HubText) -> tuple[Path, dict[str, Any]]:
    """(folder of the repository's revision, what was chosen from it)."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"`{wanted.name}` is not a file here; to read it from the hub the package `datasets` is needed",
            hint="pip install 'langadapt[hub]'",
        ) from error
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    offline = bool(constants.HF_HUB_OFFLINE)
    datasets.disable_progress_bars()
    fetch: dict[str, Any] = {"repo_type": "dataset", "local_files_only": offline}
    try:
        if offline:
            folder = Path(snapshot_download(wanted.name, revision=wanted.revision, **fetch))
            revision, source = folder.name, str(folder)
        else:
            revision = str(HfApi().dataset_info(wanted.name, revision=wanted.revision).sha)
            source = wanted.name
        config, split, names = _files_of(source, wanted, None if offline else revision)
        if not offline:
            patterns = [_literally(name) for name in names]
            folder = Path(
                snapshot_download(wanted.name, revision=revision, allow_patterns=["README.md", *patterns], **fetch)
            )
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError) as error:
        if isinstance(error, DataError):
            raise
        where = (
            "nor a dataset in the local hub cache (HF_HUB_OFFLINE is set)" if offline else "nor a dataset of the hub"
        )
        raise DataError(f"`{wanted.name}` is neither a file or folder here {where}", hint=_HINT) from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"the local copy of `{wanted.name}` lacks {len(missing):,} of the {len(names):,} files of `{split}`, "
            f"such as `{missing[0]}`",
            hint="HF_HUB_OFFLINE=0 fetches them" if offline else "run the same command again",
        )
    return folder, {"name": wanted.name, "revision": revision, "config": config, "split": split, "files": sorted(names)}


def _files_of(source: str, wanted: HubText, revision: str | None) -> tuple[str, str, list[str]]:
    """(configuration, split, paths inside the repository), as `datasets` understands the repository."""
    configs = _ask(wanted, "get_dataset_config_names", source, revision=revision)
    config, split = (wanted.first, wanted.second) if wanted.second is not None else (None, wanted.first)
    if config is None and split in configs and split is not None:
        config, split = split, None
    if config is None and len(configs) > 1 and "default" not in configs:
        raise _no_such(wanted, "has several configurations, one has to be named", "configurations", configs)
    if config is not None and config not in configs:
        raise _no_such(wanted, f"has no configuration `{config}`", "configurations", configs)
    builder = _ask(wanted, "load_dataset_builder", source, config, revision=revision)
    found: Mapping[Any, Sequence[str]] = builder.config.data_files or {}
    splits = {str(name): list(files) for name, files in found.items()}
    split = split or (DEFAULT_SPLIT if DEFAULT_SPLIT in splits or len(splits) != 1 else next(iter(splits)))
    if split not in splits:
        raise _no_such(wanted, f"has no split `{split}`", "splits", list(splits))
    root = f"{source}/" if revision is None else f"hf://datasets/{source}@{revision}/"
    outside = [name for name in splits[split] if not name.startswith(root)]
    if outside:
        raise DataError(f"`{wanted.name}` keeps files elsewhere: `{outside[0]}`", hint="fetch them yourself")
    return str(builder.config.name), split, [name.removeprefix(root) for name in splits[split]]


def _ask(wanted: HubText, function: str, *arguments: Any, **more: Any) -> Any:
    import datasets

    try:
        return getattr(datasets, function)(*arguments, **more)
    except (ValueError, RuntimeError, OSError) as error:
        # datasets has no common base for "no data files here", "brings a script", "broken README"
        raise DataError(
            f"`datasets` finds no text in `{wanted.name}`: {' '.join(str(error).split())[:200]}", hint=_HINT
        ) from error


def _no_such(wanted: HubText, what: str, kind: str, known: Sequence[str]) -> DataError:
    shown = ", ".join(sorted(known)[:30]) + (" ..." if len(known) > 30 else "")
    return DataError(f"`{wanted.name}` {what}; its {kind}: {shown}", hint=_HINT)


def _literally(name: str) -> str:
    """A pattern that matches this name only."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _folder_of_links(wanted: HubText, folder: Path, chosen: dict[str, Any]) -> Path:
    """A folder that holds exactly the files of the split: its digest must not depend on what else was fetched."""
    note = pretty_json(chosen)
    place = cache_folder() / "hub-text" / f"{wanted.name.replace('/', '--')}-{sha256_text(note)[:16]}"
    whole = place.is_dir() and all((place / name).exists() for name in chosen["files"]) and (place / NOTE).is_file()
    if whole:
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{place.name}.tmp-", dir=place.parent))
    for name in chosen["files"]:
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).symlink_to((folder / name).resolve())
    write_durably(made / NOTE, note)
    shutil.rmtree(place, ignore_errors=True)
    try:
        made.rename(place)
    except OSError:
        # another process made the same folder meanwhile
        shutil.rmtree(made, ignore_errors=True)
    return place
