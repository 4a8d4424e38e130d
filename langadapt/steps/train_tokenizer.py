"""Train a new tokenizer for a language, with the special tokens and the chat template of a model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from langadapt.core.artifact import Artifact, Output
from langadapt.core.config import CorpusInput, Flag, ModelInput, StepConfig
from langadapt.core.errors import DataError
from langadapt.core.inputs import Inputs
from langadapt.core.io import pretty_json, write_durably, write_json_lines
from langadapt.core.languages import Lang
from langadapt.core.types import Estimate, Table
from langadapt.core.units import Bytes, Count, show_bytes
from langadapt.steps._vocabulary import LOADED_TEXTS, count, lang_of, langs_of, many, one, size_of, table_rows, texts

if TYPE_CHECKING:
    from langadapt.vocab.family import Growth
    from langadapt.vocab.tokenizer_file import TokenizerFile

KIND = "tokenizer"
SCHEMA = 1


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
    from langadapt.model.token_table import TokenTable
    from langadapt.vocab import checks, fresh, loaded, metrics, moved_checks, tokenizer_file
    from langadapt.vocab.renumber import write_renumbered

    model, corpora = one(out.inputs, "model"), many(out.inputs, "corpora")
    base = tokenizer_file.read(model.path)
    if path := spm_model.find(model.path):
        out.progress.note(
            f"{path.name} is not written: SentencePiece has no byte-level BPE, which the new tokenizer is"
        )
    base_loaded = load_tokenizer(model.path)
    loaded.insist_on_the_file(base_loaded, base)
    apart = _digits_apart(base)
    start = fresh.bare(base, config.level, digits_apart=apart)
    growth = _grow(config, start, corpora, apart, out)
    ids = fresh.special_ids(base)
    settings = fresh.settings_of(base, config.level)
    write_renumbered(_spec(start, growth), ids, model.path, out.folder, settings)

    new = tokenizer_file.read(out.folder)
    new_loaded = load_tokenizer(out.folder)
    unseen = [text for corpus in corpora for text in texts(corpus, "held-out") or texts(corpus, "train")]
    outcomes = [
        *fresh.fresh_checks(base, start, new, digits_apart=apart),
        checks.reachable(start, new),
        moved_checks.special_ids_follow(base, new, ids),
        loaded.roles_kept(base_loaded, new_loaded, ids=ids),
        moved_checks.chat_specials_follow(base_loaded, new_loaded, ids),
        loaded.loads_as_written(new_loaded, new, unseen[:LOADED_TEXTS]),
    ]
    checks.insist(outcomes)
    measured = metrics.compare(base.tokenizer, new.tokenizer, unseen, [], new.spelling)
    rows = table_rows(model.path, base)
    relation = match(TokenTable.from_folder(model.path), TokenTable.from_folder(out.folder), base_rows=rows)
    header = {
        "mode": "new-tokenizer",
        "old_rows": rows,
        "old_tokens": base.next_id,
        "new_size": new.next_id,
        "family": "byte-bpe",
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
            "family": "byte-bpe",
            "level": config.level,
            "old_tokens": base.next_id,
            "new_tokens": relation.new_rows,
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


def _grow(config: Config, start: "TokenizerFile", corpora: Sequence[Any], apart: bool, out: Output) -> "Growth":
    from langadapt.vocab.family import Wish, detect
    from langadapt.vocab.guard import Guard

    words = count(start, corpora, config.max_corpus_bytes, "counting words", out)
    if not words:
        raise DataError(f"`{corpora[0].given}` has no text to learn from" if corpora else "no corpus was given")
    wish = Wish(
        size=config.size - start.next_id,
        min_count=config.min_count,
        max_token_bytes=config.max_token_bytes,
        split_digits="yes" if apart else "no",
    )
    if wish.size < 1:
        raise DataError(f"{start.next_id:,} tokens are special or bytes: `size` must be larger than that")
    growth = detect(start).grow(words, Guard.of(start, ()), wish, out.progress)
    if not growth.tokens:
        raise DataError(f"`{corpora[0].given}` has no string that occurs {config.min_count} times")
    if growth.notes["missing"] and config.level == "bpe":
        out.progress.warn(
            f"{start.next_id + len(growth.tokens):,} of {config.size:,} tokens: no more occur {config.min_count} times"
        )
    return growth


def _spec(start: "TokenizerFile", growth: "Growth") -> dict[str, Any]:
    import json

    spec: dict[str, Any] = json.loads(start.extended(growth.merges))
    return spec


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Price by the size of text and vocabulary."""
    corpora = many(inputs, "corpora")
    text = sum(min(size_of(corpus), config.max_corpus_bytes) for corpus in corpora)
    facts: dict[str, object] = {"family": "byte-bpe", "level": config.level, "renumbered": True}
    if config.level == "bpe":
        facts["new_tokens"] = config.size
    return Estimate(
        seconds=9 + text / 1_000_000 + config.size / 1000,
        memory_bytes=600_000_000 + 12 * text,
        disk_bytes=300 * config.size + 100_000,
        facts=facts,
        rows=(("tokens", f"{config.size:,} at most"), ("text", show_bytes(text)), ("level", config.level)),
    )


def table(artifact: Artifact) -> Table:
    """Before and after, with what the two have in common."""
    facts = artifact.facts

    def pair(key: str) -> tuple[str, str]:
        before, after = facts[key]["base"], facts[key]["adapted"]
        return ("-" if before is None else f"{before:.2f}", "-" if after is None else f"{after:.2f}")

    rows = (
        ("tokens in the vocabulary", f"{facts['old_tokens']:,}", f"{facts['new_tokens']:,}"),
        ("tokens per word", *pair("tokens_per_word")),
        ("bytes per token", *pair("bytes_per_token")),
    )
    kept = sum(facts["kept_by"].values())
    notes = (
        f"{kept:,} tokens are tokens of the base too and keep their rows; {facts['added']:,} get new ones",
        "digits stay apart, as in the base" if facts["digits_apart"] else "digits may join, as in the base",
    )
    return Table("Tokenizer", ("", "base", "new"), rows, notes)
