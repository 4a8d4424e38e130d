"""Train a new tokenizer for a language, with the special tokens and the chat template of a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from langadapt.core.artifact import Artifact, Output
from langadapt.core.config import CorpusInput, Flag, ModelInput, StepConfig
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Inputs, many, one
from langadapt.core.io import pretty_json, write_durably, write_json_lines
from langadapt.core.languages import Lang
from langadapt.core.types import Estimate, Table
from langadapt.core.units import Bytes, Count, show_bytes
from langadapt.steps._vocabulary import LOADED_TEXTS, count, lang_of, langs_of, size_of, table_rows, texts

if TYPE_CHECKING:
    from langadapt.vocab.family import Growth, Wish
    from langadapt.vocab.outcome import Outcome
    from langadapt.vocab.tokenizer_file import TokenizerFile

KIND = "tokenizer"
SCHEMA = 2


class Config(StepConfig):
    """What train-tokenizer takes."""

    model: ModelInput
    """Model whose special tokens, chat template, rule for digits and pre-tokenizer stay; its weights are not read."""
    corpora: tuple[CorpusInput, ...]
    """Text to learn from; what it has more of gets more tokens."""
    lang: Annotated[Lang | None, Flag()] = None
    """Language of the tokenizer; by default that of the first corpus."""
    size: Annotated[Annotated[Count, Field(ge=300, le=1_000_000)], Flag("-n")] = 16_000
    """Tokens of the vocabulary, special ones and bytes included."""
    family: Annotated[Literal["byte-bpe", "same"], Flag()] = "byte-bpe"
    """Kind of tokenizer: byte-level BPE, or that of the model if it is WordPiece or Unigram, with its pipeline."""
    level: Annotated[Literal["bpe", "character", "grapheme"], Flag()] = "bpe"
    """What a token may be: any frequent string (bpe), one character, or one grapheme cluster; bytes always."""
    min_count: Annotated[int, Field(ge=1)] = 10
    """A token that the text ends with less often is left out, unless a kept token is built of it."""
    max_token_bytes: Annotated[int, Field(ge=2, le=256)] = 32
    """Longest token."""
    max_corpus_bytes: Annotated[Bytes, Field(ge=1)] = 64_000_000
    """Text of each corpus to learn from, at most."""


def run(config: Config, out: Output) -> Artifact:
    """Learn, write, and check the new tokenizer."""
    from langadapt.model import spm_model
    from langadapt.model.load import load_tokenizer
    from langadapt.model.matching import match
    from langadapt.model.roles import check_role_ids
    from langadapt.model.token_table import TokenTable
    from langadapt.vocab import fresh, loaded, metrics, moved_checks, tokenizer_file
    from langadapt.vocab.outcome import insist
    from langadapt.vocab.renumber import write_renumbered

    model, corpora = one(out.inputs, "model"), many(out.inputs, "corpora")
    base, tokens = tokenizer_file.read(model.path), TokenTable.from_folder(model.path)
    for told in check_role_ids(tokens):
        out.progress.warn(told)
    if path := spm_model.find(model.path):
        out.progress.note(
            f"{path.name} is not written: SentencePiece has no byte-level BPE, which the new tokenizer is"
        )
    base_loaded = load_tokenizer(model.path)
    loaded.insist_on_the_file(base_loaded, base)
    apart = _digits_apart(base)
    made = _pieces(config, base, corpora, apart, out) if config.family == "same" else None
    made = made or _bytes(config, base, base_loaded, corpora, apart, out)
    growth, ids = made.growth, fresh.special_ids(base)
    write_renumbered(made.spec, ids, model.path, out.folder, made.settings)

    new = tokenizer_file.read(out.folder)
    new_loaded = load_tokenizer(out.folder)
    before, after = loaded.Seen.of(base_loaded), loaded.Seen.of(new_loaded)
    unseen = [text for corpus in corpora for text in texts(corpus, "held-out") or texts(corpus, "train")]
    outcomes = [
        *made.checks(new),
        moved_checks.special_ids_follow(base, new, ids),
        loaded.roles_kept(before, after, ids=ids),
        moved_checks.chat_specials_follow(before, after, ids),
        loaded.loads_as_written(new_loaded, new, unseen[:LOADED_TEXTS]),
    ]
    insist(outcomes)
    measured = metrics.compare(base.tokenizer, new.tokenizer, unseen, [], new.spelling)
    rows = table_rows(model.path, base)
    relation = match(tokens, TokenTable.from_folder(out.folder), base_rows=rows)
    header = {
        "mode": "new-tokenizer",
        "old_rows": rows,
        "vocabulary_before": base.next_id,
        "vocabulary_after": new.next_id,
        "family": made.family,
    }
    write_json_lines(out.folder / "vocab_map.jsonl", fresh.map_lines(header, growth, relation.kept))
    samples = measured.pop("samples")
    record: dict[str, Any] = {"checks": {outcome.name: outcome.record() for outcome in outcomes}, "samples": samples}
    write_durably(
        out.folder / "checks.json", pretty_json(record | {"learning": dict(growth.notes), "measured": measured})
    )
    return out.commit(
        {
            "lang": config.lang or lang_of(corpora[0]),
            "langs": langs_of(corpora),
            "family": made.family,
            "level": config.level,
            "vocabulary_before": base.next_id,
            "vocabulary_after": relation.new_rows,
            "old_rows": rows,
            "added": len(relation.new_tokens),
            "dropped": len(relation.dropped),
            "renumbered": True,
            "kept_by": dict(relation.tiers),
            "stepping_stones": growth.notes["stepping_stones"],
            "digits_apart": apart,
            **measured,
        }
    )


def _digits_apart(base: "TokenizerFile") -> bool:
    """The base's rule, which its pre-tokenizer tells, or its vocabulary where the file forgot."""
    from langadapt.vocab.rules import joins_digits

    cutter = base.tokenizer.pre_tokenizer
    pieces = [piece for piece, _ in cutter.pre_tokenize_str("12 x34")] if cutter else ["12"]
    if not any(joins_digits(piece.encode()) for piece in pieces):
        return True
    return not any(joins_digits(piece.encode()) for piece in base.pieces if piece not in base.added)


