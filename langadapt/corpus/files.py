"""Which files a path means, what kind of file each is, and what its documents are called."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from langadapt.core.errors import DataError
from langadapt.core.io import read_json_object
from langadapt.core.unpack import ARROW_FILE, PARQUET, open_file

Kind = Literal["text", "json", "csv", "tsv", "conllu", "parquet", "arrow"]
# `.json` and files without a known suffix are told by their first letter.
KINDS: dict[str, Kind | None] = {
    ".txt": "text", ".text": "text", ".md": "text", ".jsonl": "json", ".ndjson": "json", ".json": None,
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".conllu": "conllu", ".parquet": "parquet", ".arrow": "arrow",
}  # fmt: skip
PACKED_SUFFIXES = (".gz", ".zst")

# The 8-bit encoding that old files of a language most likely have; only for the hint.
_LEGACY = {
    "windows-1250": "hu pl cs sk sl hr bs ro sq",
    "windows-1251": "ru uk be bg sr mk",
    "windows-1253": "el",
    "windows-1254": "tr",
    "windows-1255": "he yi",
    "windows-1256": "ar fa ur",
    "windows-1257": "lt lv et",
    "windows-1258": "vi",
    "windows-874": "th",
    "shift_jis": "ja",
    "gb18030": "zh",
    "euc-kr": "ko",
}


def likely_encoding(lang: str) -> str:
    """The legacy encoding to name in a hint for text in `lang`."""
    head = lang.split("-")[0]
    return next((name for name, langs in _LEGACY.items() if head in langs.split()), "windows-1252")


def plain_name(path: Path) -> str:
    """The file's name without `.gz` or `.zst`: packing a file does not change what its documents are called."""
    name = path.name
    for suffix in PACKED_SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def kind_of(path: Path) -> Kind | None:
    """By content for Parquet and Arrow, else by name; None: the first letter has to tell.

    DataError for a name that promises what the content is not.
    """
    with open_file(path) as file:
        head = file.peek(8)[:8]
    if head.startswith(PARQUET):
        return "parquet"
    if head.startswith(ARROW_FILE):
        return "arrow"
    kind = KINDS.get(Path(plain_name(path).lower()).suffix)
    if kind in ("parquet", "arrow") and not (kind == "arrow" and head[:4] == b"\xff\xff\xff\xff"):
        what = "is empty" if not head else f"is not {kind.capitalize()} data, whatever its name says"
        raise DataError(f"`{path}` {what}", hint="copy or download it again, or give it its right name")
    return kind


def text_files(path: Path) -> list[Path]:
    """The file itself, or the text files below a folder (by name, hidden ones left out), sorted by path.

    Folders that `datasets` saved stand for their data files. DataError if there is nothing to read.
    """
    if path.is_file():
        return [path]
    found = sorted(_below(path))
    if not found:
        kinds = ", ".join(KINDS)
        raise DataError(
            f"`{path}` holds no text files ({kinds}; text also as .gz and .zst)", hint="name the files themselves"
        )
    return found


def _below(folder: Path) -> Iterator[Path]:
    if _saved(folder, "dataset_dict.json", "splits"):
        for split in _names(folder / "dataset_dict.json", "splits"):
            if not (folder / split / "state.json").is_file():
                raise DataError(f"the dataset folder `{folder}` lacks its split `{split}`", hint="copy it again")
            yield from _data_files(folder / split)
        return
    if _saved(folder, "state.json", "_data_files"):
        yield from _data_files(folder)
        return
    for child in folder.iterdir():
        if child.name.startswith("."):
            continue
        if child.is_dir() and not child.is_symlink():
            yield from _below(child)
        elif child.is_file() and Path(plain_name(child).lower()).suffix in KINDS:
            yield child


def _saved(folder: Path, name: str, key: str) -> bool:
    """Did `save_to_disk` of datasets write this folder?"""
    return (folder / name).is_file() and key in read_json_object(folder / name)


def _data_files(folder: Path) -> Iterator[Path]:
    for name in _names(folder / "state.json", "_data_files"):
        if not (folder / name).is_file():
            raise DataError(f"the dataset folder `{folder}` lacks its file `{name}`", hint="copy it again")
        yield folder / name


def _names(path: Path, key: str) -> list[str]:
    """File names listed in a file of `datasets`; DataError if they are not plain names."""
    given = read_json_object(path)[key]
    names: list[str] = []
    for item in given if isinstance(given, list) else []:
        name = item.get("filename") if isinstance(item, dict) else item
        if not isinstance(name, str) or Path(name).name != name:
            raise DataError(f"`{path}` names a file that is not in its folder: {name!r}")
        names.append(name)
    return names
