"""What extend-vocab will cost and bring, from sizes, a sample of the text, and measured rules."""

from typing import TYPE_CHECKING

from langadapt.core.inputs import Input, Inputs
from langadapt.core.types import Estimate
from langadapt.core.units import show_bytes
from langadapt.steps._vocabulary import lang_of, langs_of, many, one, size_of, texts

if TYPE_CHECKING:
    from langadapt.steps.extend_vocab import Config
    from langadapt.vocab.predict import Rates

_SAMPLE_BYTES = 200_000


def estimate(config: "Config", inputs: Inputs) -> Estimate:
    """Price and predicted facts; what the base does to the text is measured on a sample where both are there."""
    from langadapt.vocab import predict

    model, corpus, guards = one(inputs, "model"), one(inputs, "corpus"), many(inputs, "guard")
    target = min(size_of(corpus), config.max_corpus_bytes)
    protected = sum(min(size_of(guard), config.max_guard_bytes) for guard in guards)
    before = _sample(model, corpus) if model.exists and corpus.exists else predict.UNKNOWN_BASE
    after = predict.adapted(before, config.size)
    tokens = _base_tokens(model)
    facts: dict[str, object] = {
        "lang": config.lang or lang_of(corpus),
        "family": "byte-bpe",
        "added": config.size,
        "tokens_per_word": {"base": before.tokens_per_word, "adapted": after.tokens_per_word},
        "bytes_per_token": {"base": before.bytes_per_token, "adapted": after.bytes_per_token},
        "guarded_types_changed": 0,
        "unreachable": 0,
        "guard_langs": langs_of(guards),
    }
    if tokens is not None:
        facts |= {"old_tokens": tokens, "new_tokens": tokens + config.size}
    return Estimate(
        seconds=predict.seconds(target, protected, config.size),
        memory_bytes=predict.memory_bytes(target, protected),
        disk_bytes=predict.disk_bytes(tokens or 0, config.size),
        facts=facts,
        rows=(
            ("new tokens", f"{config.size:,}"),
            ("text", f"{show_bytes(target)} to learn from, {show_bytes(protected)} protected"),
            ("bytes per token", f"{before.bytes_per_token:.2f} -> about {after.bytes_per_token:.2f}"),
        ),
    )


def _sample(model: Input, corpus: Input) -> "Rates":
    from langadapt.vocab import metrics, predict, tokenizer_file

    tokenizer = tokenizer_file.read(model.path).tokenizer
    sample = texts(corpus, "train", _SAMPLE_BYTES)
    per_token = metrics.bytes_per_token(tokenizer, sample)
    if per_token is None:
        return predict.UNKNOWN_BASE
    return predict.Rates(tokens_per_word=metrics.tokens_per_word(tokenizer, sample), bytes_per_token=per_token)


def _base_tokens(model: Input) -> int | None:
    if not model.exists:
        return int(model.facts["rows"]) if "rows" in model.facts else None
    from langadapt.vocab import tokenizer_file

    return tokenizer_file.read(model.path).next_id
