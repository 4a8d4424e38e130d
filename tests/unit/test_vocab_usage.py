"""What a tokenizer makes of a text, against slow and obvious counts, for every family."""

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from langadapt.steps.tokenizers import compare, decode, encode, open_tokenizer
from langadapt.vocab.usage import compared, measure, renyi_efficiency, tokens_of_words
from tests.fixtures.families import FAMILIES, family_tokenizer

TEXTS = [
    "az öreg ház a folyó partján áll, és a gyerekek reggel iskolába mennek",
    "  két\u00a0szó\n\nэто старый дом 🙂 ▁ the house\tstands ",
    "",
    "Ø x",
]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("families")
    return {family: open_tokenizer(family_tokenizer(folder / family, family)) for family in FAMILIES}


def test_renyi_against_the_definition() -> None:
    random = np.random.Generator(np.random.Philox(key=3))
    for alpha in (0.5, 2.0, 2.5, 3.0):
        counts = random.integers(0, 50, size=30)
        total = sum(map(int, counts))
        power = sum((int(count) / total) ** alpha for count in counts if count)
        expected = 1 / (1 - alpha) * math.log2(power) / math.log2(64)
        found = renyi_efficiency(counts, 64, alpha)
        assert found is not None and abs(found - expected) < 1e-12
    assert renyi_efficiency(np.full(64, 3), 64) == pytest.approx(1.0), "all tokens equally often"
    assert renyi_efficiency(np.array([5, 0, 0]), 3) == 0.0, "one token again and again"
    assert renyi_efficiency(np.zeros(4, dtype=np.int64), 4) is None and renyi_efficiency(np.array([4]), 1) is None
    shannon = -sum(share * math.log2(share) for share in (0.5, 0.25, 0.25)) / 2
    assert renyi_efficiency(np.array([2, 1, 1]), 4, 1.0001) == pytest.approx(shannon, abs=1e-3), "its limit"


@pytest.mark.parametrize("family", FAMILIES)
def test_words_against_a_slow_oracle(tokenizers: dict[str, Any], family: str) -> None:
    raw = tokenizers[family].backend_tokenizer
    raw.no_truncation()
    for text in TEXTS:
        encoding = raw.encode(text, add_special_tokens=False)
        expected, start = [], 0
        for word in text.split():
            start = text.index(word, start)
            holds = [
                at
                for at, (first, last) in enumerate(encoding.offsets)
                if set(range(first, last)) & set(range(start, start + len(word)))
            ]
            expected.append((word, holds))
            start += len(word)
        found = [(word, list(range(first, last))) for word, first, last in tokens_of_words(text, encoding.offsets)]
        assert found == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_figures_against_slow_counts(tokenizers: dict[str, Any], family: str) -> None:
    tokenizer = tokenizers[family]
    raw = tokenizer.backend_tokenizer
    raw.no_truncation()
    # the tokenizer of a file shows what an unknown token stands for, not its name: hence the way over the ids
    pieces = [raw.id_to_token(id) for text in TEXTS for id in raw.encode(text, add_special_tokens=False).ids]
    raw.enable_truncation(8)  # as its file has it
    figures = measure(tokenizer, TEXTS).figures()
    counts, size = Counter(pieces), len(tokenizer.get_vocab())
    words = [word for text in TEXTS for word in text.split()]
    assert (figures["documents"], figures["tokens"], figures["words"]) == (4, len(pieces), len(words))
    assert figures["bytes_per_token"] == pytest.approx(
        sum(len(text.encode()) for text in TEXTS) / len(pieces), abs=1e-6
    )
    assert figures["tokens_per_word"] == pytest.approx(len(pieces) / len(words), abs=1e-6)
    assert (figures["used_tokens"], figures["vocabulary"]) == (len(counts), size)
    assert figures["used_share"] == pytest.approx(len(counts) / size, abs=1e-6)
    power = sum((count / len(pieces)) ** 2.5 for count in counts.values())
    assert figures["renyi_efficiency"] == pytest.approx(math.log2(power) / -1.5 / math.log2(size))
    assert figures["renyi_efficiency_of_used"] == pytest.approx(math.log2(power) / -1.5 / math.log2(len(counts)))
    unknown = tokenizer.unk_token
    assert figures["unknown_share"] == pytest.approx(counts[unknown] / len(pieces), abs=1e-6)
    assert (counts[unknown] > 0) == (family in ("unigram", "wordpiece")), "the text holds what they cannot spell"
    share = figures["byte_tokens_share"]
    if family in ("gemma", "llama"):
        assert (
            share == pytest.approx(sum(piece.startswith("<0x") for piece in pieces) / len(pieces), abs=1e-6)
            and share > 0
        )
    elif family == "byte-bpe":
        alphabet = {letter: byte for byte, letter in alphabet_of_gpt2().items()}
        cut = [piece for piece in pieces if not is_text(bytes(alphabet[letter] for letter in piece))]
        assert share == pytest.approx(len(cut) / len(pieces), abs=1e-6) and share > 0
    else:
        assert share is None


