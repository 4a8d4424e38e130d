"""From what a person types (folder, .gguf file, hub id) to a model folder, and from the folder to a model in memory."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from langadapt.core.artifact import is_artifact, partial_folder
from langadapt.core.errors import DataError, SafetyError
from langadapt.core.io import read_json_object
from langadapt.core.progress import Progress
from langadapt.model.gguf import import_gguf
from langadapt.model.surroundings import quiet_transformers
from langadapt.model.weights import open_weights, refuse_pickles

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# Everything a causal language model needs and nothing that can run.
_WANTED = ["*.json", "*.jinja", "*.model", "*.txt", "*.safetensors", "LICENSE*", "NOTICE*"]
_UNWANTED = ["*.bin", "*.pt", "*.pth", "*.py", "*/*"]


def resolve(given: str, progress: Progress | None = None) -> Path:
    """The folder of a model. A .gguf file is converted once into the cache; a hub id is fetched as the hub client does.

    A path that does not exist and cannot be a hub id is given back as it is. SafetyError: pickle-only weights, or a
    model that brings its own code.
    """
    path = Path(given)
    if path.is_file() and path.suffix.lower() == ".gguf":
        return import_gguf(path, progress)
    if path.is_file():
        raise DataError(f"`{given}` is a file; a model is a folder, a .gguf file or a hub id")
    if path.is_dir():
        if not is_artifact(path):
            check_safe(path)
        return path
    if partial_folder(path).is_dir() or not _HUB_ID.fullmatch(given):
        return path
    folder = _from_hub(given)
    check_safe(folder)
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    offline = bool(constants.HF_HUB_OFFLINE)
    try:
        return Path(
            snapshot_download(name, allow_patterns=_WANTED, ignore_patterns=_UNWANTED, local_files_only=offline)
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
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file() and read_json_object(path).get("auto_map"):
            raise SafetyError(
                f"`{path}` asks for code that came with the model (`auto_map`); langadapt does not run it",
                hint="use a model whose architecture is part of transformers",
            )
    refuse_pickles(folder)


def load_model(folder: Path, *, dtype: "torch.dtype | None" = None) -> "PreTrainedModel":
    """Load a causal language model from a local folder in evaluation mode, in float32 unless `dtype` says otherwise.

    Only safetensors, only architectures of transformers. DataError if the files are damaged or a tensor is missing.
    """
    import torch

    check_safe(folder)
    open_weights(folder)
    quiet_transformers()
    from transformers import AutoModelForCausalLM

    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype or torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        raise DataError(f"transformers cannot load `{folder}`: {error}") from error
    missing = sorted(map(str, info["missing_keys"]))
    if missing:
        # transformers would fill them with random numbers and go on
        raise DataError(f"`{folder}` lacks {len(missing)} tensors of its architecture, such as `{missing[0]}`")
    loaded: PreTrainedModel = model.eval()
    return loaded


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Load the fast tokenizer of a local folder. DataError if there is none."""
    if not (folder / "tokenizer.json").is_file():
        raise DataError(f"`{folder}` has no tokenizer.json", hint="save the model together with its fast tokenizer")
    quiet_transformers()
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except (ValueError, KeyError, OSError) as error:
        raise DataError(f"transformers cannot load the tokenizer of `{folder}`: {error}") from error
    return tokenizer
