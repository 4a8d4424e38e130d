"""What the tokenizers of base and adapted model make of held-out text."""

from typing import Any

from langadapt.core.artifact import Output
from langadapt.core.inputs import Input

# Tokenizer figures settle to three digits on 200 kB of text and cost a second there.
TOKENIZER_BYTES = 200_000
SPLIT_SAMPLES = 3


def tokenizer_figures(out: Output, languages: dict[str, Any], targets: frozenset[str]) -> list[dict[str, Any]]:
    """Add tokens per word, bytes per token and the share of unchanged lines; return sample sentences, split."""
    from langadapt.evaluate.splits import first_sentence, split_for_display
    from langadapt.model.load import load_tokenizer
    from langadapt.model.token_keys import keys_or_strings
    from langadapt.vocab.metrics import bytes_per_token, lines_of, same_tokens_share, tokens_per_word

    tokenizers = {role: load_tokenizer(out.inputs[role].path) for role in ("base", "adapted")}
    paths = out.inputs["base"].path, out.inputs["adapted"].path
    loaded = tokenizers["base"], tokenizers["adapted"]
    keys = keys_or_strings(paths, loaded) if set(languages) - targets else ((), ())
    samples = []
    for lang, language in languages.items():
        texts: list[str] = []
        for name in language["sets"]:
            texts += _some_texts(out.inputs["sets"][name])
        for key, measure in (
            ("tokens_per_word", tokens_per_word),
            ("bytes_per_token", bytes_per_token),
        ):
            language[key] = {role: _figure(measure(tokenizer, texts)) for role, tokenizer in tokenizers.items()}
        if lang not in targets:
            share = same_tokens_share(tokenizers["base"], tokenizers["adapted"], lines_of(texts), *keys)
            language["held_out_lines_same_ids"] = _figure(share)
        sentences = [first_sentence(text) for text in texts]
        good = [sentence for sentence in sentences if len(sentence) >= 30][: SPLIT_SAMPLES if lang in targets else 1]
        for sentence in good:
            parts = {role: split_for_display(tokenizer, sentence) for role, tokenizer in tokenizers.items()}
            samples.append({"kind": "split", "lang": lang, "text": sentence, **parts})
    return samples


def _figure(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)


def _some_texts(source: Input) -> list[str]:
    from langadapt.corpus.store import documents

    texts, size = [], 0
    for document in documents(source.path, "held-out"):
        if size >= TOKENIZER_BYTES:
            break
        texts.append(document.text)
        size += len(document.text.encode())
    return texts
