"""What a folder of the package offers, read without importing it: names of files, first lines of their docstrings.

No heavy import may come in here: `langadapt --help` stands on this file.
"""

import ast
import importlib.util
from pathlib import Path

from langadapt.core.errors import ConfigError


def folder(package: str) -> Path:
    """The folder of a package of ours."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"there is no room `{package}`")
    return Path(spec.submodule_search_locations[0])


def source_names(package: str, *, containing: str = "") -> list[str]:
    """Public names (`extend-vocab`) of the modules of a package whose source holds `containing`."""
    names = []
    for path in sorted(folder(package).glob("*.py")):
        if not path.stem.startswith("_") and (not containing or containing in path.read_text(encoding="utf-8")):
            names.append(path.stem.rstrip("_").replace("_", "-"))
    return names


def summary(package: str, name: str) -> str:
    """First line of the docstring of a module, without its full stop; empty if there is none."""
    stem = name.replace("-", "_")
    for path in (folder(package) / f"{stem}.py", folder(package) / f"{stem}_.py"):
        if path.is_file():
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            return text.splitlines()[0].rstrip(".") if text else ""
    return ""


def verb_names() -> list[str]:
    """Public names of all verbs, without importing any: files of `steps/` that say what KIND of artifact they make."""
    return source_names("langadapt.steps", containing="\nKIND = ")


def command_names() -> list[str]:
    """Public names of the commands that are not verbs (`show`, `list`): files of `cli/` that define `register`."""
    return source_names("langadapt.cli", containing="\ndef register(")


def method_rooms() -> list[str]:
    """Rooms that hold methods: folders with a file that marks one."""
    rooms = [path.parent.name for path in sorted(folder("langadapt").glob("*/__init__.py"))]
    return [room for room in rooms if source_names(f"langadapt.{room}", containing="\n@method(")]
