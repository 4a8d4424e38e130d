"""Add tokens for a language to a tokenizer, without changing how protected text is tokenised."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from langadapt.core.artifact import Artifact, Output
from langadapt.core.errors import DataError
from langadapt.core.inputs import Input, many, one
from langadapt.core.io import pretty_json, read_json_object, write_durably, write_json_lines
from langadapt.core.types import Table
from langadapt.steps._extend_config import Config
from langadapt.steps._extend_guard import guarded
from langadapt.steps._extend_modes import by_language, most, scripts_of, slots_of, stopped, target_of
from langadapt.steps._extend_price import estimate
from langadapt.steps._sentencepiece import companion_of, sample_of
from langadapt.steps._vocabulary import LOADED_TEXTS, lang_of, langs_of, table_rows, texts

__all__ = ["KIND", "SCHEMA", "Config", "estimate", "run", "table"]

KIND = "tokenizer"
SCHEMA = 2
# Unseen protected lines that keep their ids, in a BPE vocabulary with guard text enough.
_ENOUGH = 0.995


def check(config: Config) -> None:
    """ConfigError for a size that does not go with the mode."""
    most(config)


def run(config: Config, out: Output) -> Artifact:
    """Learn, write, and check the extended tokenizer."""
    from langadapt.model.load import load_tokenizer
    from langadapt.vocab import checks, loaded, losses, metrics, slots, tokenizer_file
    from langadapt.vocab.family import Wish, detect
    from langadapt.vocab.freeing import by_script
    from langadapt.vocab.gguf_probe import probe_hash
    from langadapt.vocab.outcome import insist
    from langadapt.vocab.shares import in_units

    limit = most(config)
    model, guards = one(out.inputs, "model"), many(out.inputs, "guard")
    corpora = (one(out.inputs, "corpus"), *many(out.inputs, "also"))
    sample = sample_of([*corpora, *guards])
    out.progress.note(f"reading the tokenizer of {model.given}")
    base, companion = companion_of(model.path, tokenizer_file.read(model.path), sample, out)
    family = detect(base)
    family_name = family.name
    rows = table_rows(model.path, base)
    base_loaded = load_tokenizer(model.path)
    loaded.insist_on_the_file(base_loaded, base)
    if config.size == "auto":
        slots.insist_on_nested(family)
    del family
    scripts = scripts_of(config, corpora, guards, out)
    met: set[str] = set()
    target = target_of(base, corpora, config, met, out)
    protected = guarded(config, base, base_loaded, guards, target, met, out)
    guard = protected.guard
    seen, probe = loaded.Seen.of(base_loaded), {"base": probe_hash(base_loaded)}
    del base_loaded  # a large vocabulary is in memory many times as it is: what is not needed goes, here and below
    free = slots_of(config, base, model.path, rows, guard, target, met, out)

    wish = Wish(
        size=limit,
        curve=config.mode == "append",
        auto=config.size == "auto",
        min_count=config.min_count * target.unit,
        max_token_bytes=config.max_token_bytes,
        split_digits=config.split_digits,
        scripts=scripts,
    )
    grown = slots.grow_into(base, free, target.words, guard, wish, out.progress)
    grown = replace(grown, growth=in_units(grown.growth, target.unit))
    growth, start = grown.growth, grown.start
    asked = growth.notes["asked"] if growth.why else limit
    missing = asked - len(growth.tokens)
    _say_shortfall(config, corpora[0], len(growth.tokens), len(free or ()) or asked, out)
    gone = tuple(grown.gone.values())
    if config.mode == "same-size":
        out.progress.warn(
            f"{len(gone):,} old tokens are given up ({_scripts(by_script(base, gone))}): text that is neither like the "
            "guard's nor like the target's takes more tokens from now on"
        )
    if start is not base:
        start.let_go()
    tokenizer_file.write(start, growth.merges, model.path, out.folder, gone=gone)

    new = tokenizer_file.read(out.folder)
    written = companion.write(new, out.folder, sample) if companion else []
    held_out = [texts(corpus, "held-out") or texts(corpus, "train") for corpus in corpora]
    everything = [text for part in held_out for text in part]
    letters = {letter for text in everything for letter in text}
    for remark in [*losses.lost_letters(base, letters), *losses.cut_marks(base, everything)]:
        out.progress.warn(remark)
    ids = None if free is None else [slot.id for slot in grown.taken]
    checking = out.progress.start("checking the new tokenizer", unit="checks")
    outcomes = checks.file_checks(base, new, grown.family, guard, target.words, start=start, ids=ids, task=checking)
    outcomes += written
    if scripts:
        outcomes.append(checks.holds_script(start, new, grown.family, scripts))
    insist(outcomes)
    unseen = [text for item in guards for text in texts(item, "held-out")]
    measured = metrics.compare(base.tokenizer, new.tokenizer, everything, unseen, base.spelling, out.progress)
    languages = by_language(base.tokenizer, new.tokenizer, corpora, target, held_out) if len(corpora) > 1 else None
    map_lines = slots.map_lines(
        grown,
        config.mode,
        vocabulary_before=base.next_id,
        old_rows=rows,
        vocabulary_after=new.next_id,
        old_splits=slots.splits(base, new, gone),
    )
    write_json_lines(out.folder / "vocab_map.jsonl", map_lines)
    base.let_go()
    del grown, start
    loaded_new = load_tokenizer(out.folder)
    outcomes += loaded.loaded_checks(seen, loaded_new, new, everything[:LOADED_TEXTS], gone=gone)
    checking.advance(len(outcomes) - checking.done, detail=outcomes[-1].name)
    checking.finish()
    insist(outcomes)
    probe["adapted"] = probe_hash(loaded_new)
    if probe["base"] != probe["adapted"]:
        out.progress.warn(
            "llama.cpp will not recognise this tokenizer by its probe text: a GGUF export must carry the name of the "
            "base's pre-tokenizer"
        )
    record = {outcome.name: outcome.record() for outcome in outcomes}
    samples = measured.pop("samples")
    notes = dict(growth.notes) | {"asked": asked, "missing": missing}
    write_durably(
        out.folder / "checks.json",
        pretty_json(
            {
                "checks": record,
                "gguf_probe": probe,
                "guard_let_go": protected.record(base),
                "samples": samples,
                "learning": notes,
                "measured": measured,
            }
        ),
    )
    facts: dict[str, Any] = {
        "lang": config.lang or lang_of(corpora[0]),
        "family": family_name,
        "mode": config.mode,
        "vocabulary_before": base.next_id,
        "vocabulary_after": new.next_id,
        "old_rows": rows,
        "added": len(growth.tokens),
        "missing": missing,
        "stepping_stones": notes["stepping_stones"],
        "guarded_types": len(guard.words),
        "guarded_types_changed": record["guarded_words_kept"]["broken"],
        "unreachable": record["reachable"]["broken"],
        "guard_forms_let_go": len(protected.let_go),
        "guard_langs": langs_of(guards),
        "guard_scripts": sorted(scripts),
        "sentencepiece": companion.name if companion else None,
        "gguf_probe_kept": probe["base"] == probe["adapted"],
        "given_up": len(gone),
        "given_up_by_script": by_script(base, gone),
        **measured,
    }
    if growth.curve is not None:
        curve = growth.curve.record(target.unit)
        if growth.why:
            facts["auto"] = curve["auto"] = stopped(growth.curve, asked, growth.why)
        write_durably(out.folder / "curve.json", pretty_json(curve))
    if languages is not None:
        facts["languages"] = languages
    return out.commit(facts)


def _say_shortfall(config: Config, corpus: Input, added: int, asked: int, out: Output) -> None:
    if not added:
        raise DataError(
            f"`{corpus.given}` gives no new token that occurs {config.min_count} times",
            hint="give more text, or a lower count: -o min_count=2"
            + ("; is the guard text in the target language? its words get no new tokens" if config.guard else ""),
        )
    if added < asked:
        out.progress.warn(f"{added:,} of {asked:,} tokens: no more occur {config.min_count} times in the text")


def table(artifact: Artifact) -> Table:
    """Before and after, with sample lines."""
    facts = artifact.facts
    words, sizes = facts["tokens_per_word"], facts["bytes_per_token"]
    rows = [
        ("tokens in the vocabulary", f"{facts['vocabulary_before']:,}", f"{facts['vocabulary_after']:,}"),
        ("tokens per word", *_pair(words)),
        ("bytes per token", *_pair(sizes)),
    ]
    same = facts["held_out_lines_same_ids"]
    for name, rates in facts.get("languages", {}).items():
        rows.append((f"bytes per token, {name}", *_pair(rates["bytes_per_token"])))
    notes = [
        f"{facts['added']:,} tokens added, {facts['unreachable']} of them unreachable, "
        f"{facts['stepping_stones']:,} mostly steps to longer ones",
        f"{facts['guarded_types']:,} protected words, {facts['guarded_types_changed']} changed",
    ]
    if facts["guard_forms_let_go"]:
        notes.append(
            f"{facts['guard_forms_let_go']:,} forms of them that no text has are not protected: the target is full of "
            "what they forbid (see checks.json)"
        )
    if "auto" in facts:
        notes.append(facts["auto"]["said"])
    if facts["given_up"]:
        scripts = _scripts(facts["given_up_by_script"])
        notes.append(f"{facts['given_up']:,} old tokens given up for them" + (f": {scripts}" if scripts else ""))
    if facts["guard_scripts"]:
        from langadapt.vocab.scripts import script_name

        shown = " or ".join(script_name(script) for script in facts["guard_scripts"])
        notes.append(f"all text without {shown} letters keeps its ids")
    if same is not None:
        kept = f"{100 * same:.2f} % of {facts['held_out_lines']:,} unseen protected lines keep all their ids"
        # what is given up is what protected text does not show
        more = facts["given_up"] and same < _ENOUGH
        notes.append(kept + ("; more guard text, or a smaller size, keeps more of them" if more else ""))
    elif not facts["guard_scripts"]:
        notes.append("unguarded: no guard text was given, so text of other languages may be cut in another way")
    if facts["unspaced_script"]:
        notes.append(f"no tokens per word: {facts['unspaced_script']} puts no spaces between words")
    samples = read_json_object(artifact.file("checks.json"))["samples"]
    for sample in samples:
        notes += [f"before: {sample['base']}", f"after:  {sample['adapted']}"]
    return Table("Vocabulary", ("", "base", "adapted"), tuple(rows), tuple(notes))


def _scripts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{script} {count:,}" for script, count in counts.items())


def _pair(values: Mapping[str, float | None]) -> tuple[str, str]:
    base, adapted = values["base"], values["adapted"]
    return ("-" if base is None else f"{base:.2f}", "-" if adapted is None else f"{adapted:.2f}")
