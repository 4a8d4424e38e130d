"""Guarded continued training of a BPE tokenizer: what its families share. See byte_bpe.py for what is forbidden."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from langadapt.core.errors import DataError
from langadapt.core.progress import Progress
from langadapt.core.types import NewToken
from langadapt.model.spelling import Spelling, spelling_of
from langadapt.vocab.checks import merges_kept, only_joins, reachable
from langadapt.vocab.curve import LEAST_SAVING, NEXT, Curve
from langadapt.vocab.family import Growth, Wish
from langadapt.vocab.guard import Guard
from langadapt.vocab.merging import Learned, PairLearner
from langadapt.vocab.outcome import Outcome
from langadapt.vocab.prune import grow_to
from langadapt.vocab.rules import JoinRules, is_text, keeps_digits_apart, torn_ends
from langadapt.vocab.scripts import only_in
from langadapt.vocab.spm_checks import merges_kept as every_split_kept
from langadapt.vocab.tokenizer_file import Merge, TokenizerFile, encode_all

# Words cut at once: bounds the memory of the library's results (about 1 kB a word).
_BATCH = 20_000
_REPORTED = 5000


@dataclass(frozen=True)
class Letter:
    """A character that gets a token without a merge, and how often the text has it."""

    text: str
    id: int
    count: int


@dataclass(frozen=True)
class _Start:
    """Words to learn from with their ids and weights; tokens (with the added characters) and bytes of all words."""

    types: list[str]
    segments: list[list[int]]
    weights: list[int]
    tokens: int
    size: int

    def curve(self, letters: Sequence[Letter], learner: PairLearner, *, complete: bool) -> Curve:
        """What each new token saves; a character was as many byte tokens as it has bytes."""
        before = [letter.count * (len(letter.text.encode()) - 1) for letter in letters]
        return Curve(self.tokens + sum(before), self.size, (*before, *learner.saved), complete)


class BpeFamily:
    """A BPE tokenizer that can be extended; its two families differ in the methods below `grow`."""

    name: str

    def __init__(self, base: TokenizerFile) -> None:
        self._base = base
        self._spelling: Spelling = spelling_of(base.spec)
        self._pieces = {number: piece for piece, number in base.model["vocab"].items()}
        self._contents = {
            number: self._spelling.content(piece) for number, piece in self._pieces.items() if piece not in base.added
        }

    def content(self, piece: str) -> bytes:
        """Bytes that a piece stands for."""
        return self._spelling.content(piece)

    def splits_digits(self) -> bool:
        """Are digits kept apart from each other?

        Either the pre-tokenizer does it, or it did once and the file forgot (conversion from GGUF loses this):
        then no token of the vocabulary holds two digits.
        """
        cutter = self._base.pre_tokenizer
        pieces = [piece for piece, _ in cutter.pre_tokenize_str("12 x34")] if cutter else ["12"]
        return keeps_digits_apart([self.content(piece) for piece in pieces], self._contents.values())

    def grow(self, words: Mapping[str, int], guard: Guard, wish: Wish, progress: Progress) -> Growth:
        """Learn new tokens from words with counts, none of which changes a guarded word.

        An automatic size is found first and then asked for, so that it gives what asking for it gives.
        """
        if wish.auto:
            return self._grow_auto(words, guard, wish, progress)
        growth = self._grow_once(words, guard, wish, progress)
        while self._base.ranks is not None and (lost := self._unreachable(growth)):
            # a split that was not the learned one came first; rare, and it takes learning anew to see what then happens
            growth = self._grow_once(words, guard, replace(wish, never=wish.never | lost), progress)
        return growth

    def _grow_once(self, words: Mapping[str, int], guard: Guard, wish: Wish, progress: Progress) -> Growth:
        letters = self.new_letters(words, guard, wish)
        learner, start = self._learner(words, letters, guard, wish, progress)
        types, weights = start.types, start.weights
        task = progress.start("learning merges", total=wish.size, unit="merges")

        def uses_of(kept: Sequence[Learned]) -> dict[int, int]:
            task.advance(0, detail="counting what is used")
            return self._uses(letters, kept, types, weights)

        kept, uses = grow_to(
            wish.size - len(letters),
            learner,
            min_count=wish.min_count,
            uses_of=uses_of,
            complete=lambda number: is_text(learner.contents[number]),
            learn=lambda until: learner.learn(until, task),
        )
        task.finish()
        growth = self._growth(letters, kept, uses, learner, wish)
        if not wish.curve:
            return growth
        more = learner.learn(len(learner.merges) + NEXT)
        return replace(growth, curve=start.curve(letters, learner, complete=not more))

    def _grow_auto(self, words: Mapping[str, int], guard: Guard, wish: Wish, progress: Progress) -> Growth:
        letters = self.new_letters(words, guard, wish)
        learner, start = self._learner(words, letters, guard, wish, progress)
        task = progress.start("looking for the size", total=wish.size + NEXT, unit="merges")
        found = None
        while found is None:
            more = learner.learn(len(learner.merges) + NEXT, task)
            curve = start.curve(letters, learner, complete=not more)
            found = curve.stop(wish.size)
        task.finish()
        del learner, start
        size, why = found
        if size == 0 and curve.saved:
            raise DataError(
                f"size `auto`: the first {NEXT:,} new tokens would save under {100 * LEAST_SAVING:g} % of the tokens",
                hint="the vocabulary serves this text well already; `--size 500` adds some all the same",
            )
        growth = self.grow(words, guard, replace(wish, size=max(size, 1), auto=False), progress)
        return replace(growth, curve=curve, why=why)

    def _learner(
        self, words: Mapping[str, int], letters: Sequence[Letter], guard: Guard, wish: Wish, progress: Progress
    ) -> tuple[PairLearner, "_Start"]:
        start = self._segments(words, letters, progress)
        learner = PairLearner(
            start.segments,
            start.weights,
            self._contents | {letter.id: letter.text.encode() for letter in letters},
            next_id=self._base.next_id + len(letters),
            min_count=wish.min_count,
            allowed=self._allowed(guard, wish),
        )
        start.segments.clear()  # the learner has them in its own form
        return learner, start

    def checks(self, new: TokenizerFile, words: Mapping[str, int]) -> list[Outcome]:
        """Merges are those of the base and one for each token; tokens only ever join, and merges alone make them."""
        base = self._base
        kept = merges_kept if base.ranks is None else every_split_kept
        return [kept(base, new), reachable(base, new), only_joins(base, new, self, words)]

    def new_letters(self, words: Mapping[str, int], guard: Guard, wish: Wish) -> tuple[Letter, ...]:
        """Characters of the words that get a token of their own before merges are learned."""
        return ()

    def joinable(self, content: bytes) -> bool:
        """May these bytes be one token, as far as this family minds?"""
        return True

    def never_joined(self) -> frozenset[int]:
        """Ids that no new token may be built of."""
        unknown = self._base.model["vocab"].get(self._base.model.get("unk_token") or "")
        return frozenset() if unknown is None else frozenset({unknown})

    def _unreachable(self, growth: Growth) -> frozenset[bytes]:
        """Bytes of new tokens that do not come out of their own characters."""
        stage = self._base.model_stage(growth.merges)
        cut = encode_all(stage, [merge.piece for merge in growth.merges])
        return frozenset(
            token.content
            for token, merge, ids in zip(growth.tokens, growth.merges, cut, strict=True)
            if ids != [merge.id]
        )

    def _segments(self, words: Mapping[str, int], letters: Sequence[Letter], progress: Progress) -> "_Start":
        """Words that the base spells without loss, and their ids; others cannot be learned from."""
        types: list[str] = []
        segments: list[list[int]] = []
        tokens = size = 0
        ordered = sorted(words)
        contents = self._contents | {letter.id: letter.text.encode() for letter in letters}
        stage = self._base.model_stage(self._merges_of(letters, ()))
        cut = zip(ordered, encode_all(stage, ordered), strict=True)
        for word, ids in progress.track(cut, "cutting words", total=len(ordered), unit="words", every=_REPORTED):
            content, count = self.content(word), words[word]
            tokens, size = tokens + count * len(ids), size + count * len(content)
            if len(ids) > 1 and b"".join([contents.get(number, b"") for number in ids]) == content:
                types.append(word)
                segments.append(ids)
        return _Start(types, segments, [words[word] for word in types], tokens, size)

    def _allowed(self, guard: Guard, wish: Wish) -> Callable[[int, int, bytes, bytes], bool]:
        apart = wish.split_digits == "yes" or (wish.split_digits == "auto" and self.splits_digits())
        outside = self.never_joined()
        torn = torn_ends(guard.pairs, {id: text for id, text in self._contents.items() if id not in outside})
        rules = JoinRules(wish.max_token_bytes, apart, torn)
        whole = {self.content(word) for word in guard.whole}

        def allowed(left: int, right: int, left_bytes: bytes, right_bytes: bytes) -> bool:
            return (
                (left, right) not in guard.pairs
                and left not in outside
                and right not in outside
                and rules.allow(left_bytes, right_bytes)
                and self.joinable(left_bytes + right_bytes)
                and left_bytes + right_bytes not in whole
                and left_bytes + right_bytes not in wish.never
                and (not wish.scripts or only_in(left_bytes + right_bytes, wish.scripts))
            )

        return allowed

    def _uses(
        self, letters: Sequence[Letter], kept: Sequence[Learned], types: Sequence[str], weights: Sequence[int]
    ) -> dict[int, int]:
        """How often the words end with each new token when exactly these are added; keys are the learner's ids."""
        merges = self._merges_of(letters, kept)
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
        numbers = [*(letter.id for letter in letters), *(merge.id for merge in kept)]
        return {number: int(total) for number, total in zip(numbers, totals, strict=True)}

    def _merges_of(self, letters: Sequence[Letter], kept: Sequence[Learned]) -> list[Merge]:
        """Letters, then merges, as the file spells them, with consecutive ids in learned order."""
        pieces = self._pieces | {letter.id: letter.text for letter in letters}
        merges = [Merge(letter.text, "", letter.id) for letter in letters]
        for number, merge in enumerate(kept, self._base.next_id + len(letters)):
            merges.append(Merge(pieces[merge.left], pieces[merge.right], number))
            pieces[merge.id] = pieces[merge.left] + pieces[merge.right]
        return merges

    def _growth(
        self,
        letters: Sequence[Letter],
        kept: Sequence[Learned],
        uses: Mapping[int, int],
        learner: PairLearner,
        wish: Wish,
    ) -> Growth:
        merges = self._merges_of(letters, kept)
        ranks = {merge.id: rank for rank, merge in enumerate(learner.merges, 1)}
        numbers = [*(letter.id for letter in letters), *(merge.id for merge in kept)]
        tokens, stones = [], set()
        for number, new in zip(numbers, merges, strict=True):
            rare = uses[number] < wish.min_count
            if rare:
                stones.add(new.id)
            reason = f"merge {ranks[number]}" if number in ranks else "character"
            reason = f"{'stepping stone, ' if rare else ''}{reason}"
            tokens.append(NewToken(new.id, new.piece, learner.contents[number], uses[number], reason))
        notes = {
            "asked": wish.size,
            "learned": len(learner.merges),
            "left_out_too_rare": len(learner.merges) - len(kept),
            "missing": wish.size - len(merges),
            "skipped_strings_already_tokens": len(learner.skipped),
            "stepping_stones": len(stones),
        }
        if letters:
            notes["characters"] = len(letters)
        return Growth(
            merges=tuple(merges),
            tokens=tuple(tokens),
            learned=(*(letter.count for letter in letters), *(merge.count for merge in kept)),
            stepping_stones=frozenset(stones),
            notes=notes,
        )


def count_letters(words: Mapping[str, int]) -> Counter[str]:
    """How often each character occurs in words with counts."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            counts[letter] += count
    return counts
