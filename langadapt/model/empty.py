"""A model without values: what its parameters are called and how they are shaped, from its config alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.errors import DataError
from langadapt.core.io import read_json_object
from langadapt.model.kinds import model_class, require_causal
from langadapt.model.load import check_safe
from langadapt.model.surroundings import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def empty_model(folder: Path) -> "PreTrainedModel":
    """The causal language model of a folder on torch's meta device. DataError if transformers does not know it."""
    check_safe(folder)
    require_causal(folder, "choosing what moves")
    model = meta_model(folder)
    model.tie_weights()
    return model.eval()


def meta_model(folder: Path, *, more_rows: int = 0) -> "PreTrainedModel":
    """A model of any kind on the meta device, with `more_rows` rows more in its tables; nothing is tied yet."""
    import torch
    from transformers import AutoConfig

    quiet_transformers()
    try:
        made = model_class(read_json_object(folder / "config.json"))
        make: Any = getattr(made, "from_config", None) or made._from_config
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        config.get_text_config().vocab_size += more_rows
        with torch.device("meta"):
            model: PreTrainedModel = make(config)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DataError(f"transformers does not know the architecture of `{folder}`: {error}") from error
    return model
