"""The tokenizer that a vocabulary was appended to, made again from the one that has the new tokens."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.boundary import Reading
from langadapt.core.io import read_json_object
from langadapt.model.load import load_tokenizer
from langadapt.model.tokenizer_check import MAX_BYTES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def without_tokens(folder: Path, new_ids: Collection[int]) -> "PreTrainedTokenizerBase":
    """The tokenizer of `folder` as it cut text before it had these tokens; all others keep their ids.

    Exact where tokens were appended: merges of old tokens are those of the base and stand before all others, and an
    old piece keeps its score. DataError if what is left cannot be loaded.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    content = read_json_object(folder / "tokenizer.json", max_bytes=MAX_BYTES)
    content["model"] = _model_without(content["model"], frozenset(new_ids))
    gone = set(new_ids)
    content["added_tokens"] = [entry for entry in content.get("added_tokens") or () if entry["id"] not in gone]
    with Reading(f"`{folder}/tokenizer.json` cannot be loaded without its new tokens"):
        plain = Tokenizer.from_str(json.dumps(content))
    # many files ask for 512 tokens at the most: what is longer would be cut off without a word
    plain.no_truncation()
    plain.no_padding()
    before = load_tokenizer(folder)
    unknown = {"unk_token": before.unk_token} if before.unk_token is not None else {}
    made: PreTrainedTokenizerBase = PreTrainedTokenizerFast(tokenizer_object=plain, **unknown)
    return made


def _model_without(model: dict[str, Any], ids: frozenset[int]) -> dict[str, Any]:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        # Unigram numbers its pieces by their place, so none is taken out: a piece that no text can hold stands there
        # instead, with the least score, by which the library measures what an unknown letter costs
        least = min(entry[1] for id, entry in enumerate(vocabulary) if id not in ids)
        kept = [[f"\x00{id}\x00", least] if id in ids else entry for id, entry in enumerate(vocabulary)]
        return {**model, "vocab": kept}
    pieces = {piece: id for piece, id in vocabulary.items() if id not in ids}
    found = {**model, "vocab": pieces}
    if model.get("merges"):
        found["merges"] = [entry for entry in model["merges"] if _stays(entry, pieces)]
    return found


def _stays(entry: Any, pieces: dict[str, int]) -> bool:
    left, right = entry.split(" ") if isinstance(entry, str) else entry
    return left in pieces and right in pieces and left + right in pieces
