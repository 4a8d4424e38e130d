"""Add tokens for a language to a tokenizer, without changing how protected text is tokenised."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from langadapt.core.artifact import Artifact, Output
from langadapt.core.config import CorpusInput, Flag, ModelInput, StepConfig
from langadapt.core.errors import DataError, LangadaptError
from langadapt.core.inputs import Input, Inputs
from langadapt.core.io import pretty_json, read_json_object, write_durably, write_json_lines
from langadapt.core.languages import Lang
from langadapt.core.types import Estimate, Table
from langadapt.core.units import Bytes, Count, show_bytes

if TYPE_CHECKING:
    from langadapt.vocab.family import Growth
    from langadapt.vocab.guard import Guard
    from langadapt.vocab.tokenizer_file import TokenizerFile

KIND = "tokenizer"
SCHEMA = 1

# More held-out text than this does not change a rate in its third digit.
_MEASURED_BYTES = 4_000_000
_SAMPLE_BYTES = 200_000


class Config(StepConfig):
    """What extend-vocab takes."""

    model: ModelInput
    """Base model: a folder, a .gguf file or a hub id; only its tokenizer is read."""
    corpus: CorpusInput
    """Text of the target language, made by prepare."""
    guard: tuple[CorpusInput, ...] = ()
    """Text whose tokens must not change: every word in it keeps its exact ids."""
    lang: Annotated[Lang | None, Flag()] = None
    """Target language; by default that of the corpus."""
    size: Annotated[Annotated[Count, Field(ge=1, le=1_000_000)], Flag("-n")] = 4000
    """New tokens. Fewer are added if the text does not have so many that are frequent enough."""
    min_count: Annotated[int, Field(ge=1)] = 10
    """A token that the text ends with less often is left out, unless a kept token is built of it."""
    max_token_bytes: Annotated[int, Field(ge=2, le=256)] = 32
    """Longest new token."""
    split_digits: Literal["auto", "yes", "no"] = "auto"
    """Keep digits apart in new tokens; auto: if the base does."""
    max_corpus_bytes: Annotated[Bytes, Field(ge=1)] = 32_000_000
    """Target text to learn from, at most: more of it changes few tokens."""
    max_guard_bytes: Annotated[Bytes, Field(ge=1)] = 64_000_000
    """Text of each guard corpus to take words from, at most."""


def run(config: Config, out: Output) -> Artifact:
    """Learn, write, and check the extended tokenizer."""
    from langadapt.model.load import load_tokenizer
    from langadapt.vocab import checks, loaded, metrics, tokenizer_file
    from langadapt.vocab.family import Wish, detect, map_lines

    model, corpus, guards = _one(out.inputs, "model"), _one(out.inputs, "corpus"), _many(out.inputs, "guard")
    base = tokenizer_file.read(model.path)
    family = detect(base)
    rows = _table_rows(model.path, base)
    base_loaded = load_tokenizer(model.path)
    loaded.insist_on_the_file(base_loaded, base)
    words = _count(base, (corpus,), config.max_corpus_bytes, "counting words", out)
    if not words:
        raise DataError(f"`{corpus.given}` has no text to learn from")
    guard = _guard(base, base_loaded, guards, config, out)

    wish = Wish(
        size=config.size,
        min_count=config.min_count,
        max_token_bytes=config.max_token_bytes,
        split_digits=config.split_digits,
    )
    growth = family.grow(words, guard, wish, out.progress)
    _say_shortfall(config, corpus, growth, out)
    tokenizer_file.write(base, growth.merges, model.path, out.folder)

    new = tokenizer_file.read(out.folder)
    held_out = _texts(corpus, "held-out", _MEASURED_BYTES) or _texts(corpus, "train", _MEASURED_BYTES)
    outcomes = checks.file_checks(base, new, family, guard, words)
    outcomes += loaded.loaded_checks(base_loaded, load_tokenizer(out.folder), new, held_out[:_LOADED_TEXTS])
    checks.insist(outcomes)
    guarded = [text for item in guards for text in _texts(item, "held-out", _MEASURED_BYTES)]
    measured = metrics.compare(base.tokenizer, new.tokenizer, held_out, guarded, base.spelling)
    write_json_lines(out.folder / "vocab_map.jsonl", map_lines(growth, family.name, base.next_id, rows))
    record = {outcome.name: outcome.record() for outcome in outcomes}
    samples = measured.pop("samples")
    notes = dict(growth.notes)
    write_durably(
        out.folder / "checks.json",
        pretty_json({"checks": record, "samples": samples, "learning": notes, "measured": measured}),
    )
    return out.commit(
        {
            "lang": _lang(config, corpus),
            "family": family.name,
            "old_tokens": base.next_id,
            "new_tokens": base.next_id + len(growth.tokens),
            "old_rows": rows,
            "added": len(growth.tokens),
            "missing": notes["missing"],
            "stepping_stones": notes["stepping_stones"],
            "guarded_types": len(guard.words),
            "guarded_types_changed": record["guarded_words_kept"]["broken"],
            "unreachable": record["reachable"]["broken"],
            "guard_langs": sorted({lang for item in guards if (lang := _lang_of(item)) is not None}),
            **measured,
        }
    )


# Texts of the target that are also encoded through transformers, one by one: seconds for thousands.
_LOADED_TEXTS = 200


def _guard(base: "TokenizerFile", loaded: Any, guards: Sequence[Input], config: Config, out: Output) -> "Guard":
    from langadapt.vocab.guard import Guard, always_guarded, with_variants
    from langadapt.vocab.loaded import chat_texts, template_sources
    from langadapt.vocab.words import count_words

    if not guards:
        out.progress.warn("no guard text: only markup, numbers and chat scaffolding keep their tokens for certain")
    words = set(count_words(base, always_guarded([*chat_texts(loaded), *template_sources(loaded)])))
    words |= set(_count(base, guards, config.max_guard_bytes, "counting protected words", out))
    return Guard.of(base, with_variants(words, base.spelling))


def _count(base: "TokenizerFile", corpora: Sequence[Input], cap: int, task: str, out: Output) -> Mapping[str, int]:
    from langadapt.vocab.words import WordCounter

    counter = WordCounter(base)
    for corpus in corpora:
        for text in out.progress.track(_read(corpus, "train", cap), f"{task} of {corpus.given}", unit="documents"):
            counter.add(text)
    return counter.counts


def _read(corpus: Input, split: Literal["train", "held-out"], cap: int) -> Iterator[str]:
    """Texts of a corpus until `cap` bytes; documents are ordered by hash, so its beginning is a fair sample."""
    from langadapt.corpus.store import documents

    read = 0
    for document in documents(corpus.path, split):
        read += len(document.text.encode())
        if read > cap:
            return
        yield document.text


def _texts(corpus: Input, split: Literal["train", "held-out"], cap: int) -> list[str]:
    return list(_read(corpus, split, cap))


def _say_shortfall(config: Config, corpus: Input, growth: "Growth", out: Output) -> None:
    missing = growth.notes["missing"]
    if not growth.tokens:
        raise DataError(
            f"`{corpus.given}` gives no new token that occurs {config.min_count} times",
            hint="give more text, or a lower count: -o min_count=2",
        )
    if missing:
        out.progress.warn(
            f"{len(growth.tokens):,} of {config.size:,} tokens: no more occur {config.min_count} times in the text"
        )


def _table_rows(folder: Path, base: "TokenizerFile") -> int:
    """Rows of the model's embedding table, by its config; a bare tokenizer has as many as tokens."""
    path = folder / "config.json"
    config = read_json_object(path) if path.is_file() else {}
    text = config.get("text_config")
    rows = config.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
    if rows is None:
        return base.next_id
    if not isinstance(rows, int) or rows < base.next_id:
        raise DataError(
            f"its tokenizer has ids up to {base.next_id - 1:,}, its table {rows} rows", where=f"{path}:vocab_size"
        )
    return rows


