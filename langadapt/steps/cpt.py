"""Continue pretraining on a mixture: bits per byte and forgetting watched, safe to kill, exact to go on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Artifact, Output
from langadapt.core.errors import DataError
from langadapt.core.inputs import Input, Inputs, one
from langadapt.core.io import pretty_json, write_durably
from langadapt.core.types import Estimate, Table
from langadapt.steps._cpt_choice import Chooser, adapters_of, check_wishes
from langadapt.steps._cpt_config import Config
from langadapt.steps._cpt_price import check_branch, known_of, with_choice
from langadapt.train.subject import adam_of, load_subject, means_of, usual

if TYPE_CHECKING:
    from langadapt.mixture.stream import Stream
    from langadapt.train.around import Surroundings
    from langadapt.train.branch import Branch, Places
    from langadapt.train.checkpoint import Checkpoints
    from langadapt.train.gauge import Gauge
    from langadapt.train.loop import Trained
    from langadapt.train.optimiser import Optimiser
    from langadapt.train.plan import Plan
    from langadapt.train.probe import Probe
    from langadapt.train.session import Means
    from langadapt.train.stages import Course
    from langadapt.train.trainable import Trainable

KIND = "model"
SCHEMA = 1
HEAVY = True
EXAMPLES = (
    "langadapt cpt base data --out adapted --dry-run",
    "langadapt cpt base data --out adapted --steps 400",
    "langadapt cpt base data --strategy ssu --source en --out adapted",
    "langadapt cpt base data --selection shielded --out adapted",
)
# Facts of the model that was given, which stay true of the one that is made.
_KEPT_FACTS = ("method", "base_digest", "base_tables", "old_rows", "added")
# Holds what --lr-probe found.
RATES = "lr_probe.json"
# Tokens of each probe on which a merged model is compared with the trained one.
_COMPARED = 64


def check(config: Config) -> None:
    """ConfigError for options that exclude each other, and for those that no strategy has."""
    from langadapt.train.combine import check_combination, check_options
    from langadapt.train.stages import adapter_in_stage, shares_of

    check_wishes(config)
    check_options(config)
    shares_of(config.stages)
    for name in adapters_of(config):
        if config.stages:
            raise adapter_in_stage(name)
        check_combination(config, adapter=True)


def run(config: Config, out: Output) -> Artifact:
    """Train, and write the model folder."""
    from langadapt.model.compute import choose_device, repeatable, threads_set

    with threads_set(config.threads), repeatable(choose_device(config.device), config.deterministic):
        return _run(config, out)


def _run(config: Config, out: Output) -> Artifact:
    from langadapt.mixture.stream import Stream
    from langadapt.model.facts import model_facts
    from langadapt.train.branch import make_places
    from langadapt.train.combine import check_fit

    given, data = one(out.inputs, "model"), one(out.inputs, "data")
    base = {**given.facts, **model_facts(given.path)}
    check_fit(given, data, base)
    branch = _branch(config, out.inputs)
    plan = _plan(config, base, data.facts, branch)
    places = make_places(plan.budget.batch_blocks, config.skip_positions, branch)
    stream = Stream.open(data.path)
    out.progress.note(plan.sentence())
    chooser = Chooser(config, out)
    if config.lr_probe:
        _watched(config, data)  # refused before anything is measured
    chooser.prepare(plan.budget.tokens)
    tried = _try_rates(config, out, plan, places, stream, chooser) if config.lr_probe else {}
    if tried:
        plan = plan.with_peak(tried["learning_rate"])
    subject, course = load_subject(config, plan, means_of(config, plan), given.path, chooser)
    chooser.tell(subject.may_move())
    moving = subject.parameters
    facts = _train(config, out, subject, plan, course, places, stream, branch)
    if tried:
        write_durably(out.folder / RATES, pretty_json(tried))
        facts["lr_probe"] = tried
    facts |= chooser.write(subject.may_move())
    return out.commit(
        {key: given.facts[key] for key in _KEPT_FACTS if key in given.facts}
        | model_facts(out.folder)
        | facts
        | {
            "lang": _lang(config, data.facts),
            "strategy": config.strategy if config.selection is None else "selection",
            "steps": plan.budget.steps,
            "tokens": plan.budget.tokens,
            "batch_tokens": plan.budget.batch_tokens,
            "epochs": plan.target_epochs,
            "learning_rate": plan.schedule.peak,
            "schedule": plan.schedule.kind,
            "document_separator": int(data.facts["document_separator"]),
            "trained_parameters": moving,
        }
    )


def _try_rates(
    config: Config, out: Output, plan: "Plan", places: "Places", stream: "Stream", chooser: Chooser
) -> dict[str, Any]:
    """Short runs at several learning rates; returns what lr_probe.json will hold."""
    from langadapt.train.checkpoint import Checkpoints
    from langadapt.train.rates import choose_rate

    given = one(out.inputs, "model")

    def attempt(short: "Plan", folder: Path) -> dict[str, dict[str, float]]:
        means = means_of(config, short)
        subject, course = load_subject(config, short, means, given.path, chooser)
        kept = Checkpoints(folder / "checkpoints", out.identity.fingerprint, 1, out.progress)
        around, _ = _surroundings(config, out, subject, means, places, stream, kept, "lr_probe_step")
        # nothing is guarded here: which rates forget too much is decided when all have been tried
        _fit(config, out, subject, short, course, means, replace(around, watched=frozenset()), None, trial=True)
        return around.journal.summary()

    return choose_rate(
        plan,
        config.lr_probe_factors,
        config.lr_probe_steps,
        config.checkpoint_steps,
        attempt,
        watched=_watched(config, one(out.inputs, "data")),
        folder=out.partial,
        progress=out.progress,
    ).content()


def _watched(config: Config, data: Input) -> frozenset[str]:
    """The probes that are guarded while rates are tried. ConfigError: the data have nothing to compare rates by."""
    from langadapt.train.probe import langs_of
    from langadapt.train.rates import watched_in

    return watched_in(langs_of(data.path / "probes.jsonl"), _target_langs(config, data.facts))


def _branch(config: Config, inputs: Inputs) -> "Branch | None":
    if config.branch_from is None:
        return None
    from langadapt.train.branch import open_branch

    return open_branch(one(inputs, "branch_from"), one(inputs, "model"), one(inputs, "data"))


def _train(
    config: Config,
    out: Output,
    subject: "Trainable",
    plan: "Plan",
    course: "Course",
    places: "Places",
    stream: "Stream",
    branch: "Branch | None",
) -> dict[str, Any]:
    """The run itself, and its records into the artifact; returns what it found out."""
    from langadapt.mixture.ledger import ledger
    from langadapt.train.branch import FOLDER, origin_of, words
    from langadapt.train.checkpoint import Checkpoints

    given, data = one(out.inputs, "model"), one(out.inputs, "data")
    means = means_of(config, plan)
    checkpoints = Checkpoints(
        out.partial / "checkpoints",
        out.identity.fingerprint,
        config.keep_checkpoints,
        out.progress,
        pinned=frozenset() if plan.kept_step is None else frozenset({plan.kept_step}),
        origin=origin_of(
            given,
            data,
            places,
            batch_tokens=plan.budget.batch_tokens,
            learning_rate=plan.schedule.peak,
            warmup_steps=plan.schedule.warmup_steps,
        ),
    )
    around, probe = _surroundings(config, out, subject, means, places, stream, checkpoints, "train_step")
    done, record = _fit(config, out, subject, plan, course, means, around, branch)
    out.run_record["computed_with"] = record
    journal = around.journal
    end = places.end(done.step)
    account = ledger(stream.plan, end, done.consumed, skipped=places.skipped_before(end))
    if account["balance_tokens"] != 0:
        raise DataError(f"the token ledger does not balance: {account['balance_tokens']:,} tokens differ")
    write_durably(out.folder / "metrics.jsonl", journal.content())
    write_durably(out.folder / "probes.json", pretty_json(journal.curves()))
    if places.skipped:
        account["skipped_positions"] = [words(each) for each in places.skipped_before(end)]
    if journal.skipped:
        account["steps_not_learned"] = journal.skipped
    write_durably(out.folder / "ledger.json", pretty_json(account))
    if plan.kept_step is not None:
        checkpoints.copy_pinned(plan.kept_step, out.folder / FOLDER)
    texts = probe.beginnings(_COMPARED) or [list(stream.block(0).tokens)[:_COMPARED]]
    compared = subject.write(given.path, out.folder, texts, progress=out.progress)
    if compared is not None:
        out.run_record["compared"] = compared
    facts = {"final_loss": journal.last_loss, "probes": journal.summary(), "layout": record["layout"]}
    facts |= {"drift": journal.last_beside("drift")}
    shielded = subject.prove_shield(given.path, out.folder, progress=out.progress)
    return facts if shielded is None else facts | {"shield": shielded}


def _surroundings(
    config: Config,
    out: Output,
    subject: "Trainable",
    means: "Means",
    places: "Places",
    stream: "Stream",
    checkpoints: "Checkpoints",
    timing: str,
) -> "tuple[Surroundings, Probe]":
    from langadapt.train.around import surround

    given, data = one(out.inputs, "model"), one(out.inputs, "data")
    return surround(
        subject.model,
        given.path,
        data.path,
        stream.block,
        places,
        separator=int(data.facts["document_separator"]),
        targets=_target_langs(config, data.facts),
        compute=means.compute,
        folder=checkpoints.folder.parent,
        checkpoints=checkpoints,
        progress=out.progress,
        timing=lambda step, seconds: out.timing(timing, step=step, seconds=round(seconds, 4)),
    )


def _fit(
    config: Config,
    out: Output,
    subject: "Trainable",
    plan: "Plan",
    course: "Course",
    means: "Means",
    around: "Surroundings",
    branch: "Branch | None",
    *,
    trial: bool = False,
) -> "tuple[Trained, dict[str, Any]]":
    """Train; a trial writes no result."""
    from langadapt.model.row_origin import new_rows_of
    from langadapt.steps._icl import icl_gauge
    from langadapt.train.ema import averaging_of
    from langadapt.train.session import fit

    given, data = one(out.inputs, "model"), one(out.inputs, "data")
    size = sum(file.stat().st_size for file in given.path.iterdir() if file.is_file())
    old, new = given.facts.get("old_rows"), new_rows_of(given.path)

    def gauges(optimiser: "Optimiser") -> "Sequence[Gauge]":
        found: list[Gauge] = [subject.drift(optimiser, given.path, old_rows=old, new_rows=new)]
        if config.icl_probe:
            separator, most = int(data.facts["document_separator"]), config.max_icl_loss
            found.append(
                icl_gauge(
                    subject.model, given.path, prefix=separator, compute=means.compute, most=most, progress=out.progress
                )
            )
        return found

    return fit(
        subject.model,
        set(subject.names),
        plan,
        course,
        means,
        around,
        adam_of(config, subject.movable),
        seed=config.seed,
        max_forgetting=math.inf if trial else config.max_forgetting,
        bad_step=config.on_bad_step,
        branch=branch,
        old_rows=old,
        new_rows=new,
        parts=subject.parts,
        vocabulary=int(data.facts["vocabulary"]),
        separator=int(data.facts["document_separator"]),
        result_bytes=0 if trial else size,
        gauges=(lambda optimiser: ()) if trial else gauges,
        averaging=None if trial else averaging_of(config, plan.budget.steps),
        saves_end=not trial,
    )


def _plan(config: Config, model: Mapping[str, Any], data: Mapping[str, Any], branch: "Branch | None" = None) -> "Plan":
    from langadapt.train.ema import averaging_of
    from langadapt.train.plan import make_plan
    from langadapt.train.stages import make_course

    # a branch goes on at its own rate, not at what the strategy would begin with
    rate = usual(config, "learning_rate", None) if branch is None else config.learning_rate
    plan = make_plan(config.model_copy(update={"learning_rate": rate}), model, data, branch)
    # refused before anything is loaded
    averaging_of(config, plan.budget.steps)
    make_course(plan.schedule, config.stages)
    return plan


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Time and memory from facts of model and data, and from one layer timed on this machine."""
    from langadapt.steps._icl import question_tokens
    from langadapt.train.combine import facts_of
    from langadapt.train.price import can_be_priced, price

    model, data = facts_of(one(inputs, "model")), one(inputs, "data").facts
    branch = inputs.get("branch_from")
    if not can_be_priced(model, data) or (isinstance(branch, Input) and not branch.exists):
        return Estimate(rows=(("cpt", "cannot be priced before model and data are known"),))
    if config.lr_probe and one(inputs, "data").exists:
        _watched(config, one(inputs, "data"))
    known = known_of(config, inputs)
    plan = _plan(config, model, data, _branch(config, inputs))
    check_branch(known, inputs)
    found = price(
        config,
        plan,
        means_of(config, plan),
        model,
        data,
        lang=_lang(config, data),
        portion=known.portion,
        asked_tokens=question_tokens() if config.icl_probe else 0,
    )
    return with_choice(config, inputs, model, plan.budget.tokens, known, found)


