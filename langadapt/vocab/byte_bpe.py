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

Then words are cut with the result and tokens with fewer than `min_count` uses go, see prune.py.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from langadapt.core.config import Options
from langadapt.core.progress import Progress
from langadapt.core.registry import method
from langadapt.core.types import NewToken
from langadapt.model.bytes_alphabet import byte_of_character, to_bytes
from langadapt.vocab.family import Growth, Refusal, Wish
from langadapt.vocab.guard import Guard
from langadapt.vocab.merging import Learned, PairLearner
from langadapt.vocab.prune import grow_to
from langadapt.vocab.rules import JoinRules, is_text, joins_digits
from langadapt.vocab.tokenizer_file import Merge, TokenizerFile, encode_all

# Words cut at once: bounds the memory of the library's results (about 1 kB a word).
_BATCH = 20_000


@method(cite="Sennrich et al. 2016; continued from the old merges with a guard")
def byte_bpe(base: TokenizerFile, options: Options) -> "ByteBpe | Refusal":
    """The family object if `base` is byte-level BPE."""
    kind = base.model.get("type") or ("BPE" if "merges" in base.model else "of an unknown kind")
    if kind != "BPE":
        return Refusal(f"its model is {kind}")
    stages = _stage_types(base.spec.get("pre_tokenizer")) | _stage_types(base.spec.get("normalizer"))
    if "ByteLevel" not in stages:
        return Refusal("its model is BPE over characters (SentencePiece style), not over bytes")
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if base.model.get(key):
            return Refusal(f"its BPE model uses `{key}`", near=True)
    alphabet = byte_of_character()
    for piece in base.model["vocab"]:
        if piece not in base.added and not all(character in alphabet for character in piece):
            return Refusal(f"its token `{piece}` is not spelled in the byte alphabet", near=True)
    return ByteBpe(base)


def _stage_types(section: Any) -> set[str]:
    """Types of a pipeline section and of everything inside its sequences."""
    if not isinstance(section, dict):
        return set()
    found = {str(section.get("type"))}
    for key in ("pretokenizers", "normalizers"):
        for part in section.get(key) or []:
            found |= _stage_types(part)
    return found


