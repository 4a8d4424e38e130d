"""What extend-vocab will cost and bring, from sizes, a sample of the text, and measured rules."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from langadapt.core.inputs import Input, Inputs, many, one
from langadapt.core.types import Estimate
from langadapt.core.units import show_bytes
from langadapt.steps._extend_modes import most
from langadapt.steps._vocabulary import lang_of, langs_of, size_of, table_rows, texts

if TYPE_CHECKING:
    from langadapt.steps._extend_config import Config
    from langadapt.vocab.predict import Rates

_SAMPLE_BYTES = 200_000
# Of a model that is not there yet.
_TOKENS = 50_000


def estimate(config: "Config", inputs: Inputs) -> Estimate:
    """Price and predicted facts; what the base does to the text is measured on a sample where both are there."""
    from langadapt.vocab import predict

    model, guards = one(inputs, "model"), many(inputs, "guard")
    corpora = (one(inputs, "corpus"), *many(inputs, "also"))
    target = sum(min(size_of(corpus), config.max_corpus_bytes) for corpus in corpora)
    protected = sum(min(size_of(guard), config.max_guard_bytes) for guard in guards)
    before = _sample(model, corpora[0]) if model.exists and corpora[0].exists else predict.UNKNOWN_BASE
    expected = _tokens(config, model)
    after = predict.adapted(before, expected.added)
    facts: dict[str, object] = {
        "lang": config.lang or lang_of(corpora[0]),
        "family": expected.family,
        "mode": config.mode,
        "added": expected.added,
        "tokens_per_word": {"base": before.tokens_per_word, "adapted": after.tokens_per_word},
        "bytes_per_token": {"base": before.bytes_per_token, "adapted": after.bytes_per_token},
        "guarded_types_changed": 0,
        "unreachable": 0,
        "guard_langs": langs_of(guards),
    }
    if expected.old is not None:
        facts |= {"vocabulary_before": expected.old, "vocabulary_after": expected.new}
    return Estimate(
        seconds=predict.seconds(target, protected, expected.added),
        memory_bytes=predict.memory_bytes(
            target, protected, (expected.old or _TOKENS) + expected.added, spaced=before.tokens_per_word is not None
        ),
        disk_bytes=predict.disk_bytes(expected.old or 0, expected.added),
        facts=facts,
        rows=(
            (
                "new tokens",
                f"{expected.added:,}" + (" at most, which the price is for" if config.size == "auto" else ""),
            ),
            ("text read", f"{show_bytes(target)} of the target, {show_bytes(protected)} protected"),
            ("bytes per token", f"{before.bytes_per_token:.2f} -> about {after.bytes_per_token:.2f}"),
        ),
    )


@dataclass(frozen=True)
class _Expected:
    """Tokens that will be added, and ids before and after (None while the model does not exist)."""

    family: str
    added: int
    old: int | None
    new: int | None


def _tokens(config: "Config", model: Input) -> _Expected:
    if not model.exists:
        old = int(model.facts["rows"]) if "rows" in model.facts else None
        new = old + most(config) if old is not None and config.mode == "append" else old
        return _Expected("byte-bpe", most(config), old, new)
    from langadapt.vocab import tokenizer_file
    from langadapt.vocab.family import detect
    from langadapt.vocab.reserved import in_reserve, named_in

    base = tokenizer_file.read(model.path)
    family, old = detect(base).name, base.next_id
    if config.mode == "append":
        return _Expected(family, most(config), old, old + most(config))
    if config.mode == "same-size":
        return _Expected(family, most(config), old, old)
    rows = table_rows(model.path, base)
    slots, _ = in_reserve(base, rows, named_in(model.path, base), pattern=config.reserved_pattern)
    taken = [slot.id for slot in slots[: most(config)]]
    return _Expected(family, len(taken), old, max([old, *(number + 1 for number in taken)]))


def _sample(model: Input, corpus: Input) -> "Rates":
    from langadapt.vocab import metrics, predict, tokenizer_file

    tokenizer = tokenizer_file.read(model.path).tokenizer
    sample = texts(corpus, "train", _SAMPLE_BYTES)
    per_token = metrics.bytes_per_token(tokenizer, sample)
    if per_token is None:
        return predict.UNKNOWN_BASE
    return predict.Rates(tokens_per_word=metrics.tokens_per_word(tokenizer, sample), bytes_per_token=per_token)
