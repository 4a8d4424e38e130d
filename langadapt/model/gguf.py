"""A .gguf file becomes a plain model folder in float32, once, in the cache."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Artifact, Identity, open_artifact, writing
from langadapt.core.errors import DataError
from langadapt.core.io import cache_folder, sha256_file
from langadapt.core.progress import Progress
from langadapt.core.verified import verify_content
from langadapt.model.facts import model_facts
from langadapt.model.surroundings import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SCHEMA = 1


def import_gguf(path: Path, progress: Progress | None = None) -> Path:
    """Dequantise `path` into `<cache>/models/gguf-<digest>` unless it is there already; returns that folder.

    About 20 s for 135 M parameters. DataError if it is no GGUF file, is cut, or holds an unknown architecture.
    """
    progress = progress or Progress()
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise DataError(f"`{path}` is not a GGUF file: it does not begin with `GGUF`")
    digest = sha256_file(path)
    place = cache_folder() / "models" / f"gguf-{digest[:16]}"
    identity = Identity("model", "import-model", SCHEMA, {"dtype": "float32"}, {"file": digest})
    if _usable(place, identity.fingerprint):
        return place
    progress.note(f"converting `{path.name}` to a model folder in float32; this is done once")
    # another process may be converting the same file: wait for it, then find its result
    with writing(place, identity, inputs={}, progress=progress, overwrite=True, wait=True) as (_, target):
        if not isinstance(target, Artifact):
            _convert(path, target.folder)
            target.commit({**model_facts(target.folder), "source": "gguf"})
    for old in place.parent.glob(f"{place.name}.old-*"):
        # made by another version or damaged, and made again just now: here nothing is worth keeping aside
        shutil.rmtree(old, ignore_errors=True)
    return place


def _usable(place: Path, fingerprint: str) -> bool:
    """Is the conversion there, whole, and of this version? If not it is made again: it is a cache."""
    try:
        there = open_artifact(place)
        verify_content(there)
    except DataError:
        return False
    return there.fingerprint == fingerprint


def _convert(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet_transformers()
    where: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    try:
        with _without_bar():
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **where)
            model = AutoModelForCausalLM.from_pretrained(str(path.parent), dtype=torch.float32, **where)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError, RuntimeError) as error:
        # the reader of the gguf package meets cut files with whatever numpy or struct raise
        raise DataError(f"`{path}` cannot be read as a GGUF model: {error}") from error
    _forget_quantisation(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _without_bar() -> Iterator[None]:
    """The GGUF reader of transformers draws a tqdm bar that none of its switches turn off."""
    from transformers import modeling_gguf_pytorch_utils as reader

    drawn = reader.tqdm
    reader.tqdm = partial(drawn, disable=True)
    try:
        yield
    finally:
        reader.tqdm = drawn


def _forget_quantisation(model: "PreTrainedModel") -> None:
    """The weights are plain float32 now, but transformers remembers where they came from and refuses to save."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    for name in ("is_quantized", "quantization_method"):
        model.__dict__.pop(name, None)
    # GGUF metadata ("general.name") lands here and is no path
    model.config._name_or_path = ""
