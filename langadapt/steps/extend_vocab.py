"""Add tokens for a language to a tokenizer, without changing how protected text is tokenised."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from langadapt.core.artifact import Artifact, Output
from langadapt.core.config import CorpusInput, Flag, ModelInput, StepConfig
from langadapt.core.errors import DataError
from langadapt.core.inputs import Input
from langadapt.core.io import pretty_json, read_json_object, write_durably, write_json_lines
from langadapt.core.languages import Lang
from langadapt.core.types import Table
from langadapt.core.units import Bytes, Count
from langadapt.steps._extend_price import estimate
from langadapt.steps._vocabulary import LOADED_TEXTS, count, guard_of, lang_of, langs_of, many, one, table_rows, texts

if TYPE_CHECKING:
    from langadapt.vocab.family import Growth

__all__ = ["KIND", "SCHEMA", "Config", "estimate", "run", "table"]

KIND = "tokenizer"
SCHEMA = 1


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

    model, corpus, guards = one(out.inputs, "model"), one(out.inputs, "corpus"), many(out.inputs, "guard")
    base = tokenizer_file.read(model.path)
    family = detect(base)
    rows = table_rows(model.path, base)
    base_loaded = load_tokenizer(model.path)
    loaded.insist_on_the_file(base_loaded, base)
    words = count(base, (corpus,), config.max_corpus_bytes, "counting words", out)
    if not words:
        raise DataError(f"`{corpus.given}` has no text to learn from")
    guard = guard_of(base, base_loaded, guards, config.max_guard_bytes, out)

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
    held_out = texts(corpus, "held-out") or texts(corpus, "train")
    outcomes = checks.file_checks(base, new, family, guard, words)
    outcomes += loaded.loaded_checks(base_loaded, load_tokenizer(out.folder), new, held_out[:LOADED_TEXTS])
    checks.insist(outcomes)
    guarded = [text for item in guards for text in texts(item, "held-out")]
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
            "lang": config.lang or lang_of(corpus),
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
            "guard_langs": langs_of(guards),
            **measured,
        }
    )


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
