"""A model without values: what its parameters are called and how they are shaped, from its config alone."""

from pathlib import Path
from typing import TYPE_CHECKING

from langadapt.core.errors import DataError
from langadapt.core.io import read_json_object
from langadapt.model.kinds import model_class, require_causal
from langadapt.model.load import check_safe
from langadapt.model.surroundings import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def empty_model(folder: Path) -> "PreTrainedModel":
    """The causal language model of a folder on torch's meta device. DataError if transformers does not know it."""
    import torch

    check_safe(folder)
    require_causal(folder, "choosing what moves")
    quiet_transformers()
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model: PreTrainedModel = model_class(read_json_object(folder / "config.json")).from_config(config)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DataError(f"transformers does not know the architecture of `{folder}`: {error}") from error
    model.tie_weights()
    return model.eval()
