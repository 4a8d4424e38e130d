"""Tokenizers laid out as those of well-known models, trained on given text: what vocab_families.py extends.

Only the layout is theirs (pre-tokenizer, options, reserved tokens, post-processor); vocabulary and merges come from the
text, so figures say what happens to this kind of tokenizer and nothing about the named model.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tests.fixtures.fallback import fallback_spec
from tests.fixtures.pieces import unigram_spec, wordpiece_spec

SIZE = 16_000
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def _byte_level(texts: Sequence[str], specials: Sequence[str], *, llama3: bool) -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE(ignore_merges=llama3))
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not llama3)
    split = pre_tokenizers.Split(Regex(_LLAMA3), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, whole]) if llama3 else whole
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    spec: dict[str, Any] = json.loads(tokenizer.to_str())
    # behind the vocabulary and named in the list only, as in the files of Llama 3 (GPT-2 names its one token in both)
    first = len(spec["model"]["vocab"])
    spec["added_tokens"] = [{"id": first + at, "content": text, **_FLAGS} for at, text in enumerate(specials)]
    if llama3:
        begin = [(specials[0], first)]
        template = processors.TemplateProcessing(
            single=f"{specials[0]} $A", pair=f"{specials[0]} $A {specials[0]}:1 $B:1", special_tokens=begin
        )
        ready = Tokenizer.from_str(json.dumps(spec))
        ready.post_processor = template
        spec = json.loads(ready.to_str())
    return spec


def gpt2(texts: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """One special token, the pre-tokenizer that the library has built in."""
    end = "<|endoftext|>"
    return _byte_level(texts, [end], llama3=False), {"bos_token": end, "eos_token": end, "unk_token": end}


def llama3(texts: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`ignore_merges`, a regular expression of its own, 251 reserved tokens."""
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    reserved = [f"<|reserved_special_token_{number}|>" for number in range(251)]
    return _byte_level(texts, [begin, end, *reserved], llama3=True), {"bos_token": begin, "eos_token": end}


def llama2(texts: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """BPE over characters with byte fallback, whole texts as pre-tokens; three unused tokens."""
    roles = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return fallback_spec("llama", texts, size=SIZE), roles


def xlmr(texts: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Unigram, special tokens in front and one behind."""
    return unigram_spec("xlmr", texts, size=SIZE), {"tokenizer_class": "XLMRobertaTokenizer"}


def t5(texts: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Unigram, spare tokens behind."""
    return unigram_spec("t5", texts, size=SIZE), {"tokenizer_class": "T5Tokenizer", "extra_ids": 5}


def bert(texts: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Cased WordPiece with 99 unused tokens, which here stand behind all others."""
    spec = wordpiece_spec("cased", texts, size=SIZE)
    vocab = spec["model"]["vocab"]
    for number in range(1, 100):
        vocab[f"[unused{number}]"] = len(vocab)
    return spec, {"tokenizer_class": "BertTokenizer", "do_lower_case": False}


MAKERS: dict[str, Callable[[Sequence[str]], tuple[dict[str, Any], dict[str, Any]]]] = {
    "llama3-style": llama3,
    "gpt2-style": gpt2,
    "llama2-style": llama2,
    "xlmr-style": xlmr,
    "t5-style": t5,
    "bert-style": bert,
}
# The real ones of these kinds were trained on many languages.
MULTILINGUAL = ("llama3-style", "xlmr-style")
# A folder is a model's if it has a config.json; weights are not needed.
_MODEL_TYPES = {
    "llama3-style": "llama",
    "gpt2-style": "gpt2",
    "llama2-style": "llama",
    "xlmr-style": "xlm-roberta",
    "t5-style": "t5",
    "bert-style": "bert",
}


def make(name: str, texts: Sequence[str], folder: Path) -> None:
    """Train and write a folder that transformers loads."""
    spec, settings = MAKERS[name](texts)
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    size = 1 + max([*_ids(spec), *(token["id"] for token in spec["added_tokens"])])
    config = {"model_type": _MODEL_TYPES[name], "vocab_size": size}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _ids(spec: dict[str, Any]) -> list[int]:
    vocab = spec["model"]["vocab"]
    return list(vocab.values()) if isinstance(vocab, dict) else list(range(len(vocab)))
