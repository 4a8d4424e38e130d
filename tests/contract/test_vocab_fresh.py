"""New tokenizers of every level, from bases of every layout: against the library's trainer and the regex library."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import regex
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import langadapt
from langadapt.core.artifact import Artifact
from langadapt.core.errors import DataError
from langadapt.core.inputs import resolve_inputs
from langadapt.core.progress import Progress
from langadapt.core.validate import validate
from langadapt.core.verb import load
from langadapt.model.load import load_model, load_tokenizer
from langadapt.model.tables import open_tables
from langadapt.vocab import checks, fresh, moved_checks
from langadapt.vocab.family import Wish, detect
from langadapt.vocab.guard import Guard
from langadapt.vocab.outcome import insist
from langadapt.vocab.words import count_words
from tests.contract.test_vocab_surgery import HUNGARIAN, LAYOUTS, SPECIALS, file_of, train
from tests.fixtures.fallback import tiny_gemma3
from tests.fixtures.tiny import tiny_corpus

# No conjuncts: Unicode 15.1 made them one cluster, the tokenizers library knows an older version.
MARKS = "e\u0301e\u0301 किताब 👩\u200d👩\u200d👧 🇭🇺🇭🇺 \r\n" * 12


def grown(base: Any, level: fresh.Level = "bpe", text: str = HUNGARIAN, size: int = 100, min_count: int = 5) -> Any:
    start = fresh.bare(base, level, digits_apart=True)
    words = count_words(start, text.splitlines(keepends=True))
    wish = Wish(size=size, min_count=min_count, split_digits="yes")
    growth = detect(start).grow(words, Guard.of(start, ()), wish, Progress())
    return start, growth, file_of(json.loads(start.extended(growth.merges)))


@pytest.mark.parametrize("level", ["bpe", "character", "grapheme"])
@pytest.mark.parametrize(
    "layout", ["pairs", "added after the vocabulary", "prefix space", "normaliser", "gemma", "llama"]
)
def test_every_layout_and_level_passes_the_checks(layout: str, level: fresh.Level) -> None:
    base = file_of(train(**LAYOUTS[layout]))
    start, growth, new = grown(base, level)
    outcomes = fresh.fresh_checks(base, start, new, digits_apart=True)
    outcomes += [
        checks.reachable(start, new),
        moved_checks.special_ids_follow(base, new, fresh.special_ids(base)),
    ]
    insist(outcomes)
    assert growth.tokens
    for token in SPECIALS:
        assert new.tokenizer.encode(token, add_special_tokens=False).ids == [new.added[token]]


def test_the_most_frequent_pairs_are_those_of_the_library() -> None:
    """The library's trainer on the same words: the same first merges, as long as no two counts are equal."""
    words = {"Ġab": 97, "xab": 7, "Ġabc": 61, "Ġxbc": 53, "bcd": 31, "Ġcd": 13}
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    theirs = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=256 + 4, initial_alphabet=alphabet, show_progress=False, min_frequency=2)
    theirs.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    theirs.train_from_iterator([f"{word} " * count for word, count in words.items()], trainer)
    merges = json.loads(theirs.to_str())["model"]["merges"]
    start = fresh.bare(file_of(train()), "bpe", digits_apart=False)
    growth = detect(start).grow(words, Guard.of(start, ()), Wish(size=4, min_count=1), Progress())
    assert sorted([merge.left, merge.right] for merge in growth.merges) == sorted(merges)


@pytest.mark.parametrize(("level", "cut"), [("character", list), ("grapheme", lambda text: regex.findall(r"\X", text))])
def test_tokens_are_characters_or_clusters(level: fresh.Level, cut: Any) -> None:
    base = file_of(train())
    text = HUNGARIAN + MARKS
    _, _, new = grown(base, level, text, size=2000)
    lines = text.splitlines(keepends=True)
    counts = Counter(unit for line in lines for unit in cut(line))
    frequent = {unit for unit, count in counts.items() if count >= 5 and len(unit.encode()) <= 32}
    for unit in frequent:
        assert len(new.tokenizer.encode(unit, add_special_tokens=False).ids) == 1, unit
    for line in lines:
        # no token stands across a boundary, and frequent units are whole
        expected = [len(new.model_stage().encode(new.spelling.piece(unit.encode())).ids) for unit in cut(line)]
        assert len(new.tokenizer.encode(line, add_special_tokens=False).ids) == sum(expected)
        assert new.tokenizer.decode(new.tokenizer.encode(line, add_special_tokens=False).ids) == line
    whole = {new.spelling.content(piece) for piece in new.pieces if piece not in new.added}
    assert {unit.encode() for unit in frequent} <= whole


