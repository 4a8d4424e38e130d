"""Tokenizers that were crafted or damaged (row 19): an error of ours, never a traceback, a panic or an abort.

The native part runs in a child process, so nothing here can take pytest down with it.
"""

import copy
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from langadapt.core.boundary import Panics
from langadapt.core.errors import DataError
from langadapt.core.validate import validate
from langadapt.core.verb import load, perform
from langadapt.model import tokenizer_check
from langadapt.model.load import load_tokenizer
from langadapt.model.token_table import TokenTable
from langadapt.model.tokenizer_check import check_tokenizer
from langadapt.vocab import tokenizer_file
from langadapt.vocab.family import detect
from langadapt.vocab.words import count_words
from tests.fixtures.fallback import fallback_tokenizer
from tests.fixtures.tiny import tiny_tokenizer

Spec = dict[str, Any]
TOKEN = {"id": 900, "content": "<x>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def split(pattern: str) -> Spec:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replace(content: str) -> Spec:
    return {"type": "Replace", "pattern": {"String": content}, "content": content * 4 or "xx"}


def first_id(spec: Spec, value: object) -> None:
    spec["model"]["vocab"][next(iter(spec["model"]["vocab"]))] = value


ATTACKS: dict[str, Callable[[Spec], object]] = {
    "no model": lambda spec: spec.update(model=None),
    "no vocabulary": lambda spec: spec["model"].update(vocab={}),
    "a vocabulary that is a list": lambda spec: spec["model"].update(vocab=[["a", 1]]),
    "an id that is text": lambda spec: first_id(spec, "0"),
    "an id that is no whole number": lambda spec: first_id(spec, 0.5),
    "an id below 0": lambda spec: first_id(spec, -1),
    "an id that is true": lambda spec: first_id(spec, True),
    "an id beyond 64 bits": lambda spec: first_id(spec, 2**70),
    "a merge of unknown pieces": lambda spec: spec["model"]["merges"].append(["qqq", "ttt"]),
    "a merge of three": lambda spec: spec["model"]["merges"].append(["a", "b", "c"]),
    "a merge that is a number": lambda spec: spec["model"]["merges"].append(5),
    "merges that are text": lambda spec: spec["model"].update(merges="abc"),
    "added tokens that are numbers": lambda spec: spec.update(added_tokens=[1]),
    "added tokens that are null": lambda spec: spec.update(added_tokens=None),
    "an added token without an id": lambda spec: spec.update(added_tokens=[{"content": "x"}]),
    "an empty added token": lambda spec: spec["added_tokens"].append(TOKEN | {"content": ""}),
    "two added tokens of one id": lambda spec: spec["added_tokens"].append(TOKEN | {"id": 7, "special": True}),
    "a pattern that is none": lambda spec: spec.update(pre_tokenizer=split("(")),
    "a pattern that gives up": lambda spec: spec["pre_tokenizer"]["pretokenizers"].insert(
        0, split("(x+x+)+y|([^q]*)*!(a|a?)+$")
    ),
    "an empty pattern to replace": lambda spec: spec.update(normalizer=replace("")),
    "a text that grows without end": lambda spec: spec.update(
        normalizer={"type": "Sequence", "normalizers": [replace("a")] * 40}
    ),
    "an unknown normaliser": lambda spec: spec.update(normalizer={"type": "Nope"}),
    "a broken character map": lambda spec: spec.update(
        normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    ),
    "a character map that aborts": lambda spec: spec.update(
        normalizer={"type": "Precompiled", "precompiled_charsmap": "/////wAAAAA="}
    ),
    "a template of unknown tokens": lambda spec: spec.update(
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "nope", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        }
    ),
    "pieces of length 0": lambda spec: spec["pre_tokenizer"]["pretokenizers"].append(
        {"type": "FixedLength", "length": 0}
    ),
    "another version": lambda spec: spec.update(version="9.9"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tiny")


@pytest.mark.parametrize("name", ATTACKS)
def test_a_crafted_tokenizer_is_refused(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what it takes to tell a rule that never ends from one that does
    monkeypatch.setattr(tokenizer_check, "_SECONDS", 2 if "without end" in name else 60)
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ATTACKS[name](spec)
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    for read in (tokenizer_file.read, TokenTable.from_folder, load_tokenizer):
        if read is load_tokenizer and name == "two added tokens of one id":
            continue  # transformers takes that, and extend-vocab and init-embeddings do not
        with pytest.raises(DataError) as refused:
            read(tmp_path)
        assert "Traceback" not in str(refused.value) and len(str(refused.value)) < 500


RAW = {
    "nothing": b"",
    "zeros": b"\0" * 1000,
    "a list": b"[]",
    "a hundred thousand levels": b"[" * 100_000,
    "a number of 5,000 digits": b'{"model": ' + b"9" * 5000 + b"}",
    "a lone surrogate": b'{"model": {"type": "BPE", "merges": [], "vocab": {"\\ud800": 0}}}',
}


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_are_no_tokenizer_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(RAW[name])
    for read in (tokenizer_file.read, TokenTable.from_folder, load_tokenizer):
        with pytest.raises(DataError):
            read(tmp_path)


def damaged(whole: bytes, moments: random.Random) -> bytes:
    """One to five bytes flipped, cut out, doubled or replaced; half of them where the rules stand, not the merges."""
    bad = bytearray(whole)
    for _ in range(moments.choice([1, 1, 2, 5])):
        at = moments.randrange(min(len(bad), 2600) if moments.random() < 0.5 else len(bad))
        match moments.randrange(4):
            case 0:
                bad[at] ^= 1 << moments.randrange(8)
            case 1:
                del bad[at : at + moments.randrange(1, 8)]
            case 2:
                bad[at:at] = bad[at : at + 16]
            case _:
                bad[at] = moments.choice(b'0123456789"-[]{},')
    return bytes(bad)


@pytest.mark.parametrize("kind", ["byte-bpe", "byte-fallback-bpe"])
def test_a_damaged_tokenizer_is_read_or_refused(tmp_path: Path, folder: Path, kind: str) -> None:
    """A hundred damaged files of each family through what extend-vocab and init-embeddings read."""
    base = folder if kind == "byte-bpe" else fallback_tokenizer(tmp_path / "base")
    whole = (base / "tokenizer.json").read_bytes()
    moments = random.Random(f"{kind}-20261126")
    places = [tmp_path / str(number) for number in range(100)]
    for place in places:
        place.mkdir()
        (place / "tokenizer.json").write_bytes(damaged(whole, moments))

    def look(place: Path) -> None:
        with suppress(DataError):
            check_tokenizer(place)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, places))
    ended: Counter[str] = Counter()
    for place in places:
        try:
            with Panics():
                file = tokenizer_file.read(place)
                detect(file)
                count_words(file, ["Ez a 3. mondat, első.", "a b"])
                TokenTable.from_folder(place)
            ended["read"] += 1
        except DataError:
            ended["refused"] += 1
    assert ended["refused"] > 20 and sum(ended.values()) == 100


def test_a_rule_that_fails_on_the_text_alone_is_an_input_error(tmp_path: Path, folder: Path) -> None:
    """The texts that are tried cannot find everything: a panic in the middle of the work is exit 3 as well."""
    model = Path(shutil.copytree(folder, tmp_path / "model"))
    (model / "config.json").write_text('{"model_type": "llama", "vocab_size": 400}')
    spec = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    bad = copy.deepcopy(spec)
    bad["pre_tokenizer"]["pretokenizers"].insert(0, split("(x+x+)+y"))
    (model / "tokenizer.json").write_text(json.dumps(bad), encoding="utf-8")
    corpus = tmp_path / "text.txt"
    corpus.write_text("x" * 60 + "\n", encoding="utf-8")
    verb = load("extend-vocab")
    config = validate(verb.config, {"model": str(model), "corpus": str(corpus), "size": 5, "min_count": 1})
    with pytest.raises(DataError, match="gave up on this input"):
        perform(verb, config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_good_tokenizer_is_tried_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_tokenizer(folder)
    monkeypatch.setattr(tokenizer_check, "run_child", lambda *given, **more: pytest.fail("tried again"))
    check_tokenizer(folder)
