"""One change of a vocabulary after another: kept tokens keep bytes and rows, maps compose, protected text is kept."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import langadapt
from langadapt.core.artifact import Artifact
from langadapt.core.errors import DataError
from langadapt.model.matching import match
from langadapt.model.tables import open_tables
from langadapt.model.token_keys import token_keys
from langadapt.model.token_table import TokenTable
from langadapt.vocab.tokenizer_file import encode_all, read
from tests.contract.test_vocab_modes import GERMAN, GREEK, RUSSIAN
from tests.contract.test_vocab_surgery import ENGLISH, HUNGARIAN
from tests.fixtures.growing import prepared_lines
from tests.fixtures.pieces import wordpiece_tokenizer
from tests.fixtures.spm import spm_tokenizer
from tests.fixtures.tiny import tiny_model

TEXT = (ENGLISH + GERMAN + RUSSIAN).splitlines()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("chains")
    for lang, text in (("hu", HUNGARIAN), ("en", ENGLISH), ("el", GREEK)):
        prepared_lines(place, lang, text)
    return place


@dataclass
class Walk:
    """A model on its way; `kept` says which of its tokens is which of the first one's."""

    texts: Path
    place: Path
    start: Path
    models: list[Path] = field(default_factory=list)
    kept: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.models.append(self.start)
        first = TokenTable.from_folder(self.start)
        self.kept = {id: id for id in range(first.size) if first.kind_of(id) != "hole"}
        self.weights = (self.start / "model.safetensors").is_file()

    @property
    def now(self) -> Path:
        return self.models[-1]

    def extend(self, lang: str, size: int, **more: Any) -> Artifact:
        """New tokens, English protected (and Hungarian from Greek, which came before)."""
        guard = [self.texts / "en", *([self.texts / "hu"] if lang == "el" else [])]
        given = {"corpus": self.texts / lang, "guard": guard, "size": size, **more}
        return self._follow(partial(langadapt.extend_vocab, model=self.now, **given))

    def trim(self) -> Artifact:
        """Without what English, Hungarian and Greek do not use."""
        corpora = [self.texts / lang for lang in ("en", "hu", "el")]
        return self._follow(partial(langadapt.trim_vocab, model=self.now, corpora=corpora))

    def fresh(self, **more: Any) -> Artifact:
        """A tokenizer trained anew; what follows is compared with this model."""
        corpora, number = [self.texts / "en", self.texts / "hu"], len(self.models)
        given = {"corpora": corpora, "size": 400, "min_count": 2, **more}
        made = langadapt.train_tokenizer(out=self.place / f"tokenizer-{number}", model=self.now, **given)
        before, after = open_rows(self.now), TokenTable.from_folder(self.now)
        found = match(after, TokenTable.from_folder(made.path), base_rows=read_rows(self.now))
        self.start = self._model(made.path, number, found.new_rows)
        if before is not None and (rows := open_rows(self.start)) is not None:
            olds, ids = zip(*found.kept.items(), strict=True)
            assert torch.equal(before[list(olds)], rows[list(ids)])
        self.models.append(self.start)
        first = TokenTable.from_folder(self.start)
        self.kept = {id: id for id in range(first.size) if first.kind_of(id) != "hole"}
        return made

    def _follow(self, make: Callable[..., Artifact]) -> Artifact:
        number = len(self.models)
        made = make(out=self.place / f"tokenizer-{number}")
        for fact in ("guarded_types_changed", "unreachable", "words_changed"):
            assert not made.facts.get(fact)
        before = self.now
        base, new = TokenTable.from_folder(before), TokenTable.from_folder(made.path)
        rows = read_rows(before)
        found = match(base, new, base_rows=rows)
        assert all(
            (base.kind_of(old), base.bytes_of(old)) == (new.kind_of(id), new.bytes_of(id))
            for old, id in found.kept.items()
        )
        self.models.append(self._model(made.path, number, found.new_rows))
        self.kept = {first: found.kept[id] for first, id in self.kept.items() if id in found.kept}
        self._check()
        return made

    def _model(self, tokenizer: Path, number: int, rows: int) -> Path:
        """With rows where there are weights; else the folder and its config, of which only the size is read."""
        folder = self.place / f"model-{number}"
        if self.weights:
            return langadapt.init_embeddings(out=folder, model=self.now, tokenizer=tokenizer).path
        shutil.copytree(tokenizer, folder, ignore=shutil.ignore_patterns("artifact.json", "run.json", "*.jsonl"))
        config = json.loads((self.start / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows}), encoding="utf-8")
        return folder

    def _check(self) -> None:
        """From the first model to this one."""
        first, last = TokenTable.from_folder(self.start), TokenTable.from_folder(self.now)
        for old, id in self.kept.items():
            assert (first.kind_of(old), first.piece(old)) == (last.kind_of(id), last.piece(id))
        keys = token_keys(first, last)
        lines = ENGLISH.splitlines()[:3]
        cut = [encode_all(read(model).tokenizer, lines) for model in (self.start, self.now)]
        for before, after in zip(*cut, strict=True):
            assert [keys[0][id] for id in before] == [keys[1][id] for id in after]
            assert [self.kept[id] for id in before] == after
        if self.weights:
            olds, ids = zip(*self.kept.items(), strict=True)
            before, after = open_rows(self.start), open_rows(self.now)
            assert before is not None and after is not None
            assert torch.equal(before[list(olds)], after[list(ids)])


