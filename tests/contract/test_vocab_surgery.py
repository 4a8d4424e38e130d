"""Extending real (small) tokenizers of every layout: what must hold holds, and the checks see it when it does not."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from langadapt.core.errors import DataError
from langadapt.vocab import checks, tokenizer_file
from langadapt.vocab.family import detect
from langadapt.vocab.guard import Guard
from langadapt.vocab.outcome import insist
from langadapt.vocab.tokenizer_file import TokenizerFile
from langadapt.vocab.words import WordCounter, count_words
from tests.fixtures.fallback import fallback_spec
from tests.fixtures.growing import extended as extended_by
from tests.fixtures.growing import extended_by_lines

ENGLISH = (
    "the house stands on the hill and the river runs below the houses\n"
    "she walked to the market, bought 12 apples and 345 pears, then went home\n"
    "all the people in the village knew the old stories of the hill\n"
) * 20
HUNGARIAN = (
    "a ház a dombon áll és a folyó a házak alatt folyik\n"
    "elment a piacra, vett 12 almát és 345 körtét, aztán hazament\n"
    "a faluban minden ember ismerte a domb régi történeteit és meséit\n"
    "őrült kőművesek építették a gyönyörű erődöt a történelmi időkben\n"
) * 15
SPECIALS = ["<|start|>", "<|end|>"]


def train(
    *,
    prefix=False,
    digits=False,
    after=False,
    ignore=False,
    strings=False,
    normaliser=False,
    style="",
    text=ENGLISH,
    more=0,
) -> dict:
    """tokenizer.json of a byte-level BPE trained on English, or of the SentencePiece kind; flags choose its layout.

    `text` and `more` tokens make a larger one.
    """
    if style:
        return fallback_spec(style, text.splitlines(keepends=True), size=420 + more, specials=SPECIALS)
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore))
    level = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    parts = [pre_tokenizers.Digits(individual_digits=True), level]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts) if digits else level
    if normaliser:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340 + more,
        show_progress=False,
        special_tokens=[] if after else SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(text.splitlines(), trainer)
    if after:
        tokenizer.add_special_tokens(SPECIALS)
        tokenizer.add_tokens([AddedToken("<note>", normalized=False)])
    first = tokenizer.token_to_id(SPECIALS[0])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIALS[0]} $A", pair=f"{SPECIALS[0]} $A $B", special_tokens=[(SPECIALS[0], first)]
    )
    spec = json.loads(tokenizer.to_str())
    if strings:
        spec["model"]["merges"] = [" ".join(merge) for merge in spec["model"]["merges"]]
    return spec


LAYOUTS = {
    "pairs": {},
    "strings": {"strings": True},
    "added after the vocabulary": {"after": True},
    "prefix space": {"prefix": True},
    "digits apart": {"digits": True},
    "ignore merges": {"ignore": True},
    "normaliser": {"normaliser": True, "after": True, "ignore": True},
    **{style: {"style": style} for style in ("gemma", "llama", "mistral", "split", "nfkc", "lower")},
}


def file_of(spec: dict) -> TokenizerFile:
    return TokenizerFile(spec, "test")


def extend(base: TokenizerFile, *, target=HUNGARIAN, guarded=ENGLISH, size=60, **wish):
    return extended_by(base, target, guarded, size, **wish)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_passes_all_checks(layout):
    base = file_of(train(**LAYOUTS[layout]))
    growth, new, family, guard, words = extend(base)
    insist(checks.file_checks(base, new, family, guard, words))
    assert len(growth.tokens) == 60 and growth.notes["missing"] == 0
    before = sum(map(len, tokenizer_file.encode_all(base.tokenizer, HUNGARIAN.splitlines())))
    after = sum(map(len, tokenizer_file.encode_all(new.tokenizer, HUNGARIAN.splitlines())))
    assert after < 0.75 * before
    for line in ENGLISH.splitlines()[:3]:
        assert base.tokenizer.encode(line).ids == new.tokenizer.encode(line).ids


@pytest.mark.parametrize("layout", LAYOUTS)
def test_counts_are_the_uses_on_the_text_and_rare_ones_are_stepping_stones(layout):
    base = file_of(train(**LAYOUTS[layout]))
    growth, new, *_ = extend(base)
    uses = Counter(number for ids in tokenizer_file.encode_all(new.tokenizer, HUNGARIAN.splitlines()) for number in ids)
    built_of = {part for merge in growth.merges for part in (merge.left, merge.right)}
    for token in growth.tokens:
        assert token.count == uses[token.id]
        assert token.count >= 5 or (token.piece in built_of and token.id in growth.stepping_stones)
    assert all(count >= 5 for count in growth.learned)


def test_added_tokens_that_only_their_list_names_do_not_move():
    spec = train(after=True)
    assert "<|end|>" not in spec["model"]["vocab"], "the layout that this test is about"
    base = file_of(spec)
    growth, new, *_ = extend(base)
    for content, number in base.added.items():
        assert new.tokenizer.token_to_id(content) == number
        assert new.tokenizer.encode(content, add_special_tokens=False).ids == [number]
    assert min(token.id for token in growth.tokens) == max(base.added.values()) + 1
    naive = json.loads(json.dumps(spec))
    for merge in growth.merges:
        naive["model"]["vocab"][merge.left + merge.right] = merge.id
        naive["model"]["merges"].append([merge.left, merge.right])
    moved = Tokenizer.from_str(json.dumps(naive))
    assert moved.token_to_id("<|end|>") != base.added["<|end|>"], "without the rule they do move"


def test_digits_stay_apart_where_the_file_forgot_that_they_were_split():
    spec = train(digits=True)
    spec["pre_tokenizer"] = spec["pre_tokenizer"]["pretokenizers"][1]
    base = file_of(spec)
    assert detect(base).splits_digits()
    text = "1234 12 12 12 34 a1 a1 a1 1986 1986 " * 30
    growth, *_ = extend(base, target=text + HUNGARIAN, guarded="a", size=80)
    assert not any(any(48 <= byte <= 57 for byte in token.content) for token in growth.tokens)
    free, *_ = extend(base, target=text + HUNGARIAN, guarded="a", size=80, split_digits="no")
    # always_guarded keeps short numbers; "86" of 1986 is not among the first of them
    assert any(b"1" in token.content or b"8" in token.content for token in free.tokens)


def test_no_new_token_is_a_guarded_word_when_merges_are_ignored():
    base = file_of(train(ignore=True))
    # "alatt" is cut into the same neighbours inside other words, so pairs alone would not protect it
    guard = Guard.of(base, count_words(base, ["alatt"]))
    assert guard.whole == {"alatt"}
    growth, new, *_ = extend(base, guarded="alatt")
    assert "alatt" not in {token.piece for token in growth.tokens}
    assert new.tokenizer.encode("alatt").ids == base.tokenizer.encode("alatt").ids


def test_new_tokens_are_whole_text_or_completed_by_one():
    base = file_of(train())
    greek = "η γλώσσα είναι ωραία και το σπίτι στέκεται στον λόφο\n" * 30
    growth, *_ = extend(base, target=greek, size=80)
    built_of = {part for merge in growth.merges for part in (merge.left, merge.right)}
    for token in growth.tokens:
        try:
            token.content.decode()
        except UnicodeDecodeError as error:
            assert error.reason == "unexpected end of data" and token.piece in built_of


def test_fewer_tokens_than_asked_are_counted_as_missing():
    base = file_of(train())
    growth, *_ = extend(base, size=5000)
    assert len(growth.tokens) + growth.notes["missing"] == 5000
    assert all(token.count >= 5 for token in growth.tokens if token.id not in growth.stepping_stones)


def test_spare_rows_come_first_and_holes_stay():
    spec = train()
    last = max(spec["model"]["vocab"].values())
    piece = next(piece for piece, number in spec["model"]["vocab"].items() if number == last)
    spec["model"]["vocab"][piece] = last + 7
    base = file_of(spec)
    growth, new, family, guard, words = extend(base)
    assert growth.tokens[0].id == last + 8
    insist(checks.file_checks(base, new, family, guard, words))


texts = st.lists(st.text(alphabet="abáőα 1,\n", min_size=1, max_size=40), min_size=1, max_size=12)
BASES = {name: file_of(train(**layout)) for name, layout in LAYOUTS.items()}


@settings(max_examples=20, deadline=None)
@given(target=texts, guarded=texts, layout=st.sampled_from(sorted(BASES)))
def test_any_text_guarded_joined_reachable_and_back(target, guarded, layout):
    base = BASES[layout]
    growth, new, family, guard, words = extended_by_lines(base, target, guarded)
    outcomes = [
        checks.ids_kept(base, new),
        checks.merges_kept(base, new),
        checks.reachable(base, new),
        checks.guarded_words_kept(base, new, guard),
        checks.only_joins(base, new, family, words),
        checks.same_round_trip(base, new, [*target, *guarded]),
    ]
    insist(outcomes)
    for text in guarded:
        assert base.tokenizer.encode(text).ids == new.tokenizer.encode(text).ids
    # a random order of the same texts gives the same file
    again, *_ = extended_by_lines(base, reversed(target), guarded)
    assert base.extended(again.merges) == base.extended(growth.merges)


@given(text=st.text(alphabet="ab <|start|>end\n1é", max_size=40), layout=st.sampled_from(sorted(BASES)))
@settings(max_examples=60, deadline=None)
def test_pre_tokens_rebuild_what_the_tokenizer_encodes(text, layout):
    base = BASES[layout]
    model = base.model_stage()
    words = WordCounter(base).words(text)
    ids = [number for part in tokenizer_file.encode_all(model, words) for number in part]
    added = set(base.added.values())
    whole = base.tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == [number for number in whole if number not in added]


def broken_names(base, new, family, guard, words) -> set[str]:
    return {outcome.name for outcome in checks.file_checks(base, new, family, guard, words) if outcome.broken}


@pytest.fixture(scope="module")
def extended():
    base = BASES["pairs"]
    return base, *extend(base)


def test_prepended_merges_are_seen(extended):
    base, _, new, *rest = extended
    old = len(base.merges)
    spec = json.loads(json.dumps(new.spec))
    spec["model"]["merges"] = spec["model"]["merges"][old:] + spec["model"]["merges"][:old]
    assert "merges_kept" in broken_names(base, file_of(spec), *rest)


def test_a_dropped_merge_is_seen(extended):
    base, growth, new, *rest = extended
    spec = json.loads(json.dumps(new.spec))
    del spec["model"]["merges"][len(base.merges)]
    names = broken_names(base, file_of(spec), *rest)
    assert {"merges_kept", "reachable"} <= names, growth.merges[0]


def test_a_merge_of_guarded_neighbours_is_seen(extended):
    base, growth, new, family, guard, words = extended
    ids = base.model_stage().encode("Ġvillage").ids
    left, right = (base.tokenizer.id_to_token(number) for number in ids[:2])
    extra = (*growth.merges, tokenizer_file.Merge(left, right, new.next_id))
    broken = broken_names(base, file_of(json.loads(base.extended(extra))), family, guard, words)
    assert "guarded_words_kept" in broken


def test_a_moved_special_id_is_seen(extended):
    base, _, new, *rest = extended
    spec = json.loads(json.dumps(new.spec))
    one, two = SPECIALS
    vocab = spec["model"]["vocab"]
    vocab[one], vocab[two] = vocab[two], vocab[one]
    for token in spec["added_tokens"]:
        token["id"] = vocab[token["content"]]
    names = broken_names(base, file_of(spec), *rest)
    assert {"ids_kept", "special_ids_added"} <= names
    with pytest.raises(DataError, match="ids_kept"):
        insist(checks.file_checks(base, file_of(spec), *rest))


def test_a_changed_pre_tokenizer_is_seen(extended):
    base, _, new, *rest = extended
    spec = json.loads(json.dumps(new.spec))
    spec["pre_tokenizer"]["add_prefix_space"] = True
    assert "sections_kept" in broken_names(base, file_of(spec), *rest)


def test_other_families_are_refused_by_name():
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(DataError, match="WordLevel") as caught:
        detect(file_of(json.loads(words.to_str())))
    assert "byte-bpe" in str(caught.value.hint)
    characters = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    with pytest.raises(DataError, match="characters"):
        detect(file_of(json.loads(characters.to_str())))
    suffix = train()
    suffix["model"]["end_of_word_suffix"] = "</w>"
    with pytest.raises(DataError, match="end_of_word_suffix"):
        detect(file_of(suffix))


def test_bad_files_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"has no tokenizer\.json"):
        tokenizer_file.read(tmp_path)
    spec = train()
    spec["added_tokens"][0]["id"] = 5
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(DataError, match="belongs to both"):
        tokenizer_file.read(tmp_path)
    with pytest.raises(DataError, match="cannot load"):
        _ = file_of({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "q"]]}}).tokenizer
