"""Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM): guarded continued training on top of the old merges.

New merges are learned from the segmentation that the tokenizer gives now and appended after all old ones, so a new
segmentation only ever joins tokens of the old one. Forbidden are joins

- of two tokens that stand side by side in protected text (see guard.py);
- that touch an added or special token, or the unknown token;
- longer than `max_token_bytes`;
- with a digit, where the base keeps digits apart;
- that do not begin at a character boundary or hold invalid UTF-8. The last character may be incomplete, but only in
  a token that others are built of: an incomplete token that nothing completes is dropped;
- whose bytes are a token already. Such a merge would cost no row, but it makes an old token appear beside tokens
  that it never met, where old merges of higher priority then fire: exact prediction of the cut, and the proof that
  every new token can be reached, would be lost. (SmolLM2 with Hungarian, Finnish and Greek text: none in 8,000.)

Then words are cut with the result and tokens with fewer than `min_count` uses go, see prune.py. growing.py does it.
"""

from langadapt.core.config import Options
from langadapt.core.registry import method
from langadapt.model.bytes_alphabet import byte_of_character
from langadapt.model.spelling import family_of
from langadapt.vocab.family import Refusal
from langadapt.vocab.growing import BpeFamily
from langadapt.vocab.rules import refused_option
from langadapt.vocab.tokenizer_file import TokenizerFile


@method(cite="Sennrich et al. 2016; continued from the old merges with a guard")
def byte_bpe(base: TokenizerFile, options: Options) -> "ByteBpe | Refusal":
    """The family object if `base` is byte-level BPE."""
    kind = family_of(base.spec)
    if kind != "byte-bpe":
        return Refusal(f"its model is {kind}")
    if option := refused_option(base.model):
        return Refusal(f"its BPE model uses `{option}`", near=True)
    alphabet = byte_of_character()
    for piece in base.model["vocab"]:
        if piece not in base.added and not all(character in alphabet for character in piece):
            return Refusal(f"its token `{piece}` is not spelled in the byte alphabet", near=True)
    return ByteBpe(base)


class ByteBpe(BpeFamily):
    """A byte-level BPE tokenizer that can be extended."""

    name = "byte-bpe"
