"""Counting by chunks gives the counts of the pre-tokenizer on whole texts; unknown pre-tokenizers are left alone."""

import json
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from langadapt.vocab import chunks
from langadapt.vocab.tokenizer_file import TokenizerFile, encode_all
from langadapt.vocab.words import WordCounter

LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
PLAIN = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
DIGITS = pre_tokenizers.Digits(individual_digits=True)


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated", invert=False), PLAIN])


KNOWN = {
    "gpt2": LEVEL,
    "smollm2": pre_tokenizers.Sequence([DIGITS, LEVEL]),
    "llama3": split(chunks._KNOWN_PATTERNS[0]),
    "qwen2": split(chunks._KNOWN_PATTERNS[1]),
}
OTHERS = {
    "prefix": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "no regex": PLAIN,
    "another pattern": split(r"\p{L}+ \p{L}+|."),
    "words": pre_tokenizers.Whitespace(),
    "metaspace": pre_tokenizers.Metaspace(),
}


def file_of(pre_tokenizer: pre_tokenizers.PreTokenizer, normaliser: normalizers.Normalizer | None = None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.pre_tokenizer = pre_tokenizer
    if normaliser is not None:
        tokenizer.normalizer = normaliser
    return TokenizerFile(json.loads(tokenizer.to_str()), "tokenizer.json")


FILES = {name: file_of(one) for name, one in KNOWN.items()}
FILES["nfc"] = file_of(KNOWN["qwen2"], normalizers.NFC())

# what stands around spaces in text and what engines disagree about: line ends, no-break, ideographic and control blanks
pieces = st.sampled_from(
    [
        *(
            "a",
            "Ház",
            "e\u0301",
            "\u0301",
            "12",
            "3",
            ".",
            ",",
            "'s",
            "'S",
            '"',
            "(",
            ")",
            "!?",
            "-",
            "_",
            "語",
            "ก็",
            "½",
        ),
        *(" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\x1c", "\x85", "\u200d", "²", "<|end|>", "<", "|"),
    ]
)
texts = st.lists(pieces, max_size=24).map("".join)


@pytest.mark.parametrize("name", list(FILES))
@settings(max_examples=150, deadline=None)
@given(parts=st.lists(texts, max_size=4))
@example(parts=["a b", "b a b", " a b ", "a  b 12 3. It's x\n y", "a<|end|> b c b"])
def test_counts_are_those_of_whole_texts(name: str, parts: list[str]):
    counter, expected = WordCounter(FILES[name]), Counter[str]()
    assert counter._in_chunks
    for number, text in enumerate(parts):
        counter.add(text)
        expected.update(counter.words(text))
        if number == 1:  # asked in between
            assert counter.counts == expected
    assert counter.counts == expected and counter.counts == expected


@pytest.mark.parametrize("name", list(OTHERS))
def test_other_pre_tokenizers_see_whole_texts(name: str):
    assert not WordCounter(file_of(OTHERS[name]))._in_chunks
    assert not WordCounter(file_of(LEVEL, normalizers.NFKC()))._in_chunks


def test_long_texts_are_cut_in_small_batches_with_the_same_result() -> None:
    """What the library gives back takes 50 times the text: a thousand documents at once took more than all else."""
    sizes: list[tuple[int, int]] = []

    class Cutter:
        def encode_batch_fast(self, texts: list[str], *, add_special_tokens: bool) -> list[SimpleNamespace]:
            sizes.append((len(texts), sum(map(len, texts))))
            return [SimpleNamespace(ids=[len(text)]) for text in texts]

    texts = ["a" * length for length in (*range(50_000, 50_040), 900_000, 3, *[1] * 5000, 0)]
    assert list(encode_all(cast(Any, Cutter()), texts, batch=1000)) == [[len(text)] for text in texts]
    assert all(count <= 1000 and (size <= 1 << 18 or count == 1) for count, size in sizes)
    assert len(sizes) < 20 and list(encode_all(cast(Any, Cutter()), [])) == []
