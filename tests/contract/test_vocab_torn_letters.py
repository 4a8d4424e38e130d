"""Letters whose bytes the guard keeps apart: tokens that hold them are still learned, and nothing guarded changes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt.vocab import growing
from langadapt.vocab.guard import Guard
from langadapt.vocab.rules import JoinRules, begins_text, behind_torn, is_text, torn_ends
from langadapt.vocab.scripts import only_in
from langadapt.vocab.tokenizer_file import Merge
from langadapt.vocab.words import count_words
from tests.contract.test_vocab_surgery import file_of, train
from tests.fixtures.growing import extended_by_lines
from tests.fixtures.oracles import merged_in_order

BASE = file_of(train())
# two bytes, three and four; the first ones of several are the same
LETTERS = "áéőšzl กขé€😀"
texts = st.lists(st.text(LETTERS, min_size=1, max_size=7), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(guarded=texts, target=texts)
def test_guarded_words_keep_their_ids_and_new_tokens_come_out_of_their_bytes(guarded, target):
    growth, new, _, guard, words = extended_by_lines(BASE, target, guarded)
    for word in guard.words:
        assert merged_in_order(new, word) == merged_in_order(BASE, word) == new.model_stage().encode(word).ids
    for token in growth.tokens:
        assert merged_in_order(new, token.piece) == [token.id]
    for word in words:
        assert merged_in_order(new, word) == new.model_stage().encode(word).ids
    for text in (*guarded, *target):
        assert new.tokenizer.decode(new.tokenizer.encode(text).ids, skip_special_tokens=False) == (
            BASE.tokenizer.decode(BASE.tokenizer.encode(text).ids, skip_special_tokens=False)
        )
    built_of = {part for merge in growth.merges for part in (merge.left, merge.right)}
    contents = {number: BASE.spelling.content(piece) for piece, number in BASE.vocab.items() if piece not in BASE.added}
    torn = torn_ends(guard.pairs, contents)
    for token in growth.tokens:
        assert is_text(token.content) or token.piece in built_of
        assert begins_text(token.content) or token.content.startswith(tuple(torn))


@settings(max_examples=40, deadline=None)
@given(guarded=texts)
def test_the_guard_forbids_nothing_in_vain(guarded):
    """Each forbidden join, made alone, changes a guarded word: a guard of pairs cannot forbid less."""
    guard = Guard.of(BASE, count_words(BASE, guarded))
    names = {number: piece for piece, number in BASE.vocab.items()}
    for left, right in guard.pairs:
        stage = BASE.model_stage([Merge(names[left], names[right], BASE.next_id)])
        assert any(stage.encode(word).ids != BASE.model_stage().encode(word).ids for word in guard.words)


def test_a_letter_torn_by_one_guarded_word_is_held_by_other_tokens(monkeypatch):
    target = ["zárás által álló vár lábán háznál ágán"] * 9
    growth, new, *_ = extended_by_lines(BASE, target, ["á"])
    tokens = {token.content.decode("utf-8", "replace") for token in growth.tokens}
    assert "á" not in tokens, "` á` and `á` must stay two tokens of a byte"
    assert any(token.startswith("á") or token.startswith(" á") for token in tokens)
    after = len(new.tokenizer.encode(target[0]).ids)
    monkeypatch.setattr(growing, "torn_ends", lambda *given: frozenset())
    _, without, *_ = extended_by_lines(BASE, target, ["á"])
    assert after < len(without.tokenizer.encode(target[0]).ids)


def test_without_a_torn_letter_no_token_begins_inside_one():
    growth, *_ = extended_by_lines(BASE, ["zárás által álló vár", "őrző"] * 3, ["plain words"])
    assert all(begins_text(token.content) for token in growth.tokens)


@pytest.mark.parametrize(
    ("content", "rest"),
    [
        ("á".encode()[1:] + b"l", b"l"),
        ("ก".encode()[1:], b""),
        ("ก".encode()[2:] + "ก".encode()[:2], "ก".encode()[:2]),
        ("😀".encode()[1:] + b"a", b"a"),
        (b"\x80\x80\x80\x80", None),
        (b"al", None),
        ("á".encode()[1:] + b"l\xff", None),
    ],
)
def test_what_follows_the_end_of_a_character(content, rest):
    assert behind_torn(content) == rest


def test_rules_for_torn_ends():
    end, digit = "á".encode()[1:], "٢".encode()
    rules = JoinRules(4, True, frozenset({end}))
    assert rules.allow(end, b"l") and rules.allow(end + b"l", b"t") and not rules.allow(end, b"lapa")
    assert not rules.allow(end, b"1") and not rules.allow(end, digit)
    assert not rules.allow("é".encode()[1:], b"l"), "no guarded word has it as a token"
    assert rules.allow("á".encode()[:1], end + b"l"), "the whole letter, as ever"
    assert not JoinRules(4, True).allow(end, b"l")


def test_the_end_of_a_character_is_no_letter_of_a_script():
    end = "ก".encode()[1:]
    assert only_in(end + "λ".encode(), {"GREEK"}) and only_in("á".encode()[1:] + "λ".encode()[:1], {"GREEK"})
    assert not only_in(end, {"GREEK"}) and not only_in(end + b"xyab", {"GREEK"}) and not only_in(end + b"ab", {"GREEK"})
