"""A folder whose tokenizer is a SentencePiece `.model` alone: transformers converts it on load, here it is done once.

Everything in langadapt works on tokenizer.json. So such a folder is seen through another one in the cache: links to all
its files, and the tokenizer.json that transformers makes of the `.model`. The given folder is left as it is.
"""

import shutil
import tempfile
from pathlib import Path

from langadapt.core.boundary import Reading
from langadapt.core.errors import DataError
from langadapt.core.io import cache_folder, canonical_json, sha256_file, sha256_text, write_durably
from langadapt.core.progress import Progress
from langadapt.model import spm_model
from langadapt.model.surroundings import quiet_transformers
from langadapt.model.tokenizer_check import NAME


def with_tokenizer_json(folder: Path, progress: Progress | None = None) -> Path:
    """The folder itself if it has a tokenizer.json or no `.model`; else one in the cache that has both.

    A `.model` of another kind (tiktoken) is none. DataError if transformers cannot convert it.
    """
    path = None if (folder / NAME).is_file() else spm_model.find(folder)
    if path is None or not _is_spm(path):
        return folder
    files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    place = cache_folder() / "models" / f"spm-{_key(folder, files)[:16]}"
    if (place / NAME).is_file():
        return place
    (progress or Progress()).note(f"making a {NAME} of `{path.name}`; this is done once")
    content = _converted(folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    view = Path(tempfile.mkdtemp(prefix=f"{place.name}.tmp-", dir=place.parent))
    try:
        for file in files:
            (view / file.name).symlink_to(file.resolve())
        write_durably(view / NAME, content)
        view.rename(place)
    except OSError:
        shutil.rmtree(view, ignore_errors=True)
        # another process may have made the same one in the meantime
        if not (place / NAME).is_file():
            raise
    return place


def _is_spm(path: Path) -> bool:
    try:
        spm_model.read(path)
    except DataError:
        return False
    return True


def _key(folder: Path, files: list[Path]) -> str:
    """What the view depends on: which files there are, and the content of those that decide about the tokenizer."""
    from tokenizers import __version__ as tokenizers
    from transformers import __version__ as transformers

    small = {file.name: sha256_file(file) for file in files if file.suffix in (".model", ".json", ".jinja")}
    names = [file.name for file in files]
    return sha256_text(canonical_json([str(folder.resolve()), names, small, transformers, tokenizers]))


def _converted(folder: Path) -> str:
    """tokenizer.json by transformers."""
    quiet_transformers()
    from transformers import AutoTokenizer

    with Reading(f"transformers cannot load the tokenizer of `{folder}`"):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        return str(tokenizer.backend_tokenizer.to_str(pretty=True))
