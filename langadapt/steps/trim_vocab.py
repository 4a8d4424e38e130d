"""Remove the tokens that your text never needs from a tokenizer, so that the model's tables get smaller."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from langadapt.core.artifact import Artifact, Output
from langadapt.core.config import CorpusInput, Flag, ModelInput, StepConfig
from langadapt.core.errors import DataError
from langadapt.core.inputs import Input, Inputs, many, one
from langadapt.core.io import pretty_json, write_durably, write_json_lines
from langadapt.core.types import Estimate, Table
from langadapt.core.units import Bytes, Count, show_bytes
from langadapt.steps._sentencepiece import companion_of, sample_of
from langadapt.steps._vocabulary import LOADED_TEXTS, count, langs_of, size_of, table_rows, texts

if TYPE_CHECKING:
    from langadapt.vocab.tokenizer_file import TokenizerFile
    from langadapt.vocab.trimming import Trimmed

KIND = "tokenizer"
SCHEMA = 2


class Config(StepConfig):
    """What trim-vocab takes."""

    model: ModelInput
    """Base model: a folder, a .gguf file or a hub id; only its tokenizer is read."""
    corpora: tuple[CorpusInput, ...]
    """All text that the model will have to deal with, in every language: what none of it needs is removed."""
    size: Annotated[Annotated[Count, Field(ge=1)] | None, Flag("-n")] = None
    """Tokens to keep: the most used ones; by default all that are used `min_count` times."""
    min_count: Annotated[Annotated[int, Field(ge=1)], Flag()] = 1
    """A token that the text uses less often is removed, unless a kept one is built of it."""
    max_corpus_bytes: Annotated[Bytes, Field(ge=1)] = 256_000_000
    """Text of each corpus to read, at most."""


def run(config: Config, out: Output) -> Artifact:
    """Count, remove, write, and check the smaller tokenizer."""
    from langadapt.model.load import load_tokenizer
    from langadapt.model.matching import match
    from langadapt.model.token_table import TokenTable
    from langadapt.vocab import loaded, moved_checks, tokenizer_file, trimming
    from langadapt.vocab.family import detect
    from langadapt.vocab.outcome import insist
    from langadapt.vocab.renumber import in_order, renumbered, write_renumbered
    from langadapt.vocab.words import count_words as words_in

    model, corpora = one(out.inputs, "model"), many(out.inputs, "corpora")
    sample = sample_of(corpora)
    base, companion = companion_of(model.path, tokenizer_file.read(model.path), sample, out)
    family = detect(base).name
    base_loaded = load_tokenizer(model.path)
    loaded.insist_on_the_file(base_loaded, base)
    words = Counter(count(base, corpora, config.max_corpus_bytes, "counting words", out))
    if not words:
        raise DataError(f"`{corpora[0].given}` has no text" if corpora else "no corpus was given")
    chat = words_in(base, [*loaded.chat_texts(base_loaded), *loaded.template_sources(base_loaded)])
    found = trimming.trim(base, words, chat, min_count=config.min_count, size=config.size)
    ids = in_order(set(found.kept))
    write_renumbered(renumbered(base, ids), ids, model.path, out.folder)

    new = tokenizer_file.read(out.folder)
    written = companion.write(new, out.folder, sample) if companion else []
    unseen = [text for corpus in corpora for text in texts(corpus, "held-out") or texts(corpus, "train")]
    outcomes = moved_checks.moved_checks(base, new, ids, words + chat)
    outcomes += moved_checks.moved_loaded_checks(
        loaded.Seen.of(base_loaded), load_tokenizer(out.folder), new, unseen[:LOADED_TEXTS], ids
    )
    outcomes += written
    insist(outcomes)
    changed = _changed(config, base, new, words, ids)
    measured = _measure(base, new, unseen, ids)
    tables = _tables(model, base)
    write_json_lines(out.folder / "vocab_map.jsonl", _map_lines(base, found, ids, family, tables))
    # what init-embeddings will do: the map on disk has to agree with what the two files show
    relation = match(TokenTable.from_folder(model.path), TokenTable.from_folder(out.folder), base_rows=tables["rows"])
    record = {outcome.name: outcome.record() for outcome in outcomes}
    samples = measured.pop("samples")
    write_durably(out.folder / "checks.json", pretty_json({"checks": record, "samples": samples, "measured": measured}))
    facts = {
        "langs": langs_of(corpora),
        "family": family,
        "vocabulary_before": base.next_id,
        "vocabulary_after": relation.new_rows,
        "old_rows": tables["rows"],
        "added": len(relation.new_tokens),
        "renumbered": True,
        "sentencepiece": companion.name if companion else None,
        "dropped": len(relation.dropped),
        "kept_by": dict(sorted(Counter(found.reasons.values()).items())),
        **changed,
        **_saved(tables, relation.new_rows),
        **measured,
    }
    return out.commit(facts)


def _changed(
    config: Config, base: "TokenizerFile", new: "TokenizerFile", words: "Counter[str]", ids: Mapping[int, int]
) -> dict[str, Any]:
    from langadapt.vocab.trimming import changed_words

    changed, occurrences = changed_words(base, new, words, ids)
    if changed and config.min_count == 1 and config.size is None:
        raise DataError(f"{changed:,} words of the text are cut otherwise than before", where=base.place)
    share = round(occurrences / words.total(), 6)
    return {"words": len(words), "words_changed": changed, "words_changed_share": share}


def _measure(
    base: "TokenizerFile", new: "TokenizerFile", texts: Sequence[str], ids: Mapping[int, int]
) -> dict[str, Any]:
    from langadapt.vocab import metrics

    lines = metrics.lines_of(texts)
    return metrics.compare(base.tokenizer, new.tokenizer, texts, [], base.spelling) | {
        "held_out_lines": len(lines),
        "held_out_lines_same_ids": metrics.same_ids_share(base.tokenizer, new.tokenizer, lines, ids),
    }


def _tables(model: Input, base: "TokenizerFile") -> dict[str, int]:
    """Rows, width, number and bytes a value of the model's tables; only rows, by its config, without weights."""
    from langadapt.model.facts import model_facts, table_width
    from langadapt.model.weights import BYTES_PER_VALUE, INDEX, SINGLE

    if not any((model.path / name).is_file() for name in (SINGLE, INDEX)):
        return {"rows": table_rows(model.path, base)}
    facts = model_facts(model.path)
    return {
        "rows": int(facts["rows"]),
        "width": table_width(facts),
        "number": 1 if facts["tied"] else 2,
        "bytes": BYTES_PER_VALUE.get(str(facts["dtype"]), 4),
    }