class ByteBpe:
    """A byte-level BPE tokenizer that can be extended."""

    name = "byte-bpe"

    def __init__(self, base: TokenizerFile) -> None:
        self._base = base
        self._contents = {
            number: to_bytes(piece) for piece, number in base.model["vocab"].items() if piece not in base.added
        }
        self._pieces = {number: piece for piece, number in base.model["vocab"].items()}

    def content(self, piece: str) -> bytes:
        """Bytes that a piece stands for."""
        return to_bytes(piece)

    def splits_digits(self) -> bool:
        """Are digits kept apart from each other?

        Either the pre-tokenizer does it, or it did once and the file forgot (conversion from GGUF loses this):
        then no token of the vocabulary holds two digits.
        """
        cutter = self._base.tokenizer.pre_tokenizer
        pieces = [piece for piece, _ in cutter.pre_tokenize_str("12 x34")] if cutter else ["12"]
        if not any(joins_digits(to_bytes(piece)) for piece in pieces):
            return True
        return not any(joins_digits(content) for content in self._contents.values())

    def grow(self, words: Mapping[str, int], guard: Guard, wish: Wish, progress: Progress) -> Growth:
        """Learn new tokens from words with counts; see the head of this file for what is forbidden."""
        types, segments = self._segments(words)
        weights = [words[word] for word in types]
        learner = PairLearner(
            segments,
            weights,
            self._contents,
            next_id=self._base.next_id,
            min_count=wish.min_count,
            allowed=self._allowed(guard, wish),
        )
        task = progress.start("learning merges", total=wish.size, unit="merges")

        def uses_of(kept: Sequence[Learned]) -> dict[int, int]:
            return self._uses(kept, types, weights)

        kept, uses = grow_to(
            wish.size,
            learner,
            min_count=wish.min_count,
            uses_of=uses_of,
            complete=lambda number: is_text(learner.contents[number]),
            learn=lambda until: learner.learn(until, task),
        )
        task.finish()
        return self._growth(kept, uses, learner, wish)

    def _segments(self, words: Mapping[str, int]) -> tuple[list[str], list[list[int]]]:
        """Words that the base spells without loss, and their ids; others cannot be learned from."""
        types, segments = [], []
        ordered = sorted(words)
        for word, ids in zip(ordered, encode_all(self._base.model_stage(), ordered), strict=True):
            if len(ids) > 1 and "".join([self._pieces.get(number, "") for number in ids]) == word:
                types.append(word)
                segments.append(ids)
        return types, segments

    def _allowed(self, guard: Guard, wish: Wish) -> Callable[[int, int, bytes, bytes], bool]:
        apart = wish.split_digits == "yes" or (wish.split_digits == "auto" and self.splits_digits())
        rules = JoinRules(wish.max_token_bytes, apart)
        whole = {to_bytes(word) for word in guard.whole}
        outside = {self._base.model["vocab"].get(self._base.model.get("unk_token") or "")}

        def allowed(left: int, right: int, left_bytes: bytes, right_bytes: bytes) -> bool:
            return (
                (left, right) not in guard.pairs
                and rules.allow(left_bytes, right_bytes)
                and left_bytes + right_bytes not in whole
                and left not in outside
                and right not in outside
            )

        return allowed

    def _uses(self, kept: Sequence[Learned], types: Sequence[str], weights: Sequence[int]) -> dict[int, int]:
        """How often the words end with each new token when exactly these merges are added."""
        merges = self.merges_of(kept)
        first = self._base.next_id
        totals = np.zeros(len(merges), np.int64)
        model = self._base.model_stage(merges)
        for start in range(0, len(types), _BATCH):
            part = types[start : start + _BATCH]
            cut = list(encode_all(model, part))
            ids = np.fromiter((number for segment in cut for number in segment), np.int64)
            weight = np.repeat(np.asarray(weights[start : start + _BATCH], np.int64), [len(segment) for segment in cut])
            new = ids >= first
            np.add.at(totals, ids[new] - first, weight[new])
        return {merge.id: int(total) for merge, total in zip(kept, totals, strict=True)}

    def merges_of(self, kept: Sequence[Learned]) -> list[Merge]:
        """The merges as the file spells them, with consecutive ids in learned order."""
        pieces = dict(self._pieces)
        merges = []
        for number, merge in enumerate(kept, self._base.next_id):
            merges.append(Merge(pieces[merge.left], pieces[merge.right], number))
            pieces[merge.id] = pieces[merge.left] + pieces[merge.right]
        return merges

    def _growth(self, kept: Sequence[Learned], uses: Mapping[int, int], learner: PairLearner, wish: Wish) -> Growth:
        merges = self.merges_of(kept)
        ranks = {merge.id: rank for rank, merge in enumerate(learner.merges, 1)}
        tokens, stones = [], set()
        for merge, new in zip(kept, merges, strict=True):
            rare = uses[merge.id] < wish.min_count
            if rare:
                stones.add(new.id)
            reason = f"{'stepping stone, ' if rare else ''}merge {ranks[merge.id]}"
            content = learner.contents[merge.id]
            tokens.append(NewToken(new.id, new.left + new.right, content, uses[merge.id], reason))
        notes = {
            "asked": wish.size,
            "learned": len(learner.merges),
            "left_out_too_rare": len(learner.merges) - len(kept),
            "missing": wish.size - len(kept),
            "skipped_strings_already_tokens": len(learner.skipped),
            "stepping_stones": len(stones),
        }
        return Growth(
            merges=tuple(merges),
            tokens=tuple(tokens),
            learned=tuple(merge.count for merge in kept),
            stepping_stones=frozenset(stones),
            notes=notes,
        )