def test_two_digits_in_a_token_are_seen() -> None:
    base = file_of(train())
    start, _, new = grown(base)
    spec = json.loads(json.dumps(new.spec))
    spec["model"]["vocab"]["12"] = new.next_id
    spec["model"]["merges"].append(["1", "2"])
    broken = {found.name for found in fresh.fresh_checks(base, start, file_of(spec), digits_apart=True) if found.broken}
    assert broken == {"digits_apart"}


def test_a_lost_byte_is_seen() -> None:
    base = file_of(train())
    start, _, new = grown(base)
    spec = json.loads(json.dumps(new.spec))
    del spec["model"]["vocab"]["Ā"]  # byte 0
    broken = {found.name for found in fresh.fresh_checks(base, start, file_of(spec), digits_apart=True) if found.broken}
    assert broken == {"ids_in_order", "exact_round_trip"}


# The verb


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus(tmp_path_factory.mktemp("text"), "hu", 60)


@pytest.fixture(scope="module")
def made(tiny: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    place = tmp_path_factory.mktemp("new") / "t"
    return langadapt.train_tokenizer(model=tiny, corpora=[corpus], lang="hu", size=420, out=place)


def test_the_verb_repeats_itself_and_says_what_it_did(made: Artifact, tiny: Path, corpus: Path, tmp_path: Path) -> None:
    again = langadapt.train_tokenizer(model=tiny, corpora=[corpus], lang="hu", size=420, out=tmp_path / "t")
    assert (again.path / "artifact.json").read_bytes() == (made.path / "artifact.json").read_bytes()
    facts = made.facts
    assert facts["vocabulary_after"] == 420 and facts["lang"] == "hu" and facts["digits_apart"] is True
    assert facts["tokens_per_word"]["adapted"] < 0.4 * facts["tokens_per_word"]["base"]
    old, new = load_tokenizer(tiny), load_tokenizer(made.path)
    assert new.chat_template == old.chat_template and new.eos_token == old.eos_token and len(new) == 420


def test_a_model_gets_rows_for_it(made: Artifact, tiny: Path, tmp_path: Path) -> None:
    begun = langadapt.init_embeddings(model=tiny, tokenizer=made, out=tmp_path / "i")
    old, new = open_tables(tiny), open_tables(begun.path)
    rows = {old.tokens.bytes_of(id): id for id in old.tokens.text_ids().tolist()}
    copied = 0
    for id in new.tokens.text_ids().tolist():
        before = rows.get(new.tokens.bytes_of(id))
        if before is not None:
            copied += 1
            assert old.read_input()[before].equal(new.read_input()[id])
    assert copied + 4 + begun.facts["added"] == begun.facts["rows"] == 420
    tokenizer, model = load_tokenizer(begun.path), load_model(begun.path)
    ids = tokenizer("sza gyu", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[1] <= ids.shape[1] + 3


def test_a_model_of_another_family_gets_a_byte_level_one(corpus: Path, tmp_path: Path) -> None:
    base = tiny_gemma3(tmp_path / "m")
    made = langadapt.train_tokenizer(model=base, corpora=[corpus], size=420, out=tmp_path / "t")
    begun = langadapt.init_embeddings(model=base, tokenizer=made, out=tmp_path / "i")
    tokenizer = load_tokenizer(begun.path)
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.decode(tokenizer(" x  y", add_special_tokens=False)["input_ids"]) == " x  y"
    assert begun.facts["added"] > 50


def test_a_size_below_the_bytes_is_refused(tiny: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="occurs 1000000 times"):
        langadapt.train_tokenizer(model=tiny, corpora=[corpus], min_count=1_000_000, out=tmp_path / "t")


def test_a_word_that_config_json_takes_for_the_begin_of_a_text_is_refused(
    tiny: Path, corpus: Path, tmp_path: Path
) -> None:
    wrong = Path(shutil.copytree(tiny, tmp_path / "wrong"))
    said = json.loads((wrong / "config.json").read_text(encoding="utf-8"))
    (wrong / "config.json").write_text(json.dumps(said | {"bos_token_id": 40}), encoding="utf-8")
    verb = load("train-tokenizer")
    config = validate(verb.config, {"model": str(wrong), "corpora": [str(corpus)], "size": 420})
    for ask in (
        lambda: verb.estimate(config, resolve_inputs(config)),
        lambda: langadapt.train_tokenizer(model=wrong, corpora=[corpus], size=420, out=tmp_path / "t"),
    ):
        with pytest.raises(
            DataError, match=r"bos_token_id. is wrong: token 40 is .* an ordinary piece of text"
        ) as caught:
            ask()
        assert caught.value.hint == "the tokenizer says `<s>`: correct it to 1"
