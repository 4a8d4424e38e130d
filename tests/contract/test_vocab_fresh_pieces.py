"""New WordPiece and Unigram tokenizers from bases of these kinds: everything comes out, nothing is by chance."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

import langadapt
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.progress import Progress
from langadapt.vocab import fresh, fresh_pieces
from langadapt.vocab.family import Wish
from langadapt.vocab.letters import is_closed
from langadapt.vocab.tokenizer_file import read
from langadapt.vocab.uses import uses_on
from langadapt.vocab.words import count_words
from tests.contract.test_vocab_set_modes import BASES
from tests.contract.test_vocab_set_steps import FOLDERS, place
from tests.contract.test_vocab_surgery import HUNGARIAN, file_of
from tests.fixtures.fallback import fallback_tokenizer
from tests.fixtures.growing import prepared_lines
from tests.fixtures.oracles import slow_ids

__all__ = ["place"]
each_family_folder = pytest.mark.parametrize("family", ["wordpiece", "xlmr", "t5"])
each_family = pytest.mark.parametrize("layout", ["bert cased", "xlmr"])


def made(base, *, size=260, min_count=5, apart=False, text=HUNGARIAN):
    words = count_words(base, text.splitlines())
    start = fresh_pieces.bare(base, words, min_count)
    wish = Wish(size=size - start.next_id, min_count=min_count, split_digits="yes" if apart else "no")
    new, growth = fresh_pieces.grown(start, words, wish, Progress())
    return start, file_of(new.spec), growth, words


@pytest.mark.parametrize("layout", sorted(BASES))
def test_every_layout_passes_the_checks(layout):
    base = BASES[layout]
    size = 520 if layout == "bytes" else 260
    start, new, growth, words = made(base, size=size)
    broken = [one for one in fresh_pieces.fresh_checks(base, start, new, words, digits_apart=False) if one.broken]
    assert not broken
    assert len(growth.tokens) > 20 and len(new.pieces) == start.next_id + len(growth.tokens) <= size
    assert {piece: new.added[piece] for piece in base.added} == new.added
    assert [new.added[piece] for piece in sorted(base.added, key=base.added.__getitem__)] == [*range(len(base.added))]
    ids = [id for line in HUNGARIAN.splitlines() for id in new.tokenizer.encode(line, add_special_tokens=False).ids]
    assert new.unknown not in ids and is_closed(new)
    uses = uses_on(new, words)
    for token in growth.tokens:
        assert token.count == uses[token.id] >= 5, token
    for word in words:
        assert slow_ids(new, word) == new.model_stage().encode(word).ids


@each_family
def test_exactly_the_size_and_the_same_bytes_again(layout):
    base = BASES[layout]
    size = made(base)[0].next_id + 12
    _, one, growth, words = made(base, size=size)
    assert len(one.pieces) == size and growth.notes["missing"] == 0
    shuffled = dict(reversed(words.items()))
    start = fresh_pieces.bare(base, shuffled, 5)
    two, _ = fresh_pieces.grown(start, shuffled, Wish(size=12, min_count=5), Progress())
    assert json.dumps(one.spec) == json.dumps(two.spec)


@each_family
def test_digits_stay_apart_where_they_were(layout):
    text = HUNGARIAN + "".join(f"{1840 + at % 30} {1900 + at % 70}\n" for at in range(600))
    for apart in (True, False):
        start, new, _, words = made(BASES[layout], text=text, apart=apart)
        outcomes = fresh_pieces.fresh_checks(BASES[layout], start, new, words, digits_apart=True)
        assert {one.name for one in outcomes if one.broken} == (set() if apart else {"digits_apart"})


def test_scores_are_the_log_of_how_often_pieces_are_used():
    _, new, growth, words = made(BASES["xlmr"])
    scores = dict(new.model["vocab"])
    logs = np.array([[scores[token.piece], np.log(token.count)] for token in growth.tokens])
    assert np.corrcoef(logs.T)[0, 1] > 0.8
    assert all(score <= 0 and float(np.float32(score)) == score for score in scores.values())
    assert new.unknown == new.added["<unk>"] and words


def test_rare_characters_are_unknown_and_printable_ones_are_not():
    for layout in ("bert cased", "xlmr"):
        _, new, *_ = made(BASES[layout], text=HUNGARIAN + "ж\n")
        for text, unknown in (("ж", True), ("xylophone{}~", False), ("ő", False)):
            assert (new.unknown in new.tokenizer.encode(text, add_special_tokens=False).ids) is unknown, text
    _, new, *_ = made(BASES["bytes"], text=HUNGARIAN + "ж\n", size=520)
    ids = new.tokenizer.encode("ж", add_special_tokens=False).ids
    assert new.unknown not in ids and new.tokenizer.decode(ids) == "ж"


@each_family
def test_damage_is_seen(layout):
    base = BASES[layout]
    start, new, growth, words = made(base)
    spec = json.loads(json.dumps(new.spec))
    vocab = spec["model"]["vocab"]
    if isinstance(vocab, dict):
        number = vocab.pop("##q")
        vocab["##qű"] = number
    else:
        place_ = next(id for id, (piece, _) in enumerate(vocab) if piece == "q")
        vocab[place_][0] = "qű"
        vocab[growth.tokens[-1].id][1] = -1e3
    broken = {
        one.name
        for one in fresh_pieces.fresh_checks(base, start, file_of(spec), words, digits_apart=False)
        if one.broken
    }
    assert {"ids_in_order", "characters_alone"} <= broken
    assert isinstance(vocab, dict) or "reachable" in broken


# The verb


@each_family_folder
def test_the_verb_keeps_the_family_and_what_transformers_loads(place: Path, family: str) -> None:
    model = place / family
    options = {"model": model, "corpora": [place / "hu"], "lang": "hu", "size": 300, "family": "same"}
    artifact = langadapt.train_tokenizer(out=place / f"{family}-fresh", **options)
    facts = artifact.facts
    assert facts["family"] == family.replace("xlmr", "unigram").replace("t5", "unigram")
    assert facts["vocabulary_after"] <= 300 and facts["kept_by"]["bytes"] > 30 and FOLDERS[family] is not None
    tokenizer = AutoTokenizer.from_pretrained(str(artifact.path))
    assert type(tokenizer) is type(AutoTokenizer.from_pretrained(str(model)))
    shown = tokenizer.decode(tokenizer("a ház a dombon áll")["input_ids"], skip_special_tokens=True)
    assert shown == "a ház a dombon áll"
    if family == "xlmr":
        again = langadapt.train_tokenizer(out=place / f"{family}-again", **options)
        assert (again.path / "artifact.json").read_bytes() == (artifact.path / "artifact.json").read_bytes()


@each_family_folder
def test_a_byte_level_one_is_made_of_these_too(place: Path, family: str) -> None:
    artifact = langadapt.train_tokenizer(
        model=place / family, corpora=[place / "hu"], size=450, out=place / f"{family}-bytes"
    )
    assert artifact.facts["family"] == "byte-bpe"
    tokenizer = AutoTokenizer.from_pretrained(str(artifact.path))
    ids = tokenizer("a ház  ж", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == "a ház  ж"
    assert Counter(read(artifact.path).added.keys()) == Counter(read(place / family).added.keys())


def test_what_cannot_be_is_refused(place: Path, tmp_path: Path) -> None:
    options = {"corpora": [place / "hu"], "family": "same", "out": tmp_path / "t", "size": 300}
    with pytest.raises(ConfigError, match="byte-level"):
        langadapt.train_tokenizer(model=place / "xlmr", level="character", **options)
    many = prepared_lines(tmp_path, "zh", "\n".join(chr(0x4E00 + at) * 2 + " sok szép betű van" for at in range(250)))
    with pytest.raises(DataError, match="`size` must be larger") as caught:
        langadapt.train_tokenizer(model=place / "wordpiece", min_count=1, **options | {"corpora": [many]})
    assert caught.value.hint is not None
    (tmp_path / "gemma").mkdir()
    gemma = fallback_tokenizer(tmp_path / "gemma", style="gemma")
    (gemma / "config.json").write_text(json.dumps({"model_type": "gemma", "vocab_size": 2000}))
    with pytest.raises(DataError, match="byte-fallback-bpe tokenizer cannot be trained"):
        langadapt.train_tokenizer(model=gemma, **options)
    assert fresh.special_ids(BASES["xlmr"])[0] == 0