def table(artifact: Artifact) -> list[Table]:
    """Bits per byte of the probes before and after, and of the learning rates that were tried."""
    facts = artifact.facts
    rows = tuple(
        (name, f"{ends['start']:.3f}", f"{ends['end']:.3f}", f"{ends['end'] / ends['start'] - 1:+.1%}")
        for name, ends in sorted(facts["probes"].items())
    )
    trained = (
        f"{facts['tokens']:,} tokens in {facts['steps']:,} steps; {facts['trained_parameters']:,} parameters moved"
    )
    if shield := facts.get("shield"):
        trained += f"; {shield['of'] - shield['may_move']:,} numbers of the model are the base's, bit for bit"
    if drift := facts.get("drift"):
        moved = ", ".join(f"{group.replace('_', ' ')} {share:.2%}" for group, share in drift.items())
        trained += f"; change of the weights as a share of their norm: {moved}"
    note = "probes are short held-out passages without context: use evaluate for figures to quote"
    found = [Table("bits per byte", ("probe", "start", "end", "change"), rows, (trained, note))]
    if "lr_probe" in facts:
        from langadapt.train.rates import table_of

        found.insert(0, table_of(facts["lr_probe"]))
    return found


def _target_langs(config: Config, data: Mapping[str, Any]) -> set[str]:
    found = {str(source["lang"]) for source in data["sources"].values() if source["role"] == "target"}
    return found | ({config.lang} if config.lang else set())


def _lang(config: Config, data: Mapping[str, Any]) -> str:
    return config.lang or "+".join(sorted(_target_langs(config, data))) or "und"
