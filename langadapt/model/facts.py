"""What can be said of a model from its config and file headers alone: size, shape, dtype."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from langadapt.core.errors import DataError
from langadapt.core.io import read_json_object
from langadapt.model.weights import DTYPE_NAMES, TensorInfo, open_weights

# Names of the head in the model families of transformers.
HEADS = ("lm_head.weight", "output.weight", "embed_out.weight")
INPUT_TABLES = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "shared.weight")

# What configurations of transformers call the number of layers and the width of their states.
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_WIDTHS = ("hidden_size", "n_embd", "d_model")


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part of config.json that describes the language model: `text_config` where there is one, else all."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) and "vocab_size" in inner else config


def is_tied(config: dict[str, Any], tensors: Mapping[str, TensorInfo]) -> bool:
    """Are input table and head one matrix? As the config says; if it is silent, when no head is stored."""
    for part in (config, text_config(config)):
        if "tie_word_embeddings" in part:
            return bool(part["tie_word_embeddings"])
    return not any(name in tensors for name in HEADS)


def stored_name(name: str, tensors: Collection[str]) -> str | None:
    """What the files call a parameter that the loaded model calls `name`; None if they hold no such tensor.

    Older files leave out the first part (`transformer.`), and those of GPT-NeoX call the head `embed_out`.
    """
    candidates: list[str] = [name, name.partition(".")[2]]
    heads: list[str] = [head for head in HEADS if head in tensors]
    if name in HEADS and len(heads) == 1:
        candidates += heads
    return next((candidate for candidate in candidates if candidate in tensors), None)


def position_limit(folder: Path) -> int | None:
    """Most tokens in one sequence, where the model's config says it."""
    text = text_config(read_json_object(folder / "config.json"))
    limit = text.get("max_position_embeddings", text.get("n_positions"))
    return limit if isinstance(limit, int) and limit > 0 else None


def check_positions(folder: Path, tokens: int, what: str, hint: str) -> None:
    """DataError if `tokens` in one sequence are more than the model's positions, where its config limits them.

    Past them learned positions end in an index error, and rotary ones in states that the model never met.
    """
    limit = position_limit(folder)
    if limit is not None and limit < tokens:
        raise DataError(f"{what} {tokens:,} tokens, `{folder}` has {limit:,} positions", hint=hint.format(limit))


def check_rows(folder: Path) -> None:
    """DataError if the files are damaged, or if the input table has other rows than the config says.

    transformers would stop too, but say no number, and not stop everywhere.
    """
    tensors = open_weights(folder).tensors
    said, table = text_config(read_json_object(folder / "config.json")).get("vocab_size"), _table(tensors)
    if table is not None and said is not None and said != table.shape[0]:
        raise DataError(
            f"`{folder}` disagrees with itself: config says {said} tokens, the input table has {table.shape[0]:,} rows",
            where=f"{folder / 'config.json'}:vocab_size",
            hint="correct `vocab_size`, if the tokenizer has no more ids than the table has rows",
        )


def model_facts(folder: Path) -> dict[str, Any]:
    """parameters, layers, hidden_size, rows, dtype, tied of a model folder, without loading it.

    `parameters` counts a tied matrix once; `dtype` is the one that holds most values. `table_width` is there where the
    tables are narrower than the states between the layers (OPT 350M).
    """
    config = read_json_object(folder / "config.json")
    text = text_config(config)
    tensors = open_weights(folder).tensors
    tied = is_tied(config, tensors)
    counted = {name: info for name, info in tensors.items() if not (tied and name in HEADS and len(tensors) > 1)}
    by_dtype: dict[str, int] = {}
    for info in counted.values():
        by_dtype[info.dtype] = by_dtype.get(info.dtype, 0) + info.elements
    if not by_dtype:
        raise DataError(f"`{folder}` has weight files without tensors")
    stored = max(sorted(by_dtype), key=lambda name: by_dtype[name])
    table = _table(tensors)
    width = _first(text, _WIDTHS) or (table.shape[1] if table else None)
    narrow = {} if table is None or table.shape[1] == width else {"table_width": table.shape[1]}
    return {
        "parameters": sum(by_dtype.values()),
        "layers": _first(text, _LAYERS),
        "hidden_size": width,
        "rows": table.shape[0] if table else text.get("vocab_size"),
        "dtype": DTYPE_NAMES.get(stored, stored),
        "tied": tied,
        **narrow,
    }


def table_width(facts: Mapping[str, Any]) -> int:
    """Width of a row of the input table, from `model_facts`."""
    return int(facts.get("table_width", facts["hidden_size"]))


def _first(config: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((config[key] for key in keys if key in config), None)


def row_parameters(folder: Path) -> int:
    """Parameters that one token costs: the width of the input table, and of a head that is a table of its own."""
    tensors = open_weights(folder).tensors
    table = _table(tensors)
    if table is None:
        return 0
    tied = is_tied(read_json_object(folder / "config.json"), tensors)
    heads = sum(name in HEADS and info.shape == table.shape for name, info in tensors.items())
    return table.shape[1] * (1 if tied else 1 + heads)


def _table(tensors: dict[str, TensorInfo]) -> TensorInfo | None:
    for name, info in sorted(tensors.items()):
        if name.endswith(INPUT_TABLES) and len(info.shape) == 2:
            return info
    return None
