"""A tokenizer as it would be without some of its tokens: their ids stay, and nothing is cut into them any more."""

import json
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langadapt.core.boundary import Reading
from langadapt.core.io import read_json_object
from langadapt.model.bare_model import bare_model
from langadapt.model.spelling import family_of
from langadapt.model.token_table import TokenTable
from langadapt.model.tokenizer_check import MAX_BYTES

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Far below any log probability of a real vocabulary, so that a piece is taken only where there is no other way.
_NEVER = -1e4


def table_without(tokens: TokenTable, ids: Collection[int]) -> TokenTable:
    """The same tokens by id, and `spell` that does without those of `ids`.

    A text that cannot be spelled otherwise is still spelled with them (single letters), so a caller has to look.
    """
    content = _content_without(tokens, ids)
    return replace(tokens, _model=bare_model(content, tokens.folder / "tokenizer.json"))


def tokenizer_without(tokens: TokenTable, ids: Collection[int]) -> "Tokenizer":
    """The whole tokenizer, for running text, that does without the tokens `ids`."""
    from tokenizers import Tokenizer

    with Reading(f"`{tokens.folder}/tokenizer.json` cannot be loaded without {len(ids)} of its tokens"):
        tokenizer = Tokenizer.from_str(json.dumps(_content_without(tokens, ids), ensure_ascii=False))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _content_without(tokens: TokenTable, ids: Collection[int]) -> dict[str, Any]:
    content = read_json_object(tokens.folder / "tokenizer.json", max_bytes=MAX_BYTES)
    gone, model = {tokens.piece(id) for id in ids}, content["model"]
    family = family_of(content)
    if family == "unigram":
        model["vocab"] = [[piece, _NEVER if piece in gone else score] for piece, score in model["vocab"]]
    elif family == "wordpiece":
        model["vocab"] = {piece: id for piece, id in model["vocab"].items() if piece not in gone}
    else:
        # a token that no merge makes is never made, and those that only it leads to are not made either
        model["merges"] = [entry for entry in model.get("merges") or () if _joined(entry) not in gone]
        model["ignore_merges"] = False
    return content


def _joined(entry: Any) -> str:
    left, right = entry.split(" ") if isinstance(entry, str) else entry
    return f"{left}{right}"
