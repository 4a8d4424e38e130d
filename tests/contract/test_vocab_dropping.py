"""Dropping new tokens and cutting only some words again gives the counts of cutting all of them."""

from collections import Counter

import numpy as np
import pytest

from langadapt.vocab.choosing import Candidate, SetFamily, Text
from langadapt.vocab.dropping import Cuts, Words
from langadapt.vocab.family import detect
from langadapt.vocab.tokenizer_file import Merge, TokenizerFile, encode_all
from langadapt.vocab.words import count_words
from tests.contract.test_vocab_sets import BASES, GERMAN, every_layout
from tests.contract.test_vocab_surgery import HUNGARIAN

# characters that most of the vocabularies lack
GREEK = "η γλώσσα είναι ωραία και το σπίτι στέκεται στον λόφο\n"


def drawn(base, words, random) -> list[Candidate]:
    """Parts of the words as tokens, with any score where tokens have scores: lower ones than the base's too."""
    pieces: dict[str, None] = {}
    for word in random.permutation(sorted(words))[:120]:
        start = int(random.integers(0, len(word)))
        piece = word[start : start + int(random.integers(1, 6))]
        inside = "##" if start and base.model["type"] == "WordPiece" else ""
        pieces.setdefault(f"{inside}{piece}")
    scored = base.model["type"] == "Unigram"
    lowest = base.lowest_score if scored else 0.0
    return [Candidate(piece, 1, lowest * random.uniform(0.1, 1.5) if scored else None)
            for piece in pieces if piece not in base.pieces]  # fmt: skip


@every_layout
@pytest.mark.parametrize("seed", range(4))
def test_counts_after_each_drop_are_those_of_a_whole_new_cut(layout, seed):
    base, random = BASES[layout], np.random.default_rng(seed)
    words = count_words(base, (HUNGARIAN + GERMAN + GREEK).splitlines())
    family, text, listed = detect(base), Text.of(words), drawn(base, words, random)
    cuts, there = family._cuts(text, listed, 0), np.ones(len(listed), bool)
    recut = 0
    for _ in range(6):
        there &= random.random(len(listed)) > 0.15
        cuts.keep(there)
        kept = [one for one, stays in zip(listed, there, strict=True) if stays]
        ids = Counter[int]()
        for word, cut in zip(text.words, encode_all(base.model_stage(family.merges_of(kept)), text.words), strict=True):
            for number in cut:
                ids[number] += words[word]
        counts = cuts.counts()
        wanted = {one.piece: ids[base.next_id + place] for place, one in enumerate(kept)}
        assert {
            one.piece: int(count) for one, count, stays in zip(listed, counts, there, strict=True) if stays
        } == wanted
        assert not counts[~there].any()
        recut += sum(wanted.values())
    assert recut > 0


def test_only_words_that_can_change_are_cut_again(monkeypatch):
    base = BASES["xlmr"]
    words = count_words(base, HUNGARIAN.splitlines())
    family, text = detect(base), Text.of(words)
    assert isinstance(family, SetFamily)
    listed = drawn(base, words, np.random.default_rng(0))
    listed = [Candidate(one.piece, 1, base.lowest_score / 2) for one in listed]
    cuts = family._cuts(text, listed, 0)
    cut: list[int] = []
    monkeypatch.setattr(
        "langadapt.vocab.dropping.encode_all", lambda model, part: cut.append(len(part)) or encode_all(model, part)
    )
    used = int(np.flatnonzero(cuts.counts())[0])
    cuts.keep(np.arange(len(listed)) != used)
    assert 0 < sum(cut) < len(text.words) / 2


def cuts_of(model: dict, word: str, listed: dict[str, float | None]) -> tuple[Cuts, dict[str, int]]:
    """One word cut with tokens, and where each stands in the counts."""
    base = TokenizerFile({"version": "1.0", "added_tokens": [], "model": model}, "test")
    pieces, scores = list(listed), list(listed.values())

    def stage(numbers):
        return base.model_stage(
            [Merge(pieces[one], "", base.next_id + id, scores[one]) for id, one in enumerate(numbers)]
        )

    cuts = Cuts(
        Words([word], np.array([1]), np.array([True])), stage, len(pieces), first=base.next_id, unknown=0,
        scores=np.array([np.nan if score is None else score for score in scores]),
        lowest=base.lowest_score if model["type"] == "Unigram" else None,
    )  # fmt: skip
    return cuts, {piece: place for place, piece in enumerate(pieces)}


def test_a_word_that_was_unknown_because_of_a_dropped_token_is_cut_again():
    """The longest token first: `ab` leaves `##c`, which nothing spells; without it there are `a` and `##bc`."""
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "a": 1}}  # fmt: skip
    cuts, at = cuts_of(model, "abc", {"ab": None, "##bc": None})
    assert not cuts.counts().any()
    cuts.keep(np.array([piece != "ab" for piece in at]))
    assert cuts.counts()[at["##bc"]] == 1


def test_the_lowest_score_sets_the_price_of_an_unknown_character():
    """p + qx is -60. pq and the unknown x are -1 - 70 with a token of -60, and -1 - 40 when that is dropped."""
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["p", -30.0], ["pq", -1.0]]}
    cuts, at = cuts_of(model, "pqx", {"qx": -30.0, "z": -60.0})
    assert cuts.counts()[at["qx"]] == 1
    cuts.keep(np.array([piece != "z" for piece in at]))
    assert cuts.counts()[at["qx"]] == 0
