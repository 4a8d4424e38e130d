"""Unigram (XLM-R, T5, mBART, ALBERT): the best-scored cut, extended by pieces with scores that no guarded word notices.

The model gives every piece a score (a log-probability) and cuts a word where the sum of scores is highest. A new piece
is used where its score beats what stood there, so everything is decided by one number, set between two bounds:

- **above** the score of the best way to spell it with what is there: else it could never be used;
- **not below** the lowest old score: unknown characters cost that score less 10, so a lower one would move them;
- **below** the best old score: 0, which special tokens have and many recipes give, beats all spellings of all words.

It starts at log(times its parts stood side by side / tokens of the text), which is the scale of the old scores. If a
guarded word changes, the scores of the new pieces in it are lowered, halfway and then all the way to the lower bound,
and a piece that still changes a word is left out.

Why the guard is a proof:

    (1) In the check above every new score is raised by MARGIN, and all guarded words are cut by the library itself.
    Those that come out as before have no way through a new piece that is as good as the old cut even with MARGIN
    added for each new piece. So with the written scores each such way is worse by MARGIN or more, which is a million
    times the rounding of the sums: it is worse in every text in which the word stands, not only alone.
    (2) Lowering or leaving out a new piece only makes such ways worse or fewer. So a word that passed once passes
    always, and only those that failed are looked at again.
    (3) Ties between old ways are settled as before: a point on the old cut is reached by no new way with an equal
    score, or that way would have been as good as the old cut.
    (4) Words are cut out of a text where no piece, old or new, stands across (word_cuts.py).

Every new piece can come out: it is kept only if the words use it, and a part of a best cut is the best cut of its own
characters. Scores are rounded to 32 bits, as SentencePiece stores them. They are not renormalised: the best cut does
not mind, sampling of cuts (`enable_sampling`) would give the new pieces too much.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from langadapt.core.config import Options
from langadapt.core.registry import method
from langadapt.model.spelling import byte_piece, family_of, marks_spaces
from langadapt.vocab.choosing import Candidate, Proposal, SetFamily
from langadapt.vocab.family import Refusal, Wish
from langadapt.vocab.growing import count_letters
from langadapt.vocab.guard import Guard
from langadapt.vocab.outcome import Outcome
from langadapt.vocab.scores import same_score
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all
from langadapt.vocab.word_cuts import of_one_kind

MARGIN = 1e-4
# How far a new piece is above its spelling, at least: it must outlast the rounding to 32 bits and MARGIN.
_ABOVE = 1e-2


@method(cite="Kudo 2018; extended with scores that a guard bounds")
def unigram(base: TokenizerFile, options: Options) -> "Unigram | Refusal":
    """The family object if `base` is a Unigram model with `▁` for spaces."""
    kind = family_of(base.spec)
    if kind != "unigram":
        return Refusal(f"its model is {kind}")
    if not isinstance(base.model["vocab"], list):
        return Refusal("its Unigram model has no scores", near=True)
    if base.unknown is None:
        return Refusal("its Unigram model has no token for what is unknown", near=True)
    if not marks_spaces(base.spec):
        return Refusal("it does not mark spaces with `▁`", near=True)
    if len(base.pieces) != base.next_id:
        return Refusal("its ids have holes, which a Unigram model cannot keep", near=True)
    if not any(piece not in base.added for piece in base.vocab):
        return Refusal("its Unigram model has special tokens only", near=True)
    return Unigram(base)


class Unigram(SetFamily):
    """A Unigram tokenizer that can be extended."""

    name = "unigram"

    def __init__(self, base: TokenizerFile) -> None:
        super().__init__(base)
        scores = [float(score) for _, score in base.model["vocab"]]
        self._scores = dict(enumerate(scores))
        self._lowest = min(scores)
        self._highest = max(score for number, score in self._scores.items() if number in self._contents)

    def letters(self, words: Mapping[str, int], wish: Wish) -> list[Candidate]:
        """Characters that are no piece, most frequent first."""
        counts = count_letters(words)
        total = sum(counts.values())
        found = [
            (count, letter)
            for letter, count in counts.items()
            if count >= wish.min_count and letter not in self._base.vocab
        ]
        return [
            Candidate(letter, count, min(self._within(math.log(count / total)), self._highest), letter=True)
            for count, letter in sorted(found, key=lambda item: (-item[0], item[1]))
        ]

    def joinable(self, content: bytes) -> bool:
        """One kind of character, perhaps behind a space: nothing that stands across a cut of words.

        No run of spaces: the library's decoder takes every space out of the first token of a text, not only one.
        """
        text = content.decode()
        return of_one_kind(text) and " " not in text[1:]

    def never_joined(self) -> frozenset[int]:
        """The unknown token, and byte tokens where characters fall back to bytes."""
        vocab = self._base.vocab
        lone = {vocab[piece] for byte in range(256) if (piece := byte_piece(byte)) in vocab}
        return super().never_joined() | (lone if self._base.model.get("byte_fallback") else set())

    def scored(self, proposal: Proposal, there: Sequence[Candidate]) -> list[Candidate]:
        """Scores by frequency, but above what the pieces have now; none for those whose spelling scores too high."""
        merges = self.merges_of(there)
        scores = self._scores | {merge.id: float(merge.score or 0) for merge in merges}
        pieces = [self._spelling.piece(proposal.contents[merge.id]) for merge in proposal.merges]
        spelled = encode_all(self._base.model_stage(merges), pieces)
        found = []
        for merge, piece, ids in zip(proposal.merges, pieces, spelled, strict=True):
            best = max(sum(scores[number] for number in ids), scores[merge.left] + scores[merge.right])
            floor = self._within(best + _ABOVE, up=True)
            score = max(floor, self._within(math.log(merge.count / proposal.tokens)))
            scores[merge.id] = score
            if score > best and score <= self._highest:
                found.append(Candidate(piece, merge.count, score, floor=floor))
        return found

    def harmless(self, there: Sequence[Candidate], fresh: Sequence[Candidate], guard: Guard) -> list[Candidate]:
        """Those of `fresh` that change no guarded word, some with a lower score."""
        words = list(guard.words)
        before = list(encode_all(self._base.model_stage(), words))
        safe, fixed = list(fresh), len(there)
        while safe and words:
            merges = self.merges_of([*there, *safe])
            raised = [replace(merge, score=float(merge.score or 0) + MARGIN) for merge in merges]
            after = encode_all(self._base.model_stage(raised), words)
            changed = [item for item in zip(words, before, after, strict=True) if item[1] != item[2]]
            if not changed:
                break
            first = self._base.next_id + fixed
            bad = {number - first for _, _, ids in changed for number in ids if number >= first}
            if not bad:
                return []
            lowered = [self._lower(one) if place in bad else one for place, one in enumerate(safe)]
            safe = [one for one in lowered if one is not None]
            words, before = [word for word, _, _ in changed], [ids for _, ids, _ in changed]
        return safe

    def _lower(self, candidate: Candidate) -> Candidate | None:
        """Halfway down to its floor, then to it, then out."""
        score, floor = candidate.score, candidate.floor
        if candidate.letter or score is None or floor is None or score <= floor:
            return None
        halfway = self._within((score + floor) / 2)
        return replace(candidate, score=floor if candidate.lowered else max(floor, halfway), lowered=True)

    def _within(self, score: float, *, up: bool = False) -> float:
        """Rounded to 32 bits, not below the lowest old score."""
        rounded = np.float32(score)
        if float(rounded) < self._lowest:
            rounded = np.float32(self._lowest)
            up = True
        if up and float(rounded) < max(score, self._lowest):
            rounded = np.nextafter(rounded, np.float32(0))
        return float(rounded)

    def checks(self, new: TokenizerFile, words: Mapping[str, int]) -> list[Outcome]:
        """Scores are within their bounds, and the best cut of each new piece's characters is the piece."""
        return [reachable(self._base, new), self._scores_kept(new)]

    def _scores_kept(self, new: TokenizerFile) -> Outcome:
        """Old pieces have their scores, new ones lie between the lowest and the highest of them.

        The lowest of all is what it was, with added tokens and without: unknown characters are reckoned from it.
        """
        broken, there = [], self._base.vocab
        for piece, score in new.model["vocab"]:
            if piece in there:
                if not same_score(score, self._scores[there[piece]]):
                    broken.append(f"`{piece}`: {self._scores[there[piece]]} -> {score}")
            elif not (self._lowest <= score <= self._highest or same_score(score, self._lowest)):
                broken.append(f"`{piece}`: {score} is not between {self._lowest} and {self._highest}")
        lowest = min(score for _, score in new.model["vocab"])
        for before, after in ((self._lowest, lowest), (self._base.lowest_score, new.lowest_score)):
            if not same_score(before, after):
                broken.append(f"the lowest score: {before} -> {after}")
        return Outcome("scores_kept", len(new.model["vocab"]), tuple(broken))


def reachable(base: TokenizerFile, new: TokenizerFile) -> Outcome:
    """The best cut of the characters of each piece that `base` lacks is the piece."""
    fresh = [(piece, number) for piece, number in new.pieces.items() if piece not in base.pieces]
    cut = encode_all(new.model_stage(), [piece for piece, _ in fresh])
    broken = [f"`{piece}` gives {ids}" for (piece, number), ids in zip(fresh, cut, strict=True) if ids != [number]]
    return Outcome("reachable", len(fresh), tuple(broken))
