"""Folders with a SentencePiece `.model`: without tokenizer.json, trimmed, and where the new one cannot have it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import langadapt
from langadapt.core.progress import Note, Progress
from langadapt.model import spm_model, spm_only
from langadapt.model.load import load_tokenizer, resolve_tokenizer
from langadapt.vocab import spm_checks, tokenizer_file
from langadapt.vocab.checks import fuzz_texts
from langadapt.vocab.renumber import in_order, renumbered
from langadapt.vocab.spm_file import Places, rewritten
from langadapt.vocab.tokenizer_file import TokenizerFile
from langadapt.vocab.trimming import trim
from langadapt.vocab.words import count_words
from tests.contract.test_vocab_sets import corpora as corpora
from tests.contract.test_vocab_surgery import ENGLISH, HUNGARIAN
from tests.fixtures.spm import spm_only as folder_without_json
from tests.fixtures.spm import spm_tokenizer

pytest.importorskip("sentencepiece")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGADAPT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def xlmr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spm_tokenizer(tmp_path_factory.mktemp("spm") / "xlmr", "xlmr", ENGLISH.splitlines(), size=90)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = spm_tokenizer(tmp_path_factory.mktemp("spm") / "llama", "llama", ENGLISH.splitlines(), size=440)
    config = LlamaConfig(
        vocab_size=440, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    with torch.random.fork_rng(devices=[]):
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_model_alone_is_seen_with_the_tokenizer_json_that_transformers_makes(llama: Path, tmp_path: Path):
    given = folder_without_json(tmp_path / "llama", "llama", ENGLISH.splitlines(), size=440)
    before = sorted((path.name, path.read_bytes()) for path in given.iterdir())
    notes: list[str] = []
    progress = Progress(lambda event: notes.append(event.text) if isinstance(event, Note) else None)
    seen = resolve_tokenizer(str(given), progress)
    assert seen != given and sorted(path.name for path in seen.iterdir()) == sorted(
        [*(name for name, _ in before), "tokenizer.json"]
    )
    assert tokenizer_file.read(seen).pieces == tokenizer_file.read(llama).pieces
    assert load_tokenizer(seen)("the house")["input_ids"] == load_tokenizer(llama)("the house")["input_ids"]
    assert sorted((path.name, path.read_bytes()) for path in given.iterdir()) == before
    assert resolve_tokenizer(str(given), progress) == seen and len(notes) == 1
    # other content is another folder
    (given / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "legacy": true}')
    assert resolve_tokenizer(str(given), progress) != seen


def test_folders_that_are_not_of_this_kind_are_given_back(llama: Path, tmp_path: Path):
    assert spm_only.with_tokenizer_json(llama) == llama
    assert spm_only.with_tokenizer_json(tmp_path) == tmp_path
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    assert spm_only.with_tokenizer_json(tmp_path) == tmp_path


def test_two_that_make_the_same_folder_at_once_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given = folder_without_json(tmp_path / "llama", "llama", ENGLISH.splitlines(), size=440)
    first = resolve_tokenizer(str(given))
    content = (first / "tokenizer.json").read_text(encoding="utf-8")

    def slow(folder: Path) -> str:
        # the other one finishes while this one converts
        (first.parent / "aside").rename(first)
        return content

    first.rename(first.parent / "aside")
    monkeypatch.setattr(spm_only, "_converted", slow)
    assert resolve_tokenizer(str(given)) == first
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_a_model_alone_is_extended_and_both_files_reach_the_model(llama: Path, corpora: Path):
    given = folder_without_json(corpora / "alone", "llama", ENGLISH.splitlines(), size=440)
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copyfile(llama / name, given / name)
    artifact = langadapt.extend_vocab(
        out=corpora / "alone-new", model=given, corpus=corpora / "hu", guard=[corpora / "en"], size=20
    )
    assert artifact.facts["sentencepiece"] == "tokenizer.model" and artifact.facts["added"] == 20
    written = spm_model.read(artifact.path / "tokenizer.model")
    assert len(written.pieces) == artifact.facts["vocabulary_after"]
    adapted = langadapt.init_embeddings(out=corpora / "alone-model", model=given, tokenizer=artifact.path)
    assert json.loads((adapted.path / "config.json").read_text(encoding="utf-8"))["vocab_size"] == 460
    for name in ("tokenizer.json", "tokenizer.model"):
        assert (adapted.path / name).read_bytes() == (artifact.path / name).read_bytes()


def trimmed(folder: Path, text: str):
    base, spm = tokenizer_file.read(folder), spm_model.read(spm_model.find(folder))
    found = trim(base, count_words(base, text.splitlines()), {}, min_count=1)
    new = TokenizerFile(renumbered(base, in_order(set(found.kept))), "trimmed")
    return spm, Places.of(spm, base), new


@pytest.mark.parametrize("style", ["llama", "xlmr"])
def test_a_trimmed_model_has_the_kept_pieces_with_their_scores(request: pytest.FixtureRequest, style: str):
    spm, places, new = trimmed(request.getfixturevalue(style), "the river runs below the houses\n")
    written = rewritten(spm, places, new)
    texts = [
        *ENGLISH.splitlines()[:9],
        *HUNGARIAN.splitlines()[:9],
        *(text for text in fuzz_texts([]) if len(text) < 99),
    ]
    assert len(written.pieces) == len(new.pieces) - (2 if style == "xlmr" else 0) < len(spm.pieces)
    assert not spm_checks.pieces(spm, places, new, written).broken
    assert not spm_checks.cuts(written, new, texts).broken
    # the order of the old file is not the new one's, and a piece that went may not stay
    assert spm_checks.pieces(spm, places, new, spm).broken
    pieces = list(written.pieces)
    pieces[-1], pieces[-2] = pieces[-2], pieces[-1]
    assert spm_checks.pieces(spm, places, new, written.replaced(pieces)).broken
    pieces = [*written.pieces[:-1], replace(written.pieces[-1], score=1.0)]
    assert spm_checks.pieces(spm, places, new, written.replaced(pieces)).broken


def test_roles_follow_when_their_ids_move(llama: Path):
    spm = spm_model.read(spm_model.find(llama))
    moved = spm.replaced([spm.pieces[2], *spm.pieces[3:], spm.pieces[0]])
    spec = moved.proto.trainer_spec
    assert (spec.eos_id, spec.unk_id, spec.bos_id) == (0, len(moved.pieces) - 1, -1)


def test_trim_vocab_writes_the_model_and_train_tokenizer_says_why_not(llama: Path, corpora: Path):
    artifact = langadapt.trim_vocab(out=corpora / "trimmed", model=llama, corpora=[corpora / "hu"])
    assert artifact.facts["sentencepiece"] == "tokenizer.model"
    assert len(spm_model.read(artifact.path / "tokenizer.model").pieces) == artifact.facts["vocabulary_after"]
    notes: list[str] = []
    fresh = langadapt.train_tokenizer(
        out=corpora / "fresh",
        model=llama,
        corpora=[corpora / "hu"],
        size=300,
        listener=lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    assert not list(fresh.path.glob("*.model")) and any("tokenizer.model is not written" in note for note in notes)