def alphabet_of_gpt2() -> dict[int, str]:
    """The table as its authors built it: printable Latin-1 stays, the rest moves to 256 and on."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in keep]
    return {byte: chr(byte) for byte in keep} | {byte: chr(256 + at) for at, byte in enumerate(rest)}


def is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_words_in_two_or_more_tokens(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["byte-bpe"]
    figures = measure(tokenizer, ["a the zzz"]).figures()
    broken = sum(len(tokenizer.tokenize(word)) > 1 for word in ("a", " the", " zzz"))
    assert figures["continued_words_share"] == pytest.approx(broken / 3, abs=1e-6) and broken > 0


def test_scripts_without_spaces_have_no_words(tokenizers: dict[str, Any]) -> None:
    figures = measure(tokenizers["byte-bpe"], ["老房子在河边。", "ok 孩子们早上去学校"]).figures()
    assert figures["unspaced_script"] and figures["tokens"] > 0
    assert figures["words"] is figures["tokens_per_word"] is figures["continued_words_share"] is None


def test_two_tokenizers(tokenizers: dict[str, Any]) -> None:
    texts = ["ház\nxy", "zxq zxq zxq ház"]
    one, other = tokenizers["byte-bpe"], tokenizers["wordpiece"]
    usages = [measure(item, texts, by_word=True) for item in (one, other)]
    keys = [item.convert_ids_to_tokens(list(range(len(item)))) for item in (one, other)]
    same = compared(usages[0], usages[0], texts, keys[0], keys[0])
    assert (same["documents_same_ids"], same["lines_same_ids"], same["changed_words"]) == (1.0, 1.0, [])
    found = compared(usages[0], usages[1], texts, *keys)
    assert found["documents_same_ids"] == found["lines_same_ids"] == 0.0
    changes = [(abs(word["tokens"][0] - word["tokens"][1]), word["word"]) for word in found["changed_words"]]
    assert changes and changes == sorted(changes, key=lambda item: (-item[0], item[1]))
    assert {word["word"]: word["count"] for word in found["changed_words"]}.items() <= Counter(
        " ".join(texts).split()
    ).items()
    for word in found["changed_words"]:
        assert word["pieces"][0].replace("|", "") == word["word"] or "·" in word["pieces"][0]
        assert word["pieces"][1] == "[UNK]", "what is not known is shown so"


def test_tokens_are_compared_whatever_their_ids(tmp_path: Path) -> None:
    base = family_tokenizer(tmp_path / "base", "byte-bpe")
    file = "tokenizer.json"
    spec = json.loads((base / file).read_text(encoding="utf-8"))
    vocab, size = spec["model"]["vocab"], len(spec["model"]["vocab"])
    specials = {token["content"] for token in spec["added_tokens"]}
    moved = {piece: (id + 7) % size for piece, id in vocab.items()}
    spec["model"]["vocab"] = moved
    spec["added_tokens"] = [token | {"id": moved[token["content"]]} for token in spec["added_tokens"]]
    shutil.copytree(base, tmp_path / "moved")
    (tmp_path / "moved" / file).write_text(json.dumps(spec), encoding="utf-8")
    one, other = open_tokenizer(base), open_tokenizer(tmp_path / "moved")
    text = f"the old house {sorted(specials)[0]}\nház"
    found = compare(one, other, [text])
    assert (found["documents_same_tokens"], found["lines_same_tokens"]) == (1.0, 1.0)
    assert (found["documents_same_ids"], found["lines_same_ids"], found["new_tokens"]) == (0.0, 0.0, 0)
    # another family: `▁the` and `Ġthe` are one token
    gemma = open_tokenizer(family_tokenizer(tmp_path / "gemma", "gemma"))
    again = compare(one, gemma, ["x the", "x"])
    assert again["documents_same_tokens"] == 1.0 and again["documents_same_ids"] == 0.0
    spellings = {piece.replace("▁", "Ġ") for piece in gemma.get_vocab()} - set(one.get_vocab())
    assert 0 < again["new_tokens"] < len(spellings)


def test_a_family_that_nothing_reads_is_compared_by_strings(tmp_path: Path) -> None:
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"az": 0, "ház": 5, "?": 1}, "?")))
    found = compare(words, words, ["az"])
    assert (found["documents_same_tokens"], found["new_tokens"]) == (1.0, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_and_back(tokenizers: dict[str, Any], family: str) -> None:
    tokenizer = tokenizers[family]
    text = "the old house stands by the river"
    pieces = encode(tokenizer, text)
    assert [piece.id for piece in pieces] == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert decode(tokenizer, [piece.id for piece in pieces]).strip() == text
    assert [tokenizer.convert_tokens_to_ids(piece.piece) for piece in pieces] == [piece.id for piece in pieces]


def test_layouts_that_are_opened(tmp_path: Path) -> None:
    """A lone tokenizer.json, a folder with nothing else, and the vocabulary of a WordPiece without one."""
    folder = family_tokenizer(tmp_path / "full", "wordpiece")
    expected = encode(open_tokenizer(folder), "the river ház")
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    for place in (bare, bare / "tokenizer.json"):
        assert encode(open_tokenizer(place), "the river ház") == expected
    old = tmp_path / "old"
    old.mkdir()
    vocabulary = open_tokenizer(folder).get_vocab()
    (old / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=lambda piece: vocabulary[piece])) + "\n", "utf-8")
    (old / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": false}')
    assert [piece.piece for piece in encode(open_tokenizer(old), "the river ház")] == [
        piece.piece for piece in expected
    ]
