"""A model folder from another one: some tensors replaced, all others the same bytes.

Files are written shard by shard. One in which nothing is replaced is copied whole, unread; in others the rest is read
lazily from the base and never passes through another dtype. Nothing is linked: a hard link to a user's weights would
change with them.
"""

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.copying import copy_file
from langadapt.core.errors import DataError, LangadaptError
from langadapt.core.io import pretty_json, read_json_object, write_durably
from langadapt.core.progress import Progress
from langadapt.model.facts import HEADS, INPUT_TABLES, is_tied, stored_name, text_config
from langadapt.model.spm_model import NAMES as SENTENCEPIECE_FILES
from langadapt.model.weights import INDEX, SINGLE, Weights, open_weights

if TYPE_CHECKING:
    import torch

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    *SENTENCEPIECE_FILES,
)
TEMPLATE_FILE = "chat_template.jinja"
_LEGAL = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*")


def write_model(
    base_folder: Path,
    out_folder: Path,
    replace: "Mapping[str, torch.Tensor | Callable[[], torch.Tensor]]",
    *,
    config_updates: Mapping[str, Any] | None = None,
    outer_updates: Mapping[str, Any] | None = None,
    generation_updates: Mapping[str, Any] | None = None,
    tokenizer_folder: Path | None = None,
    resized: Collection[str] = (),
    drop: Collection[str] = (),
    progress: Progress | None = None,
) -> None:
    """Write a whole Hugging Face folder into `out_folder` (existing; its other files are left alone).

    `replace` maps a tensor name, as in the base's files or with the model's prefix, to its values or to a function
    that makes them when their shard is written; they are cast to the stored dtype. Only `resized` may change shape.
    `config_updates` go into the text part of config.json, `outer_updates` into what is around it where that is a part;
    None in `generation_updates` removes a key. Tokenizer
    files come from `tokenizer_folder`, else from the base. DataError: unknown name, wrong shape; LangadaptError:
    values that are not finite.
    """
    weights = open_weights(base_folder)
    named = {stored_as(weights, name): value for name, value in replace.items()}
    for copy in tied_copies(base_folder, weights) - set(drop) - named.keys():
        own = [value for name, value in named.items() if name.endswith(INPUT_TABLES)]
        named |= {copy: partial(_twin, own[0])} if own else {}
    placed = {name: info.file.name for name, info in sorted(weights.tensors.items()) if name not in drop}
    # a head that is dropped may have had a file of its own
    shards = [shard for shard in weights.shards if shard.name in placed.values()]
    sizes = 0
    for shard in (progress or Progress()).track(shards, "writing model files", total=len(shards), unit="files"):
        sizes += _write_shard(weights, shard, out_folder / shard.name, named, set(resized), set(drop))
    if weights.shards[0].name != SINGLE:
        index = read_json_object(base_folder / INDEX)
        index["weight_map"] = placed
        index["metadata"] = {**(index.get("metadata") or {}), "total_size": sizes}
        write_durably(out_folder / INDEX, pretty_json(index))
    _write_configs(base_folder, out_folder, config_updates or {}, outer_updates or {}, generation_updates or {})
    _copy_tokenizer(base_folder, tokenizer_folder or base_folder, out_folder)
    for pattern in _LEGAL:
        for path in sorted(base_folder.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, out_folder / path.name)


def tied_copies(folder: Path, weights: Weights) -> set[str]:
    """Heads that are stored although the config ties them to the input table: they must stay equal to it.

    transformers unties the two without asking where the files hold different values.
    """
    heads = {name for name in HEADS if name in weights.tensors}
    if not heads or not any(name.endswith(INPUT_TABLES) for name in weights.tensors):
        return set()
    return heads if is_tied(read_json_object(folder / "config.json"), weights.tensors) else set()


