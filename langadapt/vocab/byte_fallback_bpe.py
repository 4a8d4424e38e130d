"""BPE over characters with byte fallback (Gemma, Llama 2, Mistral): guarded continued training, and missing characters.

The same as byte_bpe.py with three differences:

- Pre-tokens are whole texts, so text is cut where no token can stand across, see word_cuts.py. A new token is of one
  kind of character, perhaps behind one space (`▁talo`, not `talo.` nor `talo▁on`).
- The base spells a character that it has no token for with byte tokens, which the decoder only knows one by one: they
  are never merged. Such a character gets a token of its own (no merge is needed: the model looks characters up) when
  the text has it `min_count` times and no guarded word holds it. A token of one character changes the segmentation of
  that character only, so guarded words keep their ids.
- Merges cannot end inside a character, so every new token is whole text.
"""

from collections.abc import Mapping

from langadapt.core.config import Options
from langadapt.core.registry import method
from langadapt.model.spelling import byte_piece, family_of, marks_spaces
from langadapt.vocab.family import Refusal, Wish
from langadapt.vocab.growing import BpeFamily, Letter, count_letters
from langadapt.vocab.guard import Guard
from langadapt.vocab.rules import refused_option
from langadapt.vocab.scripts import only_in
from langadapt.vocab.tokenizer_file import TokenizerFile
from langadapt.vocab.word_cuts import of_one_kind


@method(cite="Sennrich et al. 2016; Kudo and Richardson 2018 (byte fallback); continued with a guard")
def byte_fallback_bpe(base: TokenizerFile, options: Options) -> "ByteFallbackBpe | Refusal":
    """The family object if `base` is BPE over characters with byte fallback and `▁` for spaces."""
    kind = family_of(base.spec)
    if kind != "byte-fallback-bpe":
        return Refusal(f"its model is {kind}")
    option = refused_option(base.model) or ("ignore_merges" if base.ignore_merges else None)
    if option:
        return Refusal(f"its BPE model uses `{option}`", near=True)
    if not marks_spaces(base.spec):
        return Refusal("it does not mark spaces with `▁`", near=True)
    lone = {byte_piece(byte) for byte in range(256)}
    lacking = sorted(lone - base.model["vocab"].keys())
    if lacking:
        return Refusal(f"it lacks {len(lacking)} byte tokens, such as `{lacking[0]}`", near=True)
    if any(lone.intersection(pair) for pair in base.merges):
        return Refusal("its merges join byte tokens", near=True)
    return ByteFallbackBpe(base)


class ByteFallbackBpe(BpeFamily):
    """A BPE tokenizer with byte fallback that can be extended."""

    name = "byte-fallback-bpe"

    def new_letters(self, words: Mapping[str, int], guard: Guard, wish: Wish) -> tuple[Letter, ...]:
        """Characters that the base spells with bytes, the most frequent first, ties by code point."""
        protected = {letter for word in guard.words for letter in word}
        vocabulary = self._base.model["vocab"]
        found = [
            (count, letter)
            for letter, count in count_letters(words).items()
            if count >= wish.min_count
            and letter not in vocabulary
            and letter not in protected
            and letter.encode() not in wish.never
            and (not wish.scripts or only_in(letter.encode(), wish.scripts))
        ]
        chosen = sorted(found, key=lambda item: (-item[0], item[1]))[: wish.size]
        return tuple(Letter(letter, self._base.next_id + place, count) for place, (count, letter) in enumerate(chosen))

    def joinable(self, content: bytes) -> bool:
        """One kind of character, perhaps behind a space."""
        return of_one_kind(content.decode())

    def never_joined(self) -> frozenset[int]:
        """The unknown token and the byte tokens."""
        vocabulary = self._base.model["vocab"]
        return super().never_joined() | {vocabulary[byte_piece(byte)] for byte in range(256)}
