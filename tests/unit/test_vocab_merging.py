"""Continued merging against an oracle that recounts everything before each merge; rules; pruning."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt.vocab.merging import Learned, PairLearner
from langadapt.vocab.prune import settle
from langadapt.vocab.rules import JoinRules, begins_text, has_digit, is_text, joins_digits

ALPHABET = {0: b"a", 1: b"b", 2: b"c"}


def oracle(words, weights, contents, size, min_count, forbidden):
    """Byte-pair encoding by recounting all pairs from scratch before each merge."""
    words, contents, merges, banned = [list(word) for word in words], dict(contents), [], set(forbidden)
    next_id = max(contents) + 1
    while len(merges) < size:
        counts = Counter()
        for word, weight in zip(words, weights, strict=True):
            for pair in pairwise(word):
                counts[pair] += weight
        usable = [
            (-count, contents[a] + contents[b], len(contents[a]), (a, b))
            for (a, b), count in counts.items()
            if (a, b) not in banned and count >= min_count and contents[a] + contents[b] not in contents.values()
        ]
        if not usable:
            break
        negative, result, _, (a, b) = min(usable)
        merges.append(Learned(a, b, next_id, -negative))
        contents[next_id] = result
        for place, word in enumerate(words):
            joined, at = [], 0
            while at < len(word):
                if word[at : at + 2] == [a, b]:
                    joined.append(next_id)
                    at += 2
                else:
                    joined.append(word[at])
                    at += 1
            words[place] = joined
        next_id += 1
    return merges


corpora = st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=14), st.integers(1, 5)), max_size=12)
pairs = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=4)


@settings(max_examples=150, deadline=None)
@given(corpus=corpora, forbidden=pairs, min_count=st.integers(1, 4), size=st.integers(1, 12))
def test_merges_equal_those_of_the_oracle(corpus, forbidden, min_count, size):
    words, weights = [word for word, _ in corpus], [weight for _, weight in corpus]
    learner = PairLearner(
        words,
        weights,
        ALPHABET,
        next_id=3,
        min_count=min_count,
        allowed=lambda left, right, left_bytes, right_bytes: (left, right) not in forbidden,
    )
    complete = learner.learn(size)
    expected = oracle(words, weights, ALPHABET, size, min_count, forbidden)
    assert learner.merges == expected
    assert complete == (len(expected) == size)


def test_learning_in_two_parts_is_learning_at_once():
    words, weights = [[0, 1, 0, 1, 2], [0, 1, 2, 2], [0, 0, 0, 0]], [3, 2, 4]

    def learner():
        return PairLearner(words, weights, ALPHABET, next_id=3, min_count=1, allowed=lambda *pair: True)

    parts, whole = learner(), learner()
    parts.learn(2)
    parts.learn(5)
    whole.learn(5)
    assert parts.merges == whole.merges


def test_ties_go_to_the_smaller_bytes_whatever_the_ids():
    contents = {0: b"z", 1: b"y", 2: b"a", 3: b"b"}
    learner = PairLearner([[0, 1], [2, 3]], [5, 5], contents, next_id=4, min_count=1, allowed=lambda *pair: True)
    learner.learn(1)
    assert (learner.merges[0].left, learner.merges[0].right) == (2, 3)


def test_bytes_that_are_a_token_already_are_skipped_and_counted():
    contents = {0: b"a", 1: b"b", 2: b"ab"}
    learner = PairLearner([[0, 1]], [9], contents, next_id=3, min_count=1, allowed=lambda *pair: True)
    assert not learner.learn(1)
    assert learner.merges == [] and learner.skipped == {b"ab": 9}


@pytest.mark.parametrize(
    ("content", "whole", "beginning"),
    [
        (b"ab", True, True),
        ("\u0151".encode(), True, True),
        ("\u0151".encode()[:1], False, True),
        ("a\u0e01".encode()[:3], False, True),
        ("\u0151".encode()[1:], False, False),
        (b"\xff", False, False),
        (b"\xc3a", False, False),
    ],
)
def test_utf8_rules(content, whole, beginning):
    assert is_text(content) is whole
    assert begins_text(content) is beginning


def test_digit_rules():
    arabic = "\u0661".encode()
    assert has_digit(b"a1") and has_digit(arabic) and not has_digit("\u00b2x".encode())
    assert joins_digits(b"a12") and not joins_digits(b"1a2")
    apart, free = JoinRules(32, True), JoinRules(32, False)
    assert not apart.allow(b"1", b"2") and not apart.allow(b" ", b"1") and free.allow(b"1", b"2")
    assert apart.allow(arabic[:1], arabic[1:]), "one digit made of its two bytes is no join"
    assert not apart.allow(arabic, arabic[:1] + b"\xa2")


def test_length_rule():
    assert JoinRules(3, False).allow(b"a", b"bc") and not JoinRules(3, False).allow(b"ab", b"cd")


def test_settle_drops_rare_leaves_and_keeps_what_others_are_built_of():
    # 3 = ab, 4 = (ab)c, 5 = cc
    merges = [Learned(0, 1, 3, 50), Learned(3, 2, 4, 48), Learned(2, 2, 5, 4)]
    uses = {3: 2, 4: 48, 5: 4}
    kept, counted = settle(
        merges,
        min_count=10,
        uses_of=lambda some: {merge.id: uses[merge.id] for merge in some},
        complete=lambda number: True,
    )
    assert [merge.id for merge in kept] == [3, 4], "3 is a stepping stone: 4 needs it"
    assert counted == {3: 2, 4: 48}


def test_settle_drops_a_chain_from_its_end():
    merges = [Learned(0, 1, 3, 50), Learned(3, 2, 4, 48)]
    kept, _ = settle(
        merges, min_count=10, uses_of=lambda some: {merge.id: 3 for merge in some}, complete=lambda number: True
    )
    assert kept == []


def test_settle_drops_leaves_that_are_no_whole_text():
    merges = [Learned(0, 1, 3, 50)]
    kept, _ = settle(merges, min_count=1, uses_of=lambda some: {3: 50}, complete=lambda number: number != 3)
    assert kept == []
