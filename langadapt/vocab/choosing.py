"""Growing a vocabulary whose tokens are not built of each other: what WordPiece and Unigram share.

BPE needs the way to a token (its merges) in the vocabulary; these two only need the token. So learning is a loop:

1. cut the words with what is there now and let pair merging (merging.py) propose joins of tokens that stand side by
   side, the most frequent first;
2. take out what changes a guarded word (each family has its own proof);
3. cut the words again with the rest and drop the tokens that come out fewer than `min_count` times;
4. start again from the new cut with what is missing.

A dropped token takes nothing with it, so there are no stepping stones but one kind: characters that the vocabulary
lacked. They stay even if the words hardly ever end with them, because whole words would become unknown without them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langadapt.core.progress import Progress
from langadapt.core.types import NewToken
from langadapt.model.spelling import Spelling
from langadapt.vocab.family import Growth, Wish
from langadapt.vocab.guard import Guard
from langadapt.vocab.letters import became_unknown, is_closed
from langadapt.vocab.merging import Learned, PairLearner
from langadapt.vocab.outcome import Outcome
from langadapt.vocab.rules import JoinRules, keeps_digits_apart
from langadapt.vocab.scripts import only_in
from langadapt.vocab.tokenizer_file import Merge, TokenizerFile, encode_all

# Each round asks for what the last ones lost and a quarter more; what is over is cut off.
_ROUNDS = 12
_SPARE = 16
# Words cut at once: bounds the memory of the library's results (about 1 kB a word).
_BATCH = 20_000


@dataclass(frozen=True)
class Candidate:
    """A token that may be added: how often its parts stood side by side (or the character stood).

    Where tokens have scores: `floor` is how far down its score may go, `lowered` whether it went halfway already.
    """

    piece: str
    count: int
    score: float | None = None
    letter: bool = False
    floor: float | None = None
    lowered: bool = False


@dataclass(frozen=True)
class Proposal:
    """Joins that pair merging found; `contents` are the bytes of every id, `tokens` how many the text was cut into."""

    merges: Sequence[Learned]
    contents: Mapping[int, bytes]
    tokens: int


class SetFamily:
    """A tokenizer without merges that can be extended; its two families differ in the methods below `grow`."""

    name: str

    def __init__(self, base: TokenizerFile) -> None:
        self._base = base
        self._spelling: Spelling = base.spelling
        self._contents = {
            number: self._spelling.content(piece) for piece, number in base.vocab.items() if piece not in base.added
        }
        self._mark: str = getattr(base.spelling, "mark", "")
        self._closed = is_closed(base)

    def content(self, piece: str) -> bytes:
        """Bytes that a piece stands for."""
        return self._spelling.content(piece)

    def splits_digits(self) -> bool:
        """Are digits kept apart from each other, by the pre-tokenizer or in all tokens there are?"""
        cutter = self._base.pre_tokenizer
        pieces = [piece for piece, _ in cutter.pre_tokenize_str("12 x34")] if cutter else ["12"]
        return keeps_digits_apart([self.content(piece) for piece in pieces], self._contents.values())

    def grow(self, words: Mapping[str, int], guard: Guard, wish: Wish, progress: Progress) -> Growth:
        """Learn new tokens from words with counts, none of which changes a guarded word."""
        text = Text.of(words)
        lacking = [one for one in self.letters(words, wish) if self._of_scripts(self.content(one.piece), wish)]
        letters = self.harmless([], lacking, guard)[: wish.size]
        room, left_out = wish.size - len(letters), Counter[str]()
        permits = self.permits(guard)
        kept: list[Candidate] = []
        uses: dict[str, int] = self._uses(text, letters)
        tried = {letter.piece for letter in letters}
        task = progress.start("choosing tokens", total=wish.size, unit="tokens")
        for _ in range(_ROUNDS):
            short = room - len(kept)
            if short <= 0:
                break
            there, count = [*letters, *kept], short + max(_SPARE, short // 4)
            proposed = self._proposed(text, there, wish, guard, permits, count, left_out)
            fresh = [candidate for candidate in proposed if candidate.piece not in tried]
            if not fresh:
                break
            tried.update(candidate.piece for candidate in fresh)
            safe = self.harmless(there, fresh, guard)
            wider, uses = self.settled(text, letters, [*kept, *safe], wish.min_count)
            left_out["guarded"] += len(fresh) - len(safe)
            left_out["too_rare"] += len(kept) + len(safe) - len(wider)
            if len(wider) > room:
                tried.difference_update(candidate.piece for candidate in wider[room:])
                wider, uses = self.settled(text, letters, wider[:room], wish.min_count)
            task.advance(max(0, len(wider) - len(kept)))
            kept = wider
        task.finish()
        return self._growth([*letters, *kept], uses, left_out, wish)

    def checks(self, new: TokenizerFile, words: Mapping[str, int]) -> list[Outcome]:
        """What must hold for this kind of model in the written file."""
        raise NotImplementedError

    def letters(self, words: Mapping[str, int], wish: Wish) -> list[Candidate]:
        """Characters that the words have and the vocabulary lacks, most frequent first."""
        raise NotImplementedError

    def permits(self, guard: Guard) -> Callable[[str], bool]:
        """Says of a piece whether the guard lets it in, as far as that can be known of the piece alone."""
        return lambda piece: True

    def harmless(self, there: Sequence[Candidate], fresh: Sequence[Candidate], guard: Guard) -> list[Candidate]:
        """Those of `fresh` that change no guarded word when they are added to the base and to `there`."""
        return list(fresh)

    def scored(self, proposal: Proposal, there: Sequence[Candidate]) -> list[Candidate]:
        """Candidates for the proposed joins, with scores where tokens have them; `there` are added already."""
        return [Candidate(self._spelling.piece(proposal.contents[join.id]), join.count) for join in proposal.merges]

    def joinable(self, content: bytes) -> bool:
        """May these bytes be one token, as far as this family minds?"""
        return True

    def never_joined(self) -> frozenset[int]:
        """Ids that no new token may be built of."""
        return frozenset() if self._base.unknown is None else frozenset({self._base.unknown})

    def _of_scripts(self, content: bytes, wish: Wish) -> bool:
        return not wish.scripts or only_in(content, wish.scripts)

    def merges_of(self, candidates: Iterable[Candidate]) -> list[Merge]:
        """The candidates as the file takes them, with consecutive ids."""
        return [
            Merge(candidate.piece, "", number, candidate.score)
            for number, candidate in enumerate(candidates, self._base.next_id)
        ]

    def _proposed(
        self,
        text: "Text",
        there: Sequence[Candidate],
        wish: Wish,
        guard: Guard,
        permits: Callable[[str], bool],
        count: int,
        left_out: Counter[str],
    ) -> list[Candidate]:
        """Joins of neighbours in the words as they are cut with `there`, at most `count` of them."""
        merges = self.merges_of(there)
        contents = self._contents | {merge.id: self.content(merge.piece) for merge in merges}
        segments, weights, tokens = [], [], 0
        for word, weight, ids in zip(
            text.words, text.weights, encode_all(self._base.model_stage(merges), text.words), strict=True
        ):
            tokens += weight * len(ids)
            if len(ids) > 1 and b"".join([contents.get(number, b"") for number in ids]) == self.content(word):
                segments.append(ids)
                weights.append(weight)
        apart = wish.split_digits == "yes" or (wish.split_digits == "auto" and self.splits_digits())
        rules, outside = JoinRules(wish.max_token_bytes, apart), self.never_joined()
        refused: set[bytes] = set()

        def allowed(left: int, right: int, left_bytes: bytes, right_bytes: bytes) -> bool:
            whole = left_bytes + right_bytes
            if left in outside or right in outside or not rules.allow(left_bytes, right_bytes):
                return False
            if not self.joinable(whole) or whole in wish.never or not self._of_scripts(whole, wish):
                return False
            if (left, right) in guard.pairs or not permits(self._spelling.piece(whole)):
                refused.add(whole)
                return False
            return True

        learner = PairLearner(
            segments,
            weights,
            contents,
            next_id=self._base.next_id + len(merges),
            min_count=wish.min_count,
            allowed=allowed,
        )
        learner.learn(count)
        left_out["guarded_joins"] = max(left_out["guarded_joins"], len(refused))
        return self.scored(Proposal(learner.merges, learner.contents, tokens), there)

    def settled(
        self, text: "Text", letters: Sequence[Candidate], candidates: Sequence[Candidate], min_count: int
    ) -> tuple[list[Candidate], dict[str, int]]:
        """Drop tokens until each is used `min_count` times and no word of the text became unknown by one."""
        kept, uses = self._frequent(text, letters, candidates, min_count)
        while not self._closed and (lost := self._lost(text, [*letters, *kept])):
            fine = [one for one in kept if not any(one.piece.removeprefix(self._mark) in word for word in lost)]
            if len(fine) == len(kept):
                break
            kept, uses = self._frequent(text, letters, fine, min_count)
        return kept, uses

    def _lost(self, text: "Text", there: Sequence[Candidate]) -> tuple[str, ...]:
        """Words that the base reads and the model with `there` does not."""
        base = self._base
        return became_unknown(base, base.model_stage(self.merges_of(there)), base.unknown, text.words)

    def _frequent(
        self, text: "Text", letters: Sequence[Candidate], candidates: Sequence[Candidate], min_count: int
    ) -> tuple[list[Candidate], dict[str, int]]:
        """Drop tokens until each is used `min_count` times; those that hardly come out go first, for their uses go to
        others."""
        kept = list(candidates)
        for least in (max(1, min_count // 2), *[min_count] * (len(kept) + 1)):
            uses = self._uses(text, [*letters, *kept])
            enough = [candidate for candidate in kept if uses[candidate.piece] >= least]
            if len(enough) == len(kept) and least == min_count:
                break
            kept = enough
        return kept, uses

    def _uses(self, text: "Text", candidates: Sequence[Candidate]) -> dict[str, int]:
        """How often the words end with each new token when exactly these are added."""
        merges = self.merges_of(candidates)
        first = self._base.next_id
        totals = np.zeros(len(merges), np.int64)
        model = self._base.model_stage(merges)
        for start in range(0, len(text.words), _BATCH):
            cut = list(encode_all(model, text.words[start : start + _BATCH]))
            ids = np.fromiter((number for segment in cut for number in segment), np.int64)
            lengths = [len(segment) for segment in cut]
            weight = np.repeat(np.asarray(text.weights[start : start + _BATCH], np.int64), lengths)
            new = ids >= first
            np.add.at(totals, ids[new] - first, weight[new])
        return {merge.piece: int(total) for merge, total in zip(merges, totals, strict=True)}

    def _growth(
        self, chosen: Sequence[Candidate], uses: Mapping[str, int], left_out: Mapping[str, int], wish: Wish
    ) -> Growth:
        merges = self.merges_of(chosen)
        tokens, stones = [], set()
        for merge, candidate in zip(merges, chosen, strict=True):
            rare = uses[merge.piece] < wish.min_count
            if rare:
                stones.add(merge.id)
            reason = f"{'stepping stone, ' if rare else ''}{'character' if candidate.letter else 'join'}"
            tokens.append(NewToken(merge.id, merge.piece, self.content(merge.piece), uses[merge.piece], reason))
        notes = {
            "asked": wish.size,
            "left_out_too_rare": left_out["too_rare"],
            "left_out_guarded": left_out["guarded"],
            "refused_joins_of_guarded_words": left_out["guarded_joins"],
            "missing": wish.size - len(merges),
            "stepping_stones": len(stones),
            "characters": sum(candidate.letter for candidate in chosen),
        }
        return Growth(
            merges=tuple(merges),
            tokens=tuple(tokens),
            learned=tuple(candidate.count for candidate in chosen),
            stepping_stones=frozenset(stones),
            notes=notes,
        )


@dataclass(frozen=True)
class Text:
    """Words in a fixed order and how often each occurs."""

    words: tuple[str, ...]
    weights: tuple[int, ...]

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> "Text":
        """The words of `counts`, sorted."""
        words = tuple(sorted(counts))
        return cls(words, tuple(counts[word] for word in words))