@dataclass(frozen=True)
class _Made:
    """A new tokenizer before it is written; `settings` replace the base's, `checks` looks at the written file."""

    family: str
    growth: "Growth"
    spec: Mapping[str, Any]
    settings: Mapping[str, Any]
    checks: "Callable[[TokenizerFile], list[Outcome]]"


def _bytes(
    config: Config, base: "TokenizerFile", loaded: Any, corpora: Sequence[Any], apart: bool, out: Output
) -> _Made:
    """Byte-level BPE; `loaded` is the base as transformers loads it."""
    import json

    from langadapt.vocab import checks, fresh
    from langadapt.vocab.family import detect
    from langadapt.vocab.guard import Guard

    start = fresh.bare(base, config.level, digits_apart=apart)
    words = _words(config, start, corpora, out)
    growth = detect(start).grow(words, Guard.of(start, ()), _wish(config, start, apart), out.progress)
    _say_shortfall(config, start, growth, corpora, out)

    def look(new: "TokenizerFile") -> "list[Outcome]":
        return [*fresh.fresh_checks(base, start, new, digits_apart=apart), checks.reachable(start, new)]

    spec = json.loads(start.extended(growth.merges))
    return _Made("byte-bpe", growth, spec, fresh.settings_of(base, config.level, loaded), look)