def stored_as(weights: Weights, name: str) -> str:
    """The name of a parameter in the files. DataError if they have none: it could be trained, but not written."""
    found = stored_name(name, weights.tensors)
    if found is None:
        raise DataError(
            f"`{weights.folder}` has no tensor `{name}`: its files hold it under another name or in parts, "
            "so it can be loaded but not written",
            hint="choose a strategy that leaves it as it is, such as `--strategy embeddings`",
        )
    return found


def _write_shard(
    weights: Weights, shard: Path, out: Path, replace: Mapping[str, Any], resized: set[str], drop: set[str]
) -> int:
    """Write one file; returns the bytes of its tensors."""
    own = {name: info for name, info in weights.tensors.items() if info.file == shard}
    if not own.keys() & (replace.keys() | drop):
        copy_file(shard, out)
        return sum(info.bytes for info in own.values())
    tensors: dict[str, torch.Tensor] = {}
    for name in (name for name in own if name not in drop):
        stored = weights.read(name)
        tensors[name] = stored if name not in replace else _fitted(name, replace[name], stored, name in resized)
    write_tensors(tensors, out)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def write_tensors(tensors: "Mapping[str, torch.Tensor]", out: Path) -> None:
    """Write a safetensors file; OSError if the disk is full."""
    from safetensors.torch import save_file

    with saving(out):
        save_file(dict(tensors), out, metadata={"format": "pt"})


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Around the safetensors library writing `path`: its errors of the disk as OSError, and the usual permissions.

    It reports a full disk as an error of its own, and leaves files that only their owner may read.
    """
    from safetensors import SafetensorError

    path.touch()
    mode = path.stat().st_mode & 0o777
    try:
        yield
    except SafetensorError as error:
        # the library keeps only the text: "I/O error: No space left on device (os error 28)"
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        code = int(number.group(1))
        raise OSError(code, os.strerror(code), str(path)) from error
    path.chmod(mode)


def _twin(value: Any) -> "torch.Tensor":
    """The same values in memory of their own: safetensors refuses to write one piece of memory under two names."""
    tensor: torch.Tensor = value() if callable(value) else value
    return tensor.detach().clone()


def _fitted(name: str, value: Any, stored: "torch.Tensor", resized: bool) -> "torch.Tensor":
    import torch

    tensor: torch.Tensor = value() if callable(value) else value
    if tensor.shape != stored.shape and not resized:
        raise DataError(f"`{name}` has shape {list(tensor.shape)}, the base model {list(stored.shape)}")
    cast = tensor.detach().to(device="cpu", dtype=stored.dtype).contiguous()
    if not bool(torch.isfinite(cast).all()):
        raise LangadaptError(f"`{name}` holds values that {stored.dtype} cannot hold, or that are not numbers")
    return cast


def _write_configs(
    base: Path, out: Path, updates: Mapping[str, Any], outer: Mapping[str, Any], generation: Mapping[str, Any]
) -> None:
    config = read_json_object(base / "config.json")
    # names a folder or hub id of whoever saved the model last; it says nothing about this one
    config.pop("_name_or_path", None)
    config.update(outer)
    text_config(config).update(updates)
    write_durably(out / "config.json", pretty_json(config))
    path = base / "generation_config.json"
    if path.is_file() or generation:
        content = read_json_object(path) if path.is_file() else {}
        content.update(generation)
        kept = {key: value for key, value in content.items() if value is not None or key not in generation}
        write_durably(out / "generation_config.json", pretty_json(kept))


def _copy_tokenizer(base: Path, source: Path, out: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    before = chat_template(base)
    if isinstance(before, str) and chat_template(out) is None:
        # a tokenizer made elsewhere may have left the template behind; the model was tuned on it
        write_durably(out / TEMPLATE_FILE, before)


def chat_template(folder: Path) -> Any:
    """The template as transformers finds it: in a file of its own, else in the settings; None: there is none."""
    file, settings = folder / TEMPLATE_FILE, folder / "tokenizer_config.json"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    return read_json_object(settings).get("chat_template") if settings.is_file() else None
