"""Which tokens can stand between two documents."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What model families put between documents in pretraining; after instruction tuning EOS is often another token.
_USUAL = ("<|endoftext|>", "<|end_of_text|>", "<|begin_of_text|>")


def candidates(tokenizer: "PreTrainedTokenizerBase") -> dict[str, int]:
    """Token -> id of BOS, EOS, the usual end-of-text tokens and a declared separator, each id once, in this order."""
    vocabulary = tokenizer.get_vocab()
    names = [tokenizer.bos_token, tokenizer.eos_token, *_USUAL, getattr(tokenizer, "sep_token", None)]
    found: dict[str, int] = {}
    for name in names:
        if name is not None and str(name) in vocabulary and vocabulary[str(name)] not in found.values():
            found[str(name)] = vocabulary[str(name)]
    return found