def _one(inputs: Inputs, name: str) -> Input:
    value = inputs[name]
    if not isinstance(value, Input):
        raise LangadaptError(f"internal: `{name}` is not one input")
    return value


def _many(inputs: Inputs, name: str) -> tuple[Input, ...]:
    value = inputs[name]
    return value if isinstance(value, tuple) else ()


def _lang_of(corpus: Input) -> str | None:
    lang = corpus.facts.get("lang")
    return str(lang) if lang else None


def _lang(config: Config, corpus: Input) -> str | None:
    return config.lang or _lang_of(corpus)


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Price and predicted facts; what the base does to the text is measured on a sample where both are there."""
    from langadapt.vocab import predict

    model, corpus, guards = _one(inputs, "model"), _one(inputs, "corpus"), _many(inputs, "guard")
    target = min(_size(corpus), config.max_corpus_bytes)
    protected = sum(min(_size(guard), config.max_guard_bytes) for guard in guards)
    before = _sample(model, corpus) if model.exists and corpus.exists else predict.UNKNOWN_BASE
    after = predict.adapted(before, config.size)
    tokens = _base_tokens(model)
    facts: dict[str, object] = {
        "lang": _lang(config, corpus),
        "family": "byte-bpe",
        "added": config.size,
        "tokens_per_word": {"base": before.tokens_per_word, "adapted": after.tokens_per_word},
        "bytes_per_token": {"base": before.bytes_per_token, "adapted": after.bytes_per_token},
        "guarded_types_changed": 0,
        "unreachable": 0,
        "guard_langs": sorted({lang for item in guards if (lang := _lang_of(item)) is not None}),
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


def _size(corpus: Input) -> int:
    if "bytes" in corpus.facts:
        return int(corpus.facts["bytes"])
    if not corpus.exists:
        return 0
    files = [corpus.path] if corpus.path.is_file() else [path for path in corpus.path.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


def _sample(model: Input, corpus: Input) -> Any:
    from langadapt.vocab import metrics, predict, tokenizer_file

    tokenizer = tokenizer_file.read(model.path).tokenizer
    texts = _texts(corpus, "train", _SAMPLE_BYTES)
    per_token = metrics.bytes_per_token(tokenizer, texts)
    if per_token is None:
        return predict.UNKNOWN_BASE
    return predict.Rates(tokens_per_word=metrics.tokens_per_word(tokenizer, texts), bytes_per_token=per_token)


def _base_tokens(model: Input) -> int | None:
    if not model.exists:
        return int(model.facts["rows"]) if "rows" in model.facts else None
    from langadapt.vocab import tokenizer_file

    return tokenizer_file.read(model.path).next_id


def table(artifact: Artifact) -> Table:
    """Before and after, with sample lines."""
    facts = artifact.facts
    words, sizes = facts["tokens_per_word"], facts["bytes_per_token"]
    rows = [
        ("tokens in the vocabulary", f"{facts['old_tokens']:,}", f"{facts['new_tokens']:,}"),
        ("tokens per word", *_pair(words)),
        ("bytes per token", *_pair(sizes)),
    ]
    same = facts["held_out_lines_same_ids"]
    notes = [
        f"{facts['added']:,} tokens added, {facts['unreachable']} of them unreachable, "
        f"{facts['stepping_stones']:,} mostly steps to longer ones",
        f"{facts['guarded_types']:,} protected words, {facts['guarded_types_changed']} changed",
    ]
    if same is not None:
        notes.append(f"{100 * same:.2f} % of {facts['held_out_lines']:,} unseen protected lines keep all their ids")
    if facts["unspaced_script"]:
        notes.append(f"no tokens per word: {facts['unspaced_script']} puts no spaces between words")
    samples = read_json_object(artifact.file("checks.json"))["samples"]
    for sample in samples:
        notes += [f"before: {sample['base']}", f"after:  {sample['adapted']}"]
    return Table("Vocabulary", ("", "base", "adapted"), tuple(rows), tuple(notes))


def _pair(values: Mapping[str, float | None]) -> tuple[str, str]:
    base, adapted = values["base"], values["adapted"]
    return ("-" if base is None else f"{base:.2f}", "-" if adapted is None else f"{adapted:.2f}")
