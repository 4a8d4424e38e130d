"""Extending tokenizers without merges (WordPiece, Unigram): what must hold holds, and the checks see it if not."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

import langadapt
from langadapt.core.errors import DataError
from langadapt.core.progress import Note, Progress
from langadapt.model.load import load_tokenizer
from langadapt.model.matching import match
from langadapt.model.spans import spans
from langadapt.model.token_table import TokenTable
from langadapt.vocab import checks, losses, tokenizer_file
from langadapt.vocab.family import Wish, detect
from langadapt.vocab.guard import Guard
from langadapt.vocab.outcome import insist
from langadapt.vocab.tokenizer_file import Merge, TokenizerFile, encode_all
from langadapt.vocab.word_cuts import of_one_kind
from langadapt.vocab.words import count_words
from tests.contract.test_vocab_surgery import ENGLISH, HUNGARIAN
from tests.fixtures.growing import extended, extended_by_lines, prepared_lines
from tests.fixtures.pieces import unigram_spec, unigram_tokenizer, wordpiece_spec, wordpiece_tokenizer
from tests.fixtures.tiny import tiny_tokenizer

GERMAN = (
    "die Häuser stehen am Hang und die alten Leute gehen über die Brücke; Thesen, Herden, Handel, Standard 1234\n" * 9
)


def behind(spec: dict) -> dict:
    """The last special token only in the list of added ones, and another one that is not special."""
    content, _ = spec["model"]["vocab"].pop()
    number = len(spec["model"]["vocab"])
    assert spec["added_tokens"][-1] | {"content": content, "id": number} == spec["added_tokens"][-1]
    spec["added_tokens"].append(spec["added_tokens"][-1] | {"content": "<note>", "id": number + 1, "special": False})
    return spec


LAYOUTS = {
    "bert cased": lambda: wordpiece_spec("cased", ENGLISH.splitlines()),
    "bert uncased": lambda: wordpiece_spec("uncased", ENGLISH.splitlines()),
    **{style: partial(unigram_spec, style, ENGLISH.splitlines()) for style in ("xlmr", "t5", "whole", "bytes")},
    "added behind": lambda: behind(unigram_spec("xlmr", ENGLISH.splitlines())),
}


def file_of(spec: dict) -> TokenizerFile:
    return TokenizerFile(json.loads(json.dumps(spec)), "test")


BASES = {name: file_of(make()) for name, make in LAYOUTS.items()}
every_layout = pytest.mark.parametrize("layout", sorted(BASES))
each_family = pytest.mark.parametrize("layout", ["bert cased", "xlmr"])


def extend(base: TokenizerFile, *, target=HUNGARIAN + GERMAN, guarded=ENGLISH, size=25, **wish):
    return extended(base, target, guarded, size, **wish)


def broken_names(base, new, family, guard, words) -> set[str]:
    return {outcome.name for outcome in checks.file_checks(base, new, family, guard, words) if outcome.broken}


@every_layout
def test_every_layout_passes_all_checks(layout):
    base = BASES[layout]
    growth, new, family, guard, words = extend(base, size=40)
    insist(checks.file_checks(base, new, family, guard, words))
    assert len(growth.tokens) == 40 and growth.notes["missing"] == 0 and len(guard.words) > 20
    before, after = (sum(map(len, encode_all(file.model_stage(), sorted(words)))) for file in (base, new))
    lost = [ids.count(base.unknown) for ids in encode_all(new.tokenizer, HUNGARIAN.splitlines())]
    assert after < 0.75 * before or sum(lost) == 0, "fewer tokens, or words that were unknown can be read"
    assert sum(lost) == 0
    for line in ENGLISH.splitlines()[:3]:
        assert base.tokenizer.encode(line).ids == new.tokenizer.encode(line).ids


@every_layout
def test_counts_are_the_uses_on_the_text_and_only_characters_may_be_rare(layout):
    growth, new, *_ = extend(BASES[layout])
    uses = Counter(id for ids in encode_all(new.tokenizer, (HUNGARIAN + GERMAN).splitlines()) for id in ids)
    for token in growth.tokens:
        assert token.count == uses[token.id]
        assert token.count >= 5 or ("character" in token.reason and token.id in growth.stepping_stones)


@each_family
def test_characters_that_the_vocabulary_lacks_come_first(layout):
    base = BASES[layout]
    growth, new, *_ = extend(base)
    kinds = ["character" in token.reason for token in growth.tokens]
    assert any(kinds) and kinds == sorted(kinds, reverse=True)
    assert base.unknown in base.tokenizer.encode("ház").ids
    assert base.unknown not in new.tokenizer.encode("ház").ids


@each_family
def test_fewer_tokens_than_asked_are_counted_with_the_reason(layout):
    growth, *_ = extend(BASES[layout], size=5000)
    assert len(growth.tokens) + growth.notes["missing"] == 5000 and growth.notes["left_out_too_rare"] > 0


def test_what_the_guard_of_a_word_piece_forbids_is_what_would_change():
    base = BASES["bert cased"]
    text = "standing standing hillside villages people's thehouse\n" * 9
    free, *_ = extend(base, target=text, guarded="q", size=40)
    growth, _, _, guard, _ = extend(base, target=text, guarded=text + ENGLISH, size=40)
    changing = [token.piece for token in free.tokens if token.piece not in {kept.piece for kept in growth.tokens}]
    assert changing and [token for token in growth.tokens if "character" not in token.reason] == []
    for piece in changing:
        one = file_of(json.loads(base.extended([*growth.merges, added(base, growth, piece)])))
        before, after = (list(encode_all(file.model_stage(), guard.words)) for file in (base, one))
        assert before != after, piece


def added(base, growth, piece, score=None):
    return Merge(piece, "", base.next_id + len(growth.merges), score)


texts = st.lists(st.text(alphabet="abeáőαzthe 1,.\n", min_size=1, max_size=40), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@example(target=["1", "1", "1", "  "], guarded=["1"], layout="whole")
@given(target=texts, guarded=texts, layout=st.sampled_from(sorted(BASES)))
def test_any_text_guarded_reachable_and_back(target, guarded, layout):
    base = BASES[layout]
    growth, new, family, guard, words = extended_by_lines(base, target, guarded)
    outcomes = [
        checks.ids_kept(base, new),
        checks.guarded_words_kept(base, new, guard),
        checks.same_round_trip(base, new, [*target, *guarded]),
        *family.checks(new, words),
    ]
    insist(outcomes)
    for text in guarded:
        before = base.tokenizer.encode(text, add_special_tokens=False).ids
        assert base.unknown in before or before == new.tokenizer.encode(text, add_special_tokens=False).ids
    again, *_ = extended_by_lines(base, reversed(target), guarded)
    assert base.extended(again.merges) == base.extended(growth.merges)


@each_family
def test_a_shifted_special_and_a_stale_post_processor_are_seen(layout):
    base = BASES[layout]
    _, new, *rest = extend(base)
    spec = json.loads(json.dumps(new.spec))
    one, two = [token for token in spec["added_tokens"] if token["special"]][:2]
    one["content"], two["content"] = two["content"], one["content"]
    vocab = spec["model"]["vocab"]
    if isinstance(vocab, dict):
        vocab[one["content"]], vocab[two["content"]] = one["id"], two["id"]
    else:
        vocab[one["id"]], vocab[two["id"]] = vocab[two["id"]], vocab[one["id"]]
    assert "ids_kept" in broken_names(base, file_of(spec), *rest)
    spec = json.loads(json.dumps(new.spec))
    for entry in spec["post_processor"]["special_tokens"].values():
        entry["ids"] = [entry["ids"][0] + 1]
    assert {"sections_kept", "special_ids_added"} <= broken_names(base, file_of(spec), *rest)


@each_family
def test_a_piece_that_changes_a_guarded_word_is_seen(layout):
    base = BASES[layout]
    growth, _, *rest = extend(base)
    word = next(word for word in rest[1].words if len(base.model_stage().encode(word).ids) > 1)
    extra = added(base, growth, word, -1.0)
    spec = json.loads(base.extended([*growth.merges, extra]))
    assert "guarded_words_kept" in broken_names(base, file_of(spec), *rest)


@pytest.mark.parametrize("score", [0.0, -1e6, None])
def test_score_0_a_score_below_all_and_a_changed_old_one_are_seen(score):
    base = BASES["xlmr"]
    growth, new, *rest = extend(base)
    spec = json.loads(json.dumps(new.spec))
    vocab = spec["model"]["vocab"]
    if score is None:
        vocab[10][1] -= 1e-9
    else:
        vocab[growth.tokens[-1].id][1] = score
    names = broken_names(base, file_of(spec), *rest)
    assert "scores_kept" in names
    # what the score-0 recipe does: it wins wherever it stands
    vocab[-1] = ["ill", 0.0]
    if score == 0.0:
        assert {"guarded_words_kept", "scores_kept"} <= broken_names(base, file_of(spec), *rest)


def test_new_scores_lie_where_the_unknown_and_the_guard_do_not_notice():
    base = BASES["xlmr"]
    growth, *_ = extend(base, size=40)
    old = [score for piece, score in base.model["vocab"] if piece not in base.added]
    for merge in growth.merges:
        assert min(old) <= merge.score <= max(old) and float(np.float32(merge.score)) == merge.score


def test_a_rare_character_does_not_move_the_cost_of_the_unknown():
    base = BASES["xlmr"]
    growth = detect(base).grow({"▁ő": 1, "▁the": 10**9}, Guard.of(base, []), Wish(size=3, min_count=1), Progress())
    lowest = min(score for _, score in base.model["vocab"])
    assert growth.merges[0].piece == "ő" and growth.merges[0].score >= lowest > -20


def test_no_token_stands_across_a_cut_of_words():
    base = BASES["whole"]
    text = "házak,házak.házak 12x x.x.x.x.\n" * 9
    growth, new, *_ = extend(base, target=text, size=60)
    uses = Counter(id for ids in encode_all(new.tokenizer, text.splitlines()) for id in ids)
    for token in growth.tokens:
        assert of_one_kind(token.piece) and token.count == uses[token.id], token


def test_the_guard_of_a_word_piece_is_exact():
    base = BASES["bert cased"]
    family = detect(base)
    guard = Guard.of(base, ["the", "houses", "standing", "hillside", "people"])
    permitted, before = family.permits(guard), list(encode_all(base.model_stage(), guard.words))
    parts = {word[a:b] for word in guard.words for a in range(len(word)) for b in range(a + 1, len(word) + 1)}
    pieces = sorted({*parts, *("##" + part for part in parts), "hi", "##z", "standings"} - base.vocab.keys())
    verdicts = {piece: permitted(piece) for piece in pieces}
    for piece, verdict in verdicts.items():
        stage = base.model_stage([Merge(piece, "", base.next_id)])
        assert verdict == (list(encode_all(stage, guard.words)) == before), piece
    assert 10 < sum(verdicts.values()) < len(verdicts) - 10 and len(guard.words) > 2


def test_added_tokens_that_only_their_list_names_do_not_move():
    base = BASES["added behind"]
    growth, new, *_ = extend(base)
    assert min(token.id for token in growth.tokens) == base.added["<note>"] + 1 == base.next_id
    for content, number in base.added.items():
        assert new.tokenizer.token_to_id(content) == number
    text = "the <note> hill"
    assert new.tokenizer.encode(text).ids == base.tokenizer.encode(text).ids


def test_an_unreachable_piece_and_a_word_that_became_unknown_are_seen():
    base = BASES["bert cased"]
    growth, _, *rest = extend(base)
    long = added(base, growth, "a" * 101)
    assert "reachable" in broken_names(base, file_of(json.loads(base.extended([*growth.merges, long]))), *rest)
    spec = json.loads(json.dumps(base.spec))
    spec["model"]["vocab"]["##éq"] = base.next_id
    odd = file_of(spec)
    new = file_of(json.loads(odd.extended([Merge("##sé", "", odd.next_id)])))
    family = detect(odd)
    assert "reachable" not in broken_names(odd, new, family, Guard.of(odd, []), {"séq": 1})
    assert "still_spelled" in broken_names(odd, new, family, Guard.of(odd, []), {"hséq": 1})


def test_accents_and_capitals_that_the_base_takes_away_are_said():
    said = losses.lost_letters(BASES["bert uncased"], HUNGARIAN + "ABC")
    assert any("strips accents" in text and "`á`" in text for text in said) and any(
        "lower-case" in text for text in said
    )
    assert losses.lost_letters(BASES["bert cased"], HUNGARIAN + "ABC") == []


def test_marks_that_the_pre_tokenizer_cuts_off_are_said(tmp_path: Path):
    gpt2 = tokenizer_file.read(tiny_tokenizer(tmp_path))
    thai = ["การระบุตัวตนของเว็บไซต์นี้ใช้การไม่ได้สำหรับวันที่ในอนาคต"] * 9
    (said,) = losses.cut_marks(gpt2, thai)
    assert "100 % of them cannot be joined" in said and "`ั`" in said
    # a few marks are no reason, letters with accents are no marks, and SentencePiece's kind keeps words whole
    assert losses.cut_marks(gpt2, thai[:1]) == losses.cut_marks(gpt2, [HUNGARIAN] * 9) == []
    assert losses.cut_marks(BASES["xlmr"], thai) == []


def test_other_layouts_of_the_family_are_refused():
    bare = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]", continuing_subword_prefix=""))
    with pytest.raises(DataError, match="does not mark pieces inside words"):
        detect(file_of(json.loads(bare.to_str())))
    bare = Tokenizer(models.WordPiece({"a": 1}, unk_token="[UNK]"))
    with pytest.raises(DataError, match="no token for what is unknown"):
        detect(file_of(json.loads(bare.to_str())))
    spec = json.loads(json.dumps(BASES["xlmr"].spec))
    spec["added_tokens"].append(spec["added_tokens"][-1] | {"id": len(spec["model"]["vocab"]) + 3, "content": "<far>"})
    with pytest.raises(DataError, match="ids have holes"):
        detect(file_of(spec))
    spec["model"]["unk_id"] = None
    with pytest.raises(DataError, match="no token for what is unknown"):
        detect(file_of(spec))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sets")
    for lang, text in (("hu", HUNGARIAN), ("en", ENGLISH)):
        prepared_lines(place, lang, text)
    return place


FOLDERS = {
    "wordpiece": wordpiece_tokenizer,
    "unigram": unigram_tokenizer,
    "unigram t5": partial(unigram_tokenizer, style="t5"),
}


@pytest.mark.parametrize("family", sorted(FOLDERS))
def test_the_step_writes_what_transformers_loads_and_init_embeddings_reads(corpora: Path, family: str):
    model = FOLDERS[family](corpora / family, ENGLISH.splitlines())
    (model / "old.model").write_bytes(b"stale")
    notes: list[str] = []
    artifact = langadapt.extend_vocab(
        out=corpora / f"{family}-new",
        model=model,
        corpus=corpora / "hu",
        guard=[corpora / "en"],
        size=30,
        listener=lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    assert artifact.facts["family"] == family.split()[0] and artifact.facts["unreachable"] == 0
    assert artifact.facts["guarded_types_changed"] == 0 and artifact.facts["held_out_lines_same_ids"] == 1.0
    assert not list(artifact.path.glob("*.model")) and any("old.model is not written" in note for note in notes)
    base, new = TokenTable.from_folder(model), TokenTable.from_folder(artifact.path)
    found = match(base, new, base_rows=base.size)
    assert len(found.new_tokens) == 30
    for token in found.new_tokens:
        assert new.spell(token.content) == [token.id]
        pieces = base.spell(token.content)
        assert b"".join(base.bytes_of(id) for id in pieces) == (token.content if pieces else b"")
    assert any(base.spell(token.content) for token in found.new_tokens)
    tokenizer = load_tokenizer(artifact.path)
    placed = spans(tokenizer, "a ház a dombon")
    assert placed.changed_bytes == 0 and placed.ends[-1] == len("a ház a dombon".encode())


def test_roles_of_a_word_piece_are_two_tokens(tmp_path: Path):
    table = TokenTable.from_folder(wordpiece_tokenizer(tmp_path, ENGLISH.splitlines()))
    pieces = {piece: id for id, piece in enumerate(table.pieces)}
    assert table.bytes_of(pieces["h"]) == b" h" and table.bytes_of(pieces["##h"]) == b"h"
    assert table.spell(b" h") == [pieces["h"]] and table.spell(b"h") == [pieces["##h"]]
    both = table.spell(b" the hill")
    assert b"".join(table.bytes_of(id) for id in both) == b" the hill" and both[0] == pieces["the"]
    assert table.spell("ő".encode()) == [] and table.spell(b" [UNK]") == [] and table.spell(b"  h") == []


def test_the_same_folder_gives_the_same_file_for_any_order(corpora: Path):
    words = count_words(BASES["bert cased"], HUNGARIAN.splitlines())
    shuffled = dict(reversed(words.items()))
    family, guard = detect(BASES["bert cased"]), Guard.of(BASES["bert cased"], ["house"])
    one, two = (family.grow(given, guard, Wish(size=20, min_count=2), Progress()) for given in (words, shuffled))
    assert one == two


def test_a_vocabulary_that_is_no_list_of_scores_is_refused(tmp_path: Path):
    for vocab, message in (([["a", 0.0], ["a", -1.0]], "twice"), ([["a"]], "pieces with scores")):
        spec = {"model": {"type": "Unigram", "unk_id": 0, "vocab": vocab}}
        (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
        with pytest.raises(DataError, match=message):
            tokenizer_file.read(tmp_path)