def open_rows(model: Path) -> torch.Tensor | None:
    """The input table, where there are weights."""
    return open_tables(model).read_input() if (model / "model.safetensors").is_file() else None


def with_weights(folder: Path, style: str, size: int) -> Path:
    """A Llama or T5 with random weights on a tokenizer that has its `.model`."""
    from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

    spm_tokenizer(folder, style, TEXT, size=size)
    rows = read_rows(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if style == "t5":
            roles = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
            small = T5Config(vocab_size=rows, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, **roles)
            T5ForConditionalGeneration(small).save_pretrained(folder)
        else:
            wide = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
            LlamaForCausalLM(LlamaConfig(vocab_size=rows, **wide)).save_pretrained(folder)
    return folder


def read_rows(model: Path) -> int:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return int(config["vocab_size"])


def test_byte_bpe_and_its_rows(texts: Path, tmp_path: Path) -> None:
    walk = Walk(texts, tmp_path, tiny_model(tmp_path / "start", padded_rows=6))
    made = [walk.extend("hu", 12), walk.extend("el", 5, mode="same-size"), walk.trim()]
    assert [artifact.facts["added"] for artifact in made] == [12, 5, 0]


@pytest.mark.parametrize(("style", "size"), [("gemma", 520), ("xlmr", 260)])
def test_sentencepiece_and_its_model_file(style: str, size: int, texts: Path, tmp_path: Path) -> None:
    walk = Walk(texts, tmp_path, spm_tokenizer(tmp_path / "start", style, TEXT, size=size))
    made = [walk.extend("hu", 12), walk.trim()]
    assert all(artifact.facts["sentencepiece"] for artifact in made), "each result has the .model, which was compared"


def test_llama_with_its_rows_trimmed_extended_and_trained_anew(texts: Path, tmp_path: Path) -> None:
    walk = Walk(texts, tmp_path, with_weights(tmp_path / "start", "llama", 440))
    made = [walk.trim(), walk.extend("hu", 12)]
    assert all(artifact.facts["sentencepiece"] == "tokenizer.model" for artifact in made)
    assert walk.fresh().facts["family"] == "byte-bpe" and not list(walk.now.glob("*.model"))
    made = [walk.extend("el", 6), walk.trim()]
    assert made[0].facts["added"] == 6 and not any(artifact.facts.get("sentencepiece") for artifact in made)


def test_t5_with_its_rows_through_every_mode(texts: Path, tmp_path: Path) -> None:
    walk = Walk(texts, tmp_path, with_weights(tmp_path / "start", "t5", 260))
    named = {"mode": "reserved", "reserved_pattern": "<extra_id_[0-9]+>"}
    made = [walk.extend("hu", 12), walk.extend("el", 3, **named), walk.trim(), walk.extend("hu", 2, **named)]
    assert [artifact.facts["added"] for artifact in made] == [12, 3, 0, 2]
    assert all(artifact.facts["sentencepiece"] == "spiece.model" for artifact in made)
    assert walk.fresh(family="same").facts["family"] == "unigram"
    assert walk.extend("el", 6).facts["added"] == 6


def test_word_pieces_and_what_was_made_for_another_link_of_the_chain(texts: Path, tmp_path: Path) -> None:
    walk = Walk(texts, tmp_path, wordpiece_tokenizer(tmp_path / "start", TEXT, size=330))
    first, second, third = walk.extend("hu", 8), walk.extend("el", 6), walk.trim()
    size = TokenTable.from_folder(walk.now).size
    fourth = walk.extend("hu", 4, min_count=2)
    assert [made.facts["added"] for made in (first, second, third, fourth)] == [8, 6, 0, 4]
    assert TokenTable.from_folder(walk.now).size == size + 4
    start = TokenTable.from_folder(walk.start)
    assert len(match(start, TokenTable.from_folder(first.path), base_rows=start.size).new_tokens) == 8
    for later in (second, third, fourth):
        with pytest.raises(DataError, match="made for another model"):
            match(start, TokenTable.from_folder(later.path), base_rows=start.size)
    with pytest.raises(DataError, match="no id to give"):
        walk.extend("el", 4, mode="reserved")
    with pytest.raises(DataError, match="tokenizer"):
        langadapt.extend_vocab(out=tmp_path / "x", model=first.path, corpus=texts / "hu", guard=[texts / "en"])