def _saved(tables: Mapping[str, int], rows: int) -> dict[str, int | None]:
    """Parameters that the model will have less, and their bytes as it is stored."""
    if "width" not in tables:
        return {"parameters_saved": None, "bytes_saved": None}
    values = (tables["rows"] - rows) * tables["width"] * tables["number"]
    return {"parameters_saved": values, "bytes_saved": values * tables["bytes"]}


def _map_lines(
    base: "TokenizerFile", found: "Trimmed", ids: Mapping[int, int], family: str, tables: Mapping[str, int]
) -> list[dict[str, object]]:
    """vocab_map.jsonl: a header, then one line for each token that stayed, by new id."""
    pieces = {number: piece for piece, number in base.pieces.items()}
    header: dict[str, object] = {
        "mode": "trim",
        "old_rows": tables["rows"],
        "vocabulary_before": base.next_id,
        "vocabulary_after": len(ids),
        "family": family,
    }
    lines: list[dict[str, object]] = [
        {
            "id": new,
            "old_id": old,
            "piece": pieces[old],
            "count": found.uses.get(old, 0),
            "reason": found.reasons[old],
        }
        for old, new in sorted(ids.items())
    ]
    return [header, *lines]


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Price by the size of text and vocabulary; how much can go is not known before the text was read."""
    model, corpora = one(inputs, "model"), many(inputs, "corpora")
    text = sum(min(size_of(corpus), config.max_corpus_bytes) for corpus in corpora)
    tokens = _tokens(model)
    facts: dict[str, object] = {"langs": langs_of(corpora), "words_changed": 0} if config.size is None else {}
    if config.size is not None:
        facts |= {"vocabulary_after": config.size, "added": 0, "renumbered": True}
    rows = [("text read", show_bytes(text)), ("tokens now", "-" if tokens is None else f"{tokens:,}")]
    if config.size is not None:
        rows.append(("tokens to keep", f"{config.size:,}"))
    return Estimate(
        # measured with SmolLM2 on 15 MB: libraries and checks 8 s, text 2 MB/s, 100,000 tokens 3 s
        seconds=8 + text / 2_000_000 + (tokens or 50_000) / 33_000,
        memory_bytes=600_000_000 + 6 * text,
        disk_bytes=150 * (tokens or 50_000),
        facts=facts,
        rows=tuple(rows),
    )


def _tokens(model: Input) -> int | None:
    if not model.exists:
        return int(model.facts["rows"]) if "rows" in model.facts else None
    from langadapt.vocab import tokenizer_file

    return tokenizer_file.read(model.path).next_id


def table(artifact: Artifact) -> Table:
    """Before and after."""
    facts = artifact.facts
    rows = [
        ("tokens in the vocabulary", f"{facts['vocabulary_before']:,}", f"{facts['vocabulary_after']:,}"),
        *(
            (name, *("-" if facts[key][side] is None else f"{facts[key][side]:.2f}" for side in ("base", "adapted")))
            for name, key in (("tokens per word", "tokens_per_word"), ("bytes per token", "bytes_per_token"))
        ),
    ]
    notes = [f"{facts['words_changed']:,} of {facts['words']:,} words of the text are cut otherwise than before"]
    if facts["held_out_lines_same_ids"] is not None:
        same = 100 * facts["held_out_lines_same_ids"]
        notes.append(f"{same:.2f} % of {facts['held_out_lines']:,} unseen lines keep all their tokens")
    if facts["parameters_saved"] is not None:
        saved = show_bytes(facts["bytes_saved"])
        notes.append(f"{facts['parameters_saved']:,} parameters fewer ({saved}) after init-embeddings")
    return Table("Vocabulary", ("", "base", "trimmed"), tuple(rows), tuple(notes))
