"""From what a person types (folder, .gguf file, hub id) to a model folder, and from the folder to a model in memory."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from langadapt.core.artifact import is_artifact, partial_folder
from langadapt.core.boundary import Reading
from langadapt.core.errors import DataError, SafetyError
from langadapt.core.io import read_json_object
from langadapt.core.progress import Progress
from langadapt.model.facts import check_rows
from langadapt.model.gguf import import_gguf
from langadapt.model.kinds import model_class, require_causal
from langadapt.model.spm_only import with_tokenizer_json
from langadapt.model.surroundings import quiet_transformers
from langadapt.model.tokenizer_check import check_tokenizer
from langadapt.model.weights import refuse_pickles

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# Everything a causal language model needs and nothing that can run.
_WANTED = ["*.json", "*.jinja", "*.model", "*.txt", "*.safetensors", "LICENSE*", "NOTICE*"]
_TOKENIZER_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]
_UNWANTED = ["*.bin", "*.pt", "*.pth", "*.py", "*/*"]


def resolve(given: str, progress: Progress | None = None) -> Path:
    """The folder of a model. A .gguf file is converted once into the cache; a hub id is fetched as the hub client does.

    A folder with a SentencePiece `.model` and no tokenizer.json is given as one in the cache that has both. A path that
    does not exist and cannot be a hub id is given back as it is. SafetyError: pickle-only weights, or a model with
    code of its own.
    """
    path = Path(given)
    if path.is_file() and path.suffix.lower() == ".gguf":
        return import_gguf(path, progress)
    if path.is_file():
        raise DataError(f"`{given}` is a file; a model is a folder, a .gguf file or a hub id")
    if path.is_dir():
        if is_artifact(path):
            return path
        check_safe(path)
        return with_tokenizer_json(path, progress)
    if partial_folder(path).is_dir() or not _HUB_ID.fullmatch(given):
        return path
    folder = _from_hub(given)
    check_safe(folder)
    return with_tokenizer_json(folder, progress)


def resolve_tokenizer(given: str, progress: Progress | None = None) -> Path:
    """The folder or tokenizer.json of a tokenizer; of a hub id only the tokenizer's files are fetched.

    DataError if there is nothing. SafetyError if it brings its own code.
    """
    path = Path(given)
    if path.is_file() and path.suffix.lower() != ".json":
        return resolve(given, progress)
    if not path.exists():
        if partial_folder(path).is_dir() or not _HUB_ID.fullmatch(given):
            raise DataError(f"`{given}` does not exist", hint="a tokenizer is a folder, a tokenizer.json or a hub id")
        path = _from_hub(given, _TOKENIZER_FILES)
    if path.is_dir():
        refuse_code(path)
        return with_tokenizer_json(path, progress)
    return path


def _from_hub(name: str, wanted: Sequence[str] = _WANTED) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    offline = bool(constants.HF_HUB_OFFLINE)
    try:
        return Path(
            snapshot_download(name, allow_patterns=list(wanted), ignore_patterns=_UNWANTED, local_files_only=offline)
        )
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError) as error:
        where = "nor a model in the local hub cache (HF_HUB_OFFLINE is set)" if offline else "nor a model on the hub"
        raise DataError(
            f"`{name}` is neither a file or folder here {where}",
            hint="check the spelling; a model is a folder, a .gguf file or a hub id such as org/name",
        ) from error


def check_safe(folder: Path) -> None:
    """Refuse what could run code: pickle-only weights (SafetyError), `auto_map` (SafetyError); no config: DataError."""
    if not (folder / "config.json").is_file():
        raise DataError(f"`{folder}` is not a model folder: it has no config.json")
    refuse_code(folder)
    refuse_pickles(folder)


def refuse_code(folder: Path) -> None:
    """SafetyError if a config of the folder asks for code that came with it (`auto_map`)."""
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file() and read_json_object(path).get("auto_map"):
            raise SafetyError(
                f"`{path}` asks for code that came with the model (`auto_map`); langadapt does not run it",
                hint="use a model whose architecture is part of transformers",
            )


def load_model(folder: Path, *, dtype: "torch.dtype | None" = None) -> "PreTrainedModel":
    """Load a causal language model from a local folder in evaluation mode, in float32 unless `dtype` says otherwise.

    Only safetensors, only architectures of transformers. DataError if it is of another kind, the files are damaged or
    a tensor is missing.
    """
    check_safe(folder)
    require_causal(folder, "loading it for this")
    return load_any_model(folder, dtype=dtype)


def load_any_model(folder: Path, *, dtype: "torch.dtype | None" = None) -> "PreTrainedModel":
    """The same for a model of any kind, with the class that saved it."""
    import torch

    check_safe(folder)
    check_rows(folder)
    quiet_transformers()
    with Reading(f"transformers cannot load `{folder}`"):
        model, info = model_class(read_json_object(folder / "config.json")).from_pretrained(
            str(folder),
            dtype=dtype or torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    missing = sorted(map(str, info["missing_keys"]))
    if missing:
        # transformers would fill them with random numbers and go on
        raise DataError(f"`{folder}` lacks {len(missing)} tensors of its architecture, such as `{missing[0]}`")
    loaded: PreTrainedModel = model.eval()
    return loaded


def load_tokenizer(folder: Path, *, needs_file: bool = True) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a folder. DataError: none, a damaged one, or with `needs_file` one without a fast form."""
    if needs_file and not (folder / "tokenizer.json").is_file():
        raise DataError(f"`{folder}` has no tokenizer.json", hint="save the model together with its fast tokenizer")
    check_tokenizer(folder)
    quiet_transformers()
    from transformers import AutoTokenizer

    with Reading(f"transformers cannot load the tokenizer of `{folder}`"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    return tokenizer


def load_any_tokenizer(place: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder in any layout that transformers reads, or of a lone tokenizer.json."""
    file = place if place.is_file() else place / "tokenizer.json"
    check_tokenizer(place)
    if place.is_dir() and any((place / name).is_file() for name in ("config.json", "tokenizer_config.json")):
        return load_tokenizer(place, needs_file=False)
    if not file.is_file():
        raise DataError(f"`{place}` holds no tokenizer", hint="a tokenizer is a folder, a tokenizer.json or a hub id")
    quiet_transformers()
    from transformers import PreTrainedTokenizerFast

    with Reading(f"transformers cannot load `{file}`"):
        tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(tokenizer_file=str(file))
    return tokenizer
