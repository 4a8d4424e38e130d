"""Refine rows of new tokens so that the model sees a word as it saw the word's old pieces (token distillation)."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Artifact, Output
from langadapt.core.errors import ConfigError, LangadaptError
from langadapt.core.inputs import Input, Inputs, one
from langadapt.core.io import pretty_json, write_durably
from langadapt.core.types import Estimate, Table
from langadapt.steps._refine_config import Config

if TYPE_CHECKING:
    from langadapt.embed.snippets import Snippets
    from langadapt.steps._refine_given import Given
    from langadapt.train.refine import Plan, Refined

KIND = "model"
SCHEMA = 1
HEAVY = True
# Digits that survive another number of threads.
_DIGITS = 6
# Times the longest old row: learning at the usual rate leaves new rows within those of old ones.
_RAN_AWAY = 100.0
# Facts of init-embeddings that were measured on rows which are others now.
_OF_ROWS_AS_MADE = ("head_mass_nats_mean", "head_mass_nats_highest", "duplicate_rows")


def run(config: Config, out: Output) -> Artifact:
    """Find snippets, score, move the rows, write the folder, check it, score again."""
    from langadapt.model.compute import choose_device, repeatable, threads_set

    with threads_set(config.threads), repeatable(choose_device(config.device)):
        return _run(config, out)


def _run(config: Config, out: Output) -> Artifact:
    from langadapt.model.compute import choose_device, resolve_compute
    from langadapt.model.facts import model_facts
    from langadapt.steps import _refine_scores as scores
    from langadapt.steps._refine_given import check_lengths, open_given, prefix_of, seen_ids, snippets_of
    from langadapt.train.refine import make_plan

    model = one(out.inputs, "model")
    _check_layer(config, model.path)
    given, device = open_given(out.inputs), choose_device(config.device)
    compute = resolve_compute(config.compute, device)
    corpora = _corpora(out.inputs)
    learned, held_out = snippets_of(given, corpora["target"], out.progress, **_search(config))
    if held_out is None:
        out.progress.warn("the text holds out no snippets: what was learned is not measured on text that was not read")
    sets, kept = scores.sets_of(config, corpora), out.partial
    check_lengths(model.path, given, (learned, held_out), sets, config.context_bytes)
    ids = seen_ids(learned.counts)
    missing = len(given.new_ids) - len(ids)
    if missing:
        out.progress.note(f"{missing:,} of {len(given.new_ids):,} new tokens stand in no text and stay as they are")
    separator = scores.choose_prefix(config.document_separator, model, given.tokenizer, corpora, out.progress)
    prefixes = prefix_of(given, separator)
    score = partial(
        scores.score,
        sets=sets,
        kept=kept,
        prefix=prefixes[0],
        context_bytes=config.context_bytes,
        compute=compute,
        device=device,
        progress=out.progress,
    )
    score(scores.BEFORE, model.path)
    plan = make_plan(config, len(learned))
    refined = _refine(config, out, given, learned, held_out, ids.tolist(), prefixes, plan)
    facts = _write(out, refined, learned.counts, ids.tolist())
    score(scores.AFTER, out.folder)
    langs = {name: str(corpus.facts.get("lang") or "und") for name, corpus in corpora.items()}
    bits = scores.compare(sets, langs, int(model_facts(out.folder)["rows"]), kept, config.seed)
    measured = {
        name: {end: round(value, _DIGITS) for end, value in ends.items()} for name, ends in refined.measured.items()
    }
    report = {"held_out": measured, "bits_per_byte": bits}
    write_durably(out.folder / "refined.json", pretty_json(report))
    out.run_record["computed_with"] = refined.computed_with
    return out.commit(
        {
            **{name: value for name, value in model.facts.items() if name not in _OF_ROWS_AS_MADE},
            **model_facts(out.folder),
            **facts,
            "refined": len(ids),
            "without_snippets": missing,
            "layer": config.layer,
            "snippets": len(learned),
            "held_out_snippets": 0 if held_out is None else len(held_out),
            "steps": refined.steps,
            "epochs": round(plan.epochs, 3),
            "learning_rate": config.learning_rate,
            "refine_separator": separator,
            "final_loss": refined.final_loss,
            **report,
        }
    )


def _refine(
    config: Config,
    out: Output,
    given: "Given",
    learned: "Snippets",
    held_out: "Snippets | None",
    ids: list[int],
    prefixes: tuple[int, int],
    plan: "Plan",
) -> "Refined":
    from langadapt.model.compute import choose_device, resolve_compute
    from langadapt.train.distill import Goal
    from langadapt.train.refine import Around, make_distiller, refine

    device = choose_device(config.device)
    goal = Goal(*prefixes, layer=config.layer, next_token=config.next_token, old_table=given.old_table)
    distiller = make_distiller(one(out.inputs, "model").path, ids, goal, device)
    out.progress.note(
        f"{len(ids):,} rows, {len(learned):,} snippets, each read {plan.epochs:,.1f} times: {plan.steps:,} steps of "
        f"{plan.batch}"
    )
    around = Around(
        snippet_at=learned.__getitem__,
        held_out=[] if held_out is None else [held_out[at] for at in range(len(held_out))],
        decode=lambda tokens: str(given.tokenizer.decode(list(tokens))),
        run=out.identity.fingerprint,
        folder=out.partial,
        progress=out.progress,
        compute=resolve_compute(config.compute, device),
        device=device,
        timing=lambda step, seconds: out.timing("refine_step", step=step, seconds=round(seconds, 4)),
    )
    return refine(distiller, config, plan, around, max(learned.longest()))


def _write(out: Output, refined: "Refined", counts: Mapping[int, int], ids: list[int]) -> dict[str, Any]:
    """Write the model folder with its records, and check it; returns what the checks found."""
    from langadapt.embed.refined import check_refined, write_record
    from langadapt.model.row_origin import copy_origin
    from langadapt.model.save import write_model
    from langadapt.model.tables import open_tables

    folder = one(out.inputs, "model").path
    tables = open_tables(folder)
    stored = {"input": tables.stored.input, "head": tables.stored.head}
    names = {name: stored[name] for name in refined.rows if stored[name] is not None}
    for table, name in names.items():
        _refuse_runaway(refined.rows[table], tables.weights.read(str(name)))
    replaced = {str(name): _with_rows(tables, str(name), refined.rows[table], ids) for table, name in names.items()}
    write_model(folder, out.folder, replaced, progress=out.progress)
    copy_origin(folder, out.folder)
    write_record(folder, out.folder, {id: counts[id] for id in ids}, names.keys())
    write_durably(out.folder / "metrics.jsonl", refined.journal)
    checks = check_refined(tables, open_tables(out.folder), dict.fromkeys(names, ids))
    outside = sum(int(check.value or 0) for check in checks if "percentile" in check.name)
    if outside:
        out.progress.warn(f"{outside:,} refined rows are shorter or longer than old rows are: see checks.json")
    return {"checks": len(checks), "norms_outside": outside, "refined_tables": sorted(names)}


def _refuse_runaway(rows: Any, table: Any) -> None:
    """LangadaptError if a row is so long that the learning has run away, not only longer than others."""
    import torch

    learned, old = (float(torch.linalg.vector_norm(each, dim=1, dtype=torch.float32).max()) for each in (rows, table))
    if not learned <= _RAN_AWAY * old:
        raise LangadaptError(
            f"the learning has run away: a refined row is {learned:.2g} long, and no row of the model was longer than "
            f"{old:.2g}; nothing was written",
            hint="use another `--out` with a lower `--learning-rate`",
        )


def _with_rows(tables: Any, name: str, rows: Any, ids: list[int]) -> Callable[[], Any]:
    def made() -> Any:
        import torch

        table = tables.weights.read(name)
        table[torch.tensor(ids)] = rows.to(table.dtype)
        return table

    return made


def _corpora(inputs: Inputs) -> dict[str, Input]:
    source = inputs.get("source")
    return {"target": one(inputs, "corpus")} | ({"source": source} if isinstance(source, Input) else {})


def _search(config: Config) -> dict[str, int]:
    return {
        "each": config.snippets,
        "tokens": config.snippet_tokens,
        "most_bytes": config.max_corpus_bytes,
        "held_out": config.held_out_snippets,
    }


def _check_layer(config: Config, folder: Path) -> None:
    from langadapt.model.facts import model_facts

    layers = model_facts(folder)["layers"]
    if config.layer is not None and layers is not None and config.layer > layers:
        raise ConfigError(
            f"the model has {layers} layers, and no number {config.layer}",
            where="layer",
            hint="leave `--layer` out for the last states",
        )


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Time and memory: the snippets are found as in the run, one layer is timed on this machine."""
    from langadapt.steps._refine_price import price

    if one(inputs, "model").exists:
        _check_layer(config, one(inputs, "model").path)
    return price(config, inputs, _corpora(inputs), _search(config))


def table(artifact: Artifact) -> Table:
    """What was refined and what came of it, good or bad."""
    facts = artifact.facts
    rows = [
        ("rows refined", f"{facts['refined']:,}"),
        ("new tokens that stand in no text", f"{facts['without_snippets']:,}"),
        ("snippets", f"{facts['snippets']:,}, read {facts['epochs']:.3g} times in {facts['steps']:,} steps"),
        ("norms outside those of old rows", f"{facts['norms_outside']:,}"),
    ]
    for name, ends in sorted(facts["held_out"].items()):
        words = {"distance": "distance to the old pieces' states", "next token": "nats a token"}[name]
        rows.append((f"held-out snippets: {words}", f"{ends['start']:.4f} -> {ends['end']:.4f}"))
    notes = tuple(entry["sentence"] for _, entry in sorted(facts["bits_per_byte"].items()))
    return Table("Refined rows", ("", "value"), tuple(rows), notes)
