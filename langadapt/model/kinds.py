"""What kind of model a folder holds, and the class of transformers that loads it.

Vocabularies and tables are changed in all kinds. Training, scoring and writing text are for causal models.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from langadapt.core.errors import DataError
from langadapt.core.io import read_json_object

Kind = Literal["causal", "masked", "seq2seq", "body"]
_WORDS = {
    "masked": "an encoder",
    "seq2seq": "an encoder-decoder model",
    "body": "an encoder without a head over its vocabulary",
}


def architecture(config: Mapping[str, Any]) -> str:
    """The class that saved the model (`BertForMaskedLM`); empty if config.json does not name it."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def kind_of(config: Mapping[str, Any]) -> Kind:
    """By config.json: what the saving class is called, else what transformers has for the model type.

    `causal` where nothing says otherwise: transformers then says what it does not know.
    """
    name = architecture(config)
    if name.endswith("EncoderModel"):
        return "body"
    if config.get("is_encoder_decoder") is True:
        return "seq2seq"
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal"
    if name.endswith("ForMaskedLM"):
        return "masked"
    from transformers.models.auto import modeling_auto as auto

    family = config.get("model_type")
    if name in ("", "ForConditionalGeneration") and family not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "seq2seq" if family in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES else "causal"
    if family not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "causal"
    return "masked" if not name or name.endswith("ForPreTraining") else "body"


def model_class(config: Mapping[str, Any]) -> Any:
    """The class whose parameters are called as the files call them; never code that came with the model."""
    import transformers

    kind = kind_of(config)
    if kind == "causal":
        return transformers.AutoModelForCausalLM
    named = getattr(transformers, architecture(config) or "-", None)
    if isinstance(named, type) and issubclass(named, transformers.PreTrainedModel):
        return named
    return {
        "masked": transformers.AutoModelForMaskedLM,
        "seq2seq": transformers.AutoModelForSeq2SeqLM,
        "body": transformers.AutoModel,
    }[kind]


def generates(config: Mapping[str, Any]) -> bool:
    """Does a model of this kind write text, so that it has settings for that?"""
    return kind_of(config) in ("causal", "seq2seq")


def not_causal(folder: Path) -> str | None:
    """`an encoder (BertForMaskedLM)`; None for a causal model, and for a folder without config.json."""
    path = folder / "config.json"
    config = read_json_object(path) if path.is_file() else {}
    kind = kind_of(config) if config else "causal"
    if kind == "causal":
        return None
    name = architecture(config) or config.get("model_type")
    return f"{_WORDS[kind]} ({name})"


def require_causal(folder: Path, what: str) -> None:
    """DataError if a model does not write text from left to right; `what` is what was wanted of it."""
    found = not_causal(folder)
    if found is not None:
        raise DataError(
            f"`{folder}` is {found}; {what} is for causal language models",
            hint="extend-vocab, trim-vocab, train-tokenizer and init-embeddings take it; train and score what they "
            "make with other tools, such as the Trainer of transformers",
        )
