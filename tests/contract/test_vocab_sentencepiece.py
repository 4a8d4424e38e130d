"""The `.model` beside tokenizer.json: it cuts text as tokenizer.json does, and the checks see it if not."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models

import langadapt
from langadapt.core.errors import DataError
from langadapt.core.progress import Note, Progress
from langadapt.model import spm_model
from langadapt.model.spm_model import CONTROL, NORMAL, Piece, SpmModel
from langadapt.steps._sentencepiece import companion_of
from langadapt.vocab import checks, spm_checks, tokenizer_file
from langadapt.vocab.family import Wish, detect
from langadapt.vocab.guard import Guard, always_guarded, with_variants
from langadapt.vocab.outcome import insist
from langadapt.vocab.slots import Slot, grow_into
from langadapt.vocab.splits import splits, with_every_split
from langadapt.vocab.spm_file import Places, by_score, rewritten
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all
from langadapt.vocab.words import count_words
from tests.contract.test_vocab_sets import corpora as corpora
from tests.contract.test_vocab_surgery import ENGLISH, HUNGARIAN
from tests.fixtures.spm import STYLES, spm_tokenizer

pytest.importorskip("sentencepiece")


def babble(letters: str, seed: int, lines: int = 150) -> list[str]:
    """Lines of made-up words in few letters: their pieces can be built in many ways, and overlap."""
    random = np.random.Generator(np.random.Philox(key=seed))
    words = ["".join(random.choice(list(letters), size=random.integers(2, 9))) for _ in range(80)]
    return [" ".join(words[at] for at in np.minimum(random.geometric(0.05, size=8), 80) - 1) for _ in range(lines)]


OLD = [*ENGLISH.splitlines(), *babble("abem", 1)]
TARGET = [*HUNGARIAN.splitlines(), *babble("abemő", 2)]
LINES = sorted({*OLD, *TARGET})
ADDED = 60
ODD = [text for text in checks.fuzz_texts([]) if len(text) < 200]


class Pair:
    """A base with its two files, and what comes of extending it by Hungarian."""

    def __init__(self, folder: Path, style: str) -> None:
        self.folder = spm_tokenizer(folder / style, style, OLD, size=470 if style in BPE else 120)
        self.spm = spm_model.read(spm_model.find(self.folder))
        plain = tokenizer_file.read(self.folder)
        self.base = replace(plain, ranks=by_score(self.spm)) if style in BPE else plain
        self.places = Places.of(self.spm, plain)
        self.words = count_words(self.base, TARGET)
        protected = count_words(self.base, [*OLD, *always_guarded([])[:400]])
        self.guard = Guard.of(self.base, with_variants(protected, self.base.spelling))
        self.family = detect(self.base)
        growth = self.family.grow(self.words, self.guard, Wish(size=ADDED, min_count=5), Progress())
        self.new = TokenizerFile(json.loads(self.base.extended(growth.merges)), "new")
        self.written = rewritten(self.spm, self.places, self.new)

    def names(self, written: SpmModel, texts=LINES) -> set[str]:
        """Names of the checks that this `.model` does not pass beside the new tokenizer.json."""
        outcomes = [
            spm_checks.pieces(self.spm, self.places, self.new, written),
            spm_checks.cuts(written, self.new, texts),
        ]
        return {outcome.name for outcome in outcomes if outcome.broken}

    def halves(self) -> list[str]:
        """Pieces with their halves exchanged."""
        return [piece[at:] + piece[:at] for piece in self.new.vocab for at in range(1, len(piece))]

    def fresh(self) -> list[int]:
        """Places of the new pieces."""
        return [
            at for at, piece in enumerate(self.written.pieces) if piece.text in self.new.vocab.keys() - self.base.pieces
        ]


BPE = ("llama", "gemma")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    place = tmp_path_factory.mktemp("spm")
    return {style: Pair(place, style) for style in STYLES}


@pytest.mark.parametrize("style", STYLES)
def test_both_files_of_the_base_and_of_the_extended_tokenizer_agree(pairs, style: str):
    it = pairs[style]
    random = np.random.Generator(np.random.Philox(key=1))
    letters = sorted({letter for line in LINES for letter in line})
    strings = ["".join(random.choice(letters, size=random.integers(1, 30))) for _ in range(600)]
    # parts of words stand side by side as training text never has them: every split of every piece is met
    texts = [*LINES, *ODD, *strings, *it.halves()]
    assert spm_checks.differences(it.spm, it.base, texts) == []
    insist(checks.file_checks(it.base, it.new, it.family, it.guard, it.words))
    insist([spm_checks.pieces(it.spm, it.places, it.new, it.written), spm_checks.cuts(it.written, it.new, texts)])
    assert len(it.fresh()) == ADDED
    if style in BPE:
        made = [piece for piece in it.new.vocab.keys() - it.base.vocab.keys() if len(piece) > 1]
        assert len(it.new.merges) > len(it.base.merges) + len(made), "no piece can be built in two ways"


@pytest.mark.parametrize("style", STYLES)
def test_the_native_library_gives_the_ids_of_transformers_for_whole_lines(pairs, style: str):
    from sentencepiece import SentencePieceProcessor

    it = pairs[style]
    native = SentencePieceProcessor(model_proto=it.written.content())
    expected = list(encode_all(it.new.tokenizer, LINES))
    found = [[it.new.pieces[native.IdToPiece(id)] for id in native.Encode(line)] for line in LINES]
    assert found == expected
    # the rule of the base's class: XLM-R's ids are the places plus one
    shift = 1 if style == "xlmr" else 0
    ordinary = {id for line in expected for id in line} - it.new.added.keys() - {it.new.unknown}
    assert all(native.IdToPiece(id - shift) == it.new.tokenizer.id_to_token(id) for id in ordinary)
    assert native.GetPieceSize() == it.written.proto.trainer_spec.vocab_size == len(it.written.pieces)


@pytest.mark.parametrize("style", STYLES)
def test_everything_else_in_the_file_stays(pairs, style: str):
    it = pairs[style]
    before, after = it.spm.proto, it.written.proto
    assert after.normalizer_spec == before.normalizer_spec
    assert after.trainer_spec.unk_id == before.trainer_spec.unk_id
    sizes = type(before.trainer_spec)()
    sizes.CopyFrom(after.trainer_spec)
    sizes.vocab_size = before.trainer_spec.vocab_size
    assert sizes == before.trainer_spec
    assert it.written.pieces[: len(it.spm.pieces)] == it.spm.pieces
    # samples that the trainer may have stored (field 4) have the old cut: they are not carried over
    sample = b"\x0a\x06\x0a\x01a\x12\x01b"
    stored = spm_model.SpmModel("x", "x", type(before).FromString(it.spm.content() + b"\x22\x08" + sample))
    assert sample in stored.content() and sample not in stored.replaced(stored.pieces).content()
    # `<mask>`, `<extra_id_0>`: what lies between old and new ids is a control piece
    between = it.written.pieces[len(it.spm.pieces) : it.fresh()[0]]
    assert len(between) == {"xlmr": 1, "t5": 5}.get(style, 0)
    assert all(piece.type == CONTROL and piece.text in it.new.added for piece in between)


@pytest.mark.parametrize("style", STYLES)
def test_new_pieces_that_take_over_ids_stand_in_their_places(pairs, style: str):
    """Modes reserved and same-size: the place of a piece that was given up has a new one, with a new score."""
    it = pairs[style]
    parts = {part for pair in it.base.merges for part in pair}
    names = [f"<unused{number}>" for number in range(20)] if style == "gemma" else []
    leaves = [piece.text for piece in it.spm.pieces if piece.type == NORMAL and len(piece.text) > 1]
    leaves = [text for text in leaves if text not in parts and it.spm.pieces[it.spm.places[text]].score > it.spm.lowest]
    taken = [Slot(it.base.pieces[text], text) for text in [*names, *leaves[-4:]]]
    grown = grow_into(it.base, taken, it.words, it.guard, Wish(size=len(taken), min_count=2), Progress())
    new = TokenizerFile(json.loads(grown.start.extended(grown.growth.merges)), "new")
    written = rewritten(it.spm, it.places, new)
    insist([spm_checks.pieces(it.spm, it.places, new, written), spm_checks.cuts(written, new, [*LINES, *ODD])])
    assert len(written.pieces) == len(it.spm.pieces) and len(grown.taken) == len(taken)
    for slot in taken:
        piece = written.pieces[slot.id - it.places.shift]
        assert piece.type == NORMAL and piece.text == new.tokenizer.id_to_token(slot.id) != slot.piece
        assert slot.piece not in written.places
    if style in BPE:
        assert not spm_checks.merges_kept(grown.start, new).broken


def changed(it: Pair, at: int, **what) -> SpmModel:
    pieces = list(it.written.pieces)
    pieces[at] = replace(pieces[at], **what)
    return it.written.replaced(pieces)


@pytest.mark.parametrize("style", ["llama", "xlmr"])
def test_the_checks_see_what_goes_wrong(pairs, style: str):
    it = pairs[style]
    fresh = it.fresh()
    pieces, written = list(it.written.pieces), it.written
    assert it.names(written) == set()

    zero = [replace(piece, score=0.0) if at in fresh else piece for at, piece in enumerate(pieces)]
    assert it.names(written.replaced(zero), [*LINES, *it.halves()]) == {"sentencepiece_pieces", "sentencepiece_cuts"}

    # scores of characters change nothing in BPE
    first, *_, last = (at for at in fresh if len(pieces[at].text) > 1)
    swapped = list(pieces)
    swapped[first] = replace(pieces[first], score=pieces[last].score)
    swapped[last] = replace(pieces[last], score=pieces[first].score)
    assert "sentencepiece_pieces" in it.names(written.replaced(swapped))

    missing = [piece for at, piece in enumerate(pieces) if at != fresh[3]]
    assert it.names(written.replaced(missing)) == {"sentencepiece_pieces", "sentencepiece_cuts"}

    stale = written.replaced(pieces)
    stale.proto.trainer_spec.vocab_size -= ADDED
    assert it.names(stale) == {"sentencepiece_pieces"}

    other = written.replaced(pieces)
    other.proto.normalizer_spec.add_dummy_prefix = False
    assert it.names(other) == {"sentencepiece_pieces"}

    assert "sentencepiece_pieces" in it.names(changed(it, fresh[0], type=CONTROL))
    assert "sentencepiece_pieces" in it.names(changed(it, fresh[0] - 30, score=-1.5))
    assert "sentencepiece_pieces" in it.names(written.replaced([*pieces, Piece("qqq", written.lowest - 1)]))


def test_a_unigram_score_below_the_old_minimum_is_seen(pairs):
    it = pairs["xlmr"]
    assert "sentencepiece_pieces" in it.names(changed(it, it.fresh()[0], score=it.spm.lowest - 1))


def test_merges_that_are_not_all_that_the_scores_imply_are_seen(pairs):
    it = pairs["llama"]
    plain = replace(it.base, ranks=None)
    growth = detect(plain).grow(it.words, it.guard, Wish(size=ADDED, min_count=5), Progress())
    new = TokenizerFile(json.loads(plain.extended(growth.merges)), "one merge a token")
    written = rewritten(it.spm, it.places, new)
    assert "of the merges that it implies" in str(spm_checks.pieces(it.spm, it.places, new, written).broken)
    assert spm_checks.merges_kept(it.base, new).broken and not spm_checks.merges_kept(it.base, it.new).broken


def test_all_splits_as_merges_cut_any_text_as_scores_do():
    """Made-up pieces that overlap in every way, half of them new: the native library is the oracle."""
    random = np.random.Generator(np.random.Philox(key=5))
    naive = 0
    for trial in range(60):
        letters = list("ab" if trial % 2 else "abcd")
        words = {"".join(random.choice(letters, size=random.integers(2, 6))) for _ in range(30)}
        picked = [str(word) for word in random.permutation(sorted(words))[:14]]
        old, new = [*picked[:7], *letters], picked[7:]
        ranks = {piece: rank for rank, piece in enumerate(old)}
        base = [(word[:at], word[at:]) for word in old for at in range(1, len(word))
                if word[:at] in ranks and word[at:] in ranks]  # fmt: skip
        first = [next(iter(splits(word, {*old, *new})), None) for word in new]
        native = _native([*old, *new])
        every = _bpe([*old, *new], with_every_split(base, new, ranks))
        one = _bpe([*old, *new], [*base, *(pair for pair in first if pair)])
        for _ in range(40):
            text = "".join(random.choice(letters, size=random.integers(2, 25)))
            expected = native.Encode(text)
            assert every.encode(text).ids == expected, ([*old, *new], text)
            naive += one.encode(text).ids != expected
    assert naive > 100, "one merge a token would do as well"


def _native(pieces: list[str]) -> Any:
    from sentencepiece import SentencePieceProcessor
    from sentencepiece import sentencepiece_model_pb2 as messages

    proto = messages.ModelProto()
    proto.trainer_spec.model_type = 2
    proto.pieces.add(piece="<unk>", type=spm_model.UNKNOWN)
    for rank, piece in enumerate(pieces):
        proto.pieces.add(piece=piece, score=-float(rank), type=NORMAL)
    content = SpmModel("it", "it", proto).without_normaliser().content()
    return SentencePieceProcessor(model_proto=content)


def _bpe(pieces: list[str], merges: list[tuple[str, str]]) -> Tokenizer:
    vocab = {piece: place for place, piece in enumerate(["<unk>", *pieces])}
    return Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True))


def test_every_split_of_new_and_old_pieces_is_a_merge_in_the_order_of_scores():
    ranks = {"ab": 0, "abcd": 1, "a": 2, "b": 3, "c": 4, "d": 5}
    found = with_every_split([("a", "b")], ["cd", "bcd"], ranks)
    assert found == [("a", "b"), ("a", "bcd"), ("ab", "cd"), ("c", "d"), ("b", "cd")]


def test_no_new_token_is_what_neighbours_in_a_protected_word_join_to(pairs):
    it = pairs["llama"]
    joined = {left + right for word in it.guard.words for left, right in _neighbours(it.base, word)}
    assert not joined & (it.new.vocab.keys() - it.base.vocab.keys())


def _neighbours(base: TokenizerFile, word: str) -> list[tuple[str, str]]:
    tokens = base.model_stage().encode(word, add_special_tokens=False).tokens
    return list(itertools.pairwise(tokens))


def left_out(folder: Path, base: TokenizerFile) -> str:
    notes: list[str] = []
    progress = Progress(lambda event: notes.append(event.text) if isinstance(event, Note) else None)
    same, companion = companion_of(folder, base, LINES, SimpleNamespace(progress=progress))
    assert companion is None and same is base and len(notes) == 1
    return notes[0]


def test_a_model_that_says_something_else_is_left_out_and_the_difference_named(pairs, tmp_path: Path):
    llama, xlmr = pairs["llama"], pairs["xlmr"]
    place = tmp_path / "tokenizer.model"

    def said(content: bytes, base: TokenizerFile) -> str:
        place.write_bytes(content)
        return left_out(tmp_path, base)

    pieces = list(llama.spm.pieces)
    assert "tokenizer.json lacks 1 of its pieces, such as 'qqq'" in said(
        llama.spm.replaced([*pieces, Piece("qqq", -999.0)]).content(), llama.base
    )
    assert "lacks 1 pieces of tokenizer.json" in said(llama.spm.replaced(pieces[:-1]).content(), llama.base)
    swapped = [*pieces[:-2], pieces[-1], pieces[-2]]
    assert "ids do not follow" in said(llama.spm.replaced(swapped).content(), llama.base)
    late = list(pieces)
    late[259] = replace(pieces[259], score=-900.0)
    assert "another order than the merges" in said(llama.spm.replaced(late).content(), llama.base)
    assert "it is unigram, tokenizer.json byte-fallback-bpe" in said(xlmr.spm.content(), llama.base)
    cut = TokenizerFile(
        llama.base.spec | {"model": llama.base.model | {"merges": llama.base.model["merges"][:-3]}}, "x"
    )
    assert "tokenizer.json lacks 3 of the merges" in said(llama.spm.content(), cut)
    scored = [replace(piece, score=piece.score - 0.5) if piece.type == NORMAL else piece for piece in xlmr.spm.pieces]
    assert "pieces have other scores" in said(xlmr.spm.replaced(scored).content(), xlmr.base)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "model type|no pieces"),
        (b"IQ== 0\nIg== 1\n", "is no SentencePiece model"),
        (b"\x0a\xff\xff\xff\xff\x0f", "is no SentencePiece model"),
        (b"\x0a\x03\x0a\x01a" * 2, "twice"),
        (b"\x0a\x0a\x0a\x01a\x15\x00\x00\xc0\x7f", "score nan|is no SentencePiece model"),
    ],
)
def test_bytes_that_are_no_sentencepiece_model_are_left_out(pairs, tmp_path: Path, content: bytes, why: str):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(DataError, match=why):
        spm_model.read(tmp_path / "tokenizer.model")
    assert "tokenizer.model is not written" in left_out(tmp_path, pairs["llama"].base)


def test_a_large_file_is_not_read(pairs, tmp_path: Path):
    with (tmp_path / "tokenizer.model").open("wb") as file:
        file.truncate(spm_model.MAX_BYTES + 1)
    assert "a file of this kind has at most" in left_out(tmp_path, pairs["llama"].base)


def test_the_step_writes_both_files(pairs, corpora: Path):
    artifact = langadapt.extend_vocab(
        out=corpora / "spm-new", model=pairs["llama"].folder, corpus=corpora / "hu", guard=[corpora / "en"], size=30
    )
    spm = spm_model.read(artifact.path / "tokenizer.model")
    record = json.loads((artifact.path / "checks.json").read_text(encoding="utf-8"))["checks"]
    assert artifact.facts["sentencepiece"] == "tokenizer.model"
    assert record["sentencepiece_pieces"] == {"examined": len(spm.pieces), "broken": 0, "examples": []}
    assert record["sentencepiece_cuts"]["broken"] == 0 and record["sentencepiece_cuts"]["examined"] > 100
    assert spm_checks.differences(spm, tokenizer_file.read(artifact.path), LINES) == []