def _pieces(config: Config, base: "TokenizerFile", corpora: Sequence[Any], apart: bool, out: Output) -> "_Made | None":
    """WordPiece or Unigram, as the base is; None for a byte-level one. Errors for what cannot be."""
    from langadapt.vocab import fresh_pieces
    from langadapt.vocab.family import detect

    family = detect(base).name
    if family == "byte-bpe":
        return None
    if "merges" in base.model:
        raise DataError(f"a new {family} tokenizer cannot be trained", where=base.place, hint="leave out `--family`")
    if config.level != "bpe":
        raise ConfigError(f"level `{config.level}` is one of byte-level tokenizers", hint="leave out `--family same`")
    words = _words(config, base, corpora, out)
    start = fresh_pieces.bare(base, words, config.min_count)
    new, growth = fresh_pieces.grown(start, words, _wish(config, start, apart), out.progress)
    _say_shortfall(config, start, growth, corpora, out)

    def look(written: "TokenizerFile") -> "list[Outcome]":
        return fresh_pieces.fresh_checks(base, start, written, words, digits_apart=apart)

    return _Made(family, growth, new.spec, {}, look)


def _words(config: Config, start: "TokenizerFile", corpora: Sequence[Any], out: Output) -> Mapping[str, int]:
    words = count(start, corpora, config.max_corpus_bytes, "counting words", out)
    if not words:
        raise DataError(f"`{corpora[0].given}` has no text to learn from" if corpora else "no corpus was given")
    return words


def _wish(config: Config, start: "TokenizerFile", apart: bool) -> "Wish":
    from langadapt.vocab.family import Wish

    size = config.size - start.next_id
    if size < 1:
        raise DataError(
            f"{start.next_id:,} tokens are special, bytes or characters: `size` must be larger than that",
            hint=f"--size {2 * start.next_id}",
        )
    split: Literal["yes", "no"] = "yes" if apart else "no"
    return Wish(size=size, min_count=config.min_count, max_token_bytes=config.max_token_bytes, split_digits=split)


def _say_shortfall(
    config: Config, start: "TokenizerFile", growth: "Growth", corpora: Sequence[Any], out: Output
) -> None:
    if not growth.tokens:
        raise DataError(f"`{corpora[0].given}` has no string that occurs {config.min_count} times")
    if growth.notes["missing"] and config.level == "bpe":
        out.progress.warn(
            f"{config.size - growth.notes['missing']:,} of {config.size:,} tokens: no more occur "
            f"{config.min_count} times"
        )


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Price by the size of text and vocabulary."""
    model = one(inputs, "model")
    if model.exists:
        from langadapt.model.roles import check_role_ids
        from langadapt.model.token_table import TokenTable

        check_role_ids(TokenTable.from_folder(model.path))
    corpora = many(inputs, "corpora")
    text = sum(min(size_of(corpus), config.max_corpus_bytes) for corpus in corpora)
    facts: dict[str, object] = {"level": config.level, "renumbered": True}
    if config.family == "byte-bpe":
        facts["family"] = "byte-bpe"
    if config.level == "bpe":
        facts["vocabulary_after"] = config.size
    return Estimate(
        seconds=9 + text / 1_000_000 + config.size / 1000,
        memory_bytes=600_000_000 + 12 * text,
        disk_bytes=300 * config.size + 100_000,
        facts=facts,
        rows=(("tokens", f"{config.size:,} at most"), ("text read", show_bytes(text)), ("level", config.level)),
    )


def table(artifact: Artifact) -> Table:
    """Before and after, with what the two have in common."""
    facts = artifact.facts

    def pair(key: str) -> tuple[str, str]:
        before, after = facts[key]["base"], facts[key]["adapted"]
        return ("-" if before is None else f"{before:.2f}", "-" if after is None else f"{after:.2f}")

    rows = (
        ("tokens in the vocabulary", f"{facts['vocabulary_before']:,}", f"{facts['vocabulary_after']:,}"),
        ("tokens per word", *pair("tokens_per_word")),
        ("bytes per token", *pair("bytes_per_token")),
    )
    kept = sum(facts["kept_by"].values())
    notes = (
        f"{kept:,} tokens are tokens of the base too and keep their rows; {facts['added']:,} get new ones",
        "digits stay apart, as in the base" if facts["digits_apart"] else "digits may join, as in the base",
    )
    return Table("Tokenizer", ("", "base", "new"), rows, notes)
