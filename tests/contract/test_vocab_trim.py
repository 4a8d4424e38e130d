"""Trimming real (small) tokenizers of every layout, against merging written out step by step; the checks see damage."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt.core.errors import DataError
from langadapt.vocab import checks, moved_checks, tokenizer_file
from langadapt.vocab.outcome import insist
from langadapt.vocab.renumber import in_order, renumbered, write_renumbered
from langadapt.vocab.tokenizer_file import TokenizerFile
from langadapt.vocab.trimming import changed_words, trim
from langadapt.vocab.words import count_words
from tests.contract.test_vocab_surgery import ENGLISH, LAYOUTS, SPECIALS, file_of, train

# Half of the training text: the other half's words are what can go.
NEEDED = "the house stands on the hill and the river runs below the houses\n1 é ő\n" * 3
BASES = {name: file_of(train(**layout)) for name, layout in LAYOUTS.items()}


def trimmed(base: TokenizerFile, text: str = NEEDED, chat: str = "<|start|>user", **wish):
    words = count_words(base, text.splitlines())
    found = trim(base, words, count_words(base, [chat]), **{"min_count": 1, **wish})
    ids = in_order(set(found.kept))
    return found, ids, file_of(renumbered(base, ids)), words


def states(base: TokenizerFile, word: str) -> set[str]:
    """Every token that comes up while the model merges a word, one merge at a time (the slow, obvious way)."""
    vocab, merges = base.model["vocab"], base.merges
    if base.ignore_merges and word in vocab:
        return {word}
    symbols = list(word)
    seen = {symbol for symbol in symbols if symbol in vocab}
    while True:
        pairs = [pair for pair in itertools.pairwise(symbols) if pair in merges]
        if not pairs:
            return seen
        best = min(pairs, key=merges.index)
        place = next(at for at in range(len(symbols)) if tuple(symbols[at : at + 2]) == best)
        symbols[place : place + 2] = ["".join(best)]
        seen.add("".join(best))


def closure(base: TokenizerFile, pieces: set[str]) -> set[str]:
    """The pieces, and everything that comes up while each is merged of its own characters."""
    bare = TokenizerFile(base.spec | {"model": base.model | {"ignore_merges": False}}, "test")
    made = {piece: states(bare, piece) for piece in pieces}
    return pieces.union(*(seen for piece, seen in made.items() if piece in seen))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_stays_is_what_merging_step_by_step_needs_and_nothing_else(layout):
    base = BASES[layout]
    found, _, _, words = trimmed(base)
    pieces = {number: piece for piece, number in base.pieces.items()}
    must = {pieces[number] for number, why in found.reasons.items() if why in ("special", "byte", "character", "chat")}
    finals = {pieces[number] for number in found.uses}
    assert {pieces[number] for number in found.kept} == closure(base, finals | (must - base.added.keys())) | must
    # what comes up inside words is covered by what comes up inside their last tokens
    assert set().union(*(states(base, word) for word in words)) <= {pieces[number] for number in found.kept}
    assert len(found.kept) < len(base.pieces)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_passes_all_checks_and_text_keeps_its_tokens(layout, tmp_path: Path):
    base = BASES[layout]
    _, ids, new, words = trimmed(base)
    insist(moved_checks.moved_checks(base, new, ids, words))
    assert changed_words(base, new, words, ids) == (0, 0)
    for line in [*NEEDED.splitlines(), f"{SPECIALS[1]}the river{SPECIALS[0]} hill"]:
        before, after = base.tokenizer.encode(line), new.tokenizer.encode(line)
        assert before.tokens == after.tokens and [ids[number] for number in before.ids] == after.ids
        assert base.tokenizer.decode(before.ids) == new.tokenizer.decode(after.ids)
    write_renumbered(new.spec, ids, tmp_path, tmp_path)
    again = tokenizer_file.read(tmp_path)
    assert again.pieces == new.pieces and again.merges == new.merges
    assert again.tokenizer.encode(NEEDED).ids == new.tokenizer.encode(NEEDED).ids


@settings(max_examples=15, deadline=None)
@given(
    needed=st.lists(st.text(alphabet="thehousrivabáőα 1,\n", min_size=1, max_size=40), min_size=1, max_size=8),
    layout=st.sampled_from(sorted(BASES)),
    min_count=st.integers(1, 4),
)
def test_any_text_keeps_its_tokens_where_all_are_kept(needed, layout, min_count):
    base = BASES[layout]
    words = count_words(base, needed)
    found = trim(base, words, [], min_count=min_count)
    ids = in_order(set(found.kept))
    new = file_of(renumbered(base, ids))
    outcomes = [
        moved_checks.ids_follow(base, new, ids),
        moved_checks.still_reachable(base, new, ids),
        moved_checks.words_kept(base, new, ids, words),
        checks.same_round_trip(base, new, [*needed, "▁ x\t ű  y"]),
    ]
    insist(outcomes)
    if min_count == 1:
        for text in needed:
            assert base.tokenizer.encode(text).tokens == new.tokenizer.encode(text).tokens


def test_a_size_keeps_exactly_so_many_and_the_most_used():
    base = BASES["pairs"]
    everything, *_ = trimmed(base, ENGLISH)
    smallest = sum(why not in ("used", "part") for why in everything.reasons.values())
    sizes = [len(everything.kept) - lost for lost in (1, 7, 20)]
    previous = set(everything.kept)
    for size in sizes:
        found, ids, new, words = trimmed(base, ENGLISH, size=size)
        assert len(found.kept) == size == len(new.pieces) and found.kept < previous
        insist(moved_checks.moved_checks(base, new, ids, words))
        previous = set(found.kept)
    with pytest.raises(DataError, match="tokens cannot go"):
        trimmed(base, ENGLISH, size=smallest - 30)


def test_a_removed_token_hands_its_uses_to_its_parts():
    base = BASES["pairs"]
    words = count_words(base, ENGLISH.splitlines())
    rare = trim(base, words, [], min_count=30)
    ids = in_order(set(rare.kept))
    new = file_of(renumbered(base, ids))
    uses = dict.fromkeys(new.pieces.values(), 0)
    for word, count in words.items():
        for number in new.model_stage().encode(word).ids:
            uses[number] += count
    built_of = {part for pair in new.merges for part in pair}
    for piece, number in new.pieces.items():
        if rare.reasons[next(old for old, moved in ids.items() if moved == number)] in ("used", "part"):
            assert uses[number] >= 30 or piece in built_of, piece


def test_what_a_removed_token_was_used_for_counts_for_its_parts():
    """`abc` is too rare, and without it the text has `ab` as often as both together: `ab` stays."""
    spec = train()
    vocab = {piece: id for piece, id in spec["model"]["vocab"].items() if len(piece) == 1 or piece in SPECIALS}
    vocab = {piece: id for id, piece in enumerate(sorted(vocab, key=vocab.__getitem__))}
    spec["model"] |= {"merges": [["a", "b"], ["ab", "c"]], "vocab": vocab | {"ab": len(vocab), "abc": len(vocab) + 1}}
    base = file_of(spec)
    ab, abc = base.pieces["ab"], base.pieces["abc"]
    assert {ab, abc} & trim(base, {"abc": 6, "ab": 6}, [], min_count=10).kept == {ab}
    assert {ab, abc} & trim(base, {"abc": 6, "ab": 3}, [], min_count=10).kept == set()
    assert {ab, abc} & trim(base, {"abc": 6}, [], min_count=6).kept == {ab, abc}


# Damage


def broken(base, new, ids, words) -> set[str]:
    return {outcome.name for outcome in moved_checks.moved_checks(base, new, ids, words) if outcome.broken}


@pytest.fixture(scope="module")
def good():
    base = BASES["added after the vocabulary"]
    _, ids, new, words = trimmed(base)
    return base, ids, new, words


def test_a_dropped_merge_is_caught(good):
    base, ids, new, words = good
    spec = json.loads(json.dumps(new.spec))
    del spec["model"]["merges"][-1]
    assert {"merges_are_those_of_kept", "still_reachable"} <= broken(base, file_of(spec), ids, words)
    spec["model"]["merges"].insert(0, new.spec["model"]["merges"][-1])
    assert "merges_are_those_of_kept" in broken(base, file_of(spec), ids, words)


def test_a_stale_special_id_is_caught(good):
    base, ids, new, words = good
    old, now = base.added[SPECIALS[0]], new.added[SPECIALS[0]]
    assert old != now, "the layout that this test is about"
    spec = json.loads(json.dumps(new.spec))
    spec["post_processor"]["special_tokens"][SPECIALS[0]]["ids"] = [new.added[SPECIALS[1]]]
    assert broken(base, file_of(spec), ids, words) == {"special_ids_follow"}


def test_two_exchanged_ids_are_caught(good):
    base, ids, new, words = good
    spec = json.loads(json.dumps(new.spec))
    vocab = spec["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    assert {"ids_follow", "still_reachable"} <= broken(base, file_of(spec), ids, words)


def test_a_part_that_is_gone_is_caught(good):
    """What a pruner does that looks at final tokens only, and not at what they are built of."""
    base, *_ = good
    found, _, _, words = trimmed(base)
    part = next(number for number, why in found.reasons.items() if why == "part")
    ids = in_order(set(found.kept) - {part})
    assert "words_kept" in broken(base, file_of(renumbered(base, ids)), ids, words)


def test_settings_with_ids_follow(tmp_path: Path):
    base = BASES["added after the vocabulary"]
    _, ids, new, _ = trimmed(base)
    end = base.added[SPECIALS[1]]
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    content = {"added_tokens_decoder": {str(end): {"content": SPECIALS[1]}}, "pad_token_id": end, "eos_token": "x"}
    (tmp_path / "old" / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "old" / "added_tokens.json").write_text(json.dumps({SPECIALS[1]: end}), encoding="utf-8")
    write_renumbered(new.spec, ids, tmp_path / "old", tmp_path / "new")
    written = json.loads((tmp_path / "new" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert written["added_tokens_decoder"] == {str(ids[end]): {"content": SPECIALS[1]}}
    assert written["pad_token_id"] == ids[end] and written["eos_token"] == "x"
    assert json.loads((tmp_path / "new" / "added_tokens.json").read_text(encoding="utf-8")) == {SPECIALS[1]: ids[end]}
