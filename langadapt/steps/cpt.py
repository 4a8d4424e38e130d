"""Continue pretraining on a mixture: bits per byte and forgetting watched, safe to kill, exact to go on."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from langadapt.core.artifact import Artifact, Output
from langadapt.core.config import DataInput, Flag, ModelInput, Reads, Runtime, StepConfig
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input, Inputs
from langadapt.core.io import pretty_json, write_durably
from langadapt.core.languages import Lang
from langadapt.core.types import Estimate, Table
from langadapt.core.units import Count
from langadapt.train.stages import StageOptions
from langadapt.train.subject import adam_of, load_subject, means_of, usual

if TYPE_CHECKING:
    from langadapt.mixture.stream import Stream
    from langadapt.train.branch import Branch, Places
    from langadapt.train.checkpoint import Checkpoints
    from langadapt.train.loop import Surroundings, Trained
    from langadapt.train.plan import Plan
    from langadapt.train.probe import Probe
    from langadapt.train.session import Means
    from langadapt.train.stages import Course
    from langadapt.train.trainable import Trainable

KIND = "model"
SCHEMA = 1
HEAVY = True
# Facts of the model that was given, which stay true of the one that is made.
_KEPT_FACTS = ("method", "base_digest", "base_tables", "old_rows", "added")
# Holds what --lr-probe found.
RATES = "lr_probe.json"
# Tokens of each probe on which a merged model is compared with the trained one.
_COMPARED = 64
_Average = Annotated[float, Field(ge=0, lt=1)]
_Factor = Annotated[float, Field(gt=0)]


class Config(StepConfig):
    """What cpt takes."""

    model: ModelInput
    """Model to train: a folder, a .gguf file or a hub id."""
    data: DataInput
    """Data artifact made by mix with the tokenizer of this model."""
    lang: Annotated[Lang | None, Flag()] = None
    """Language that is being learnt; by default that of the targets. Probes in other languages are guarded."""
    strategy: Annotated[str, Flag()] = "full"
    """Which weights may move; see `langadapt list methods`."""
    strategy_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the strategy, e.g. `strategy_options.rank=16` for lora; docs/methods/ has a page for each."""
    tokens: Annotated[Annotated[Count, Field(ge=1)] | None, Flag()] = None
    """Tokens to train on; by default the target text is read once."""
    steps: Annotated[Annotated[Count, Field(ge=1)] | None, Flag()] = None
    """Optimiser steps; by default tokens / batch_tokens."""
    max_epochs: Annotated[float, Field(gt=0)] = 4.0
    """Most times that the target text may be read; above 16 is an error."""
    learning_rate: Annotated[Annotated[float, Field(gt=0)] | None, Flag()] = None
    """Peak learning rate; by default 3e-4 at 135M parameters, 1e-4 at 1B, 5e-5 at 7B; 2e-4 with an adapter."""
    lr_probe: Annotated[bool, Flag()] = False
    """Try several learning rates for some steps each, pick one, and train with that."""
    lr_probe_factors: Annotated[tuple[_Factor, ...], Field(min_length=1)] = (0.3, 1.0, 3.0)
    """Rates that --lr-probe tries, as multiples of the learning rate."""
    lr_probe_steps: Annotated[int, Field(ge=1)] = 50
    """Steps of each of these short runs, at most those of the run."""
    new_rows_factor: Annotated[float, Field(gt=0)] = 5.0
    """Learning rate of the rows of new tokens, as a multiple of the others'."""
    batch_tokens: Annotated[Count, Field(ge=1)] | None = None
    """Tokens of one optimiser step; by default derived from the budget, 1,024 to 262,144."""
    micro_batch_blocks: Annotated[int, Field(ge=1)] | None = None
    """Blocks computed at once; by default what makes 1,024 tokens on a CPU and 8,192 on a GPU."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps until the learning rate is at its peak; by default 5 % of all."""
    final_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the peak learning rate that is left at the last step."""
    schedule: Annotated[Literal["cosine", "linear", "constant", "wsd"], Flag()] = "cosine"
    """Course of the learning rate; wsd stays at the peak and falls at the end, so that it can be branched."""
    decay_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of all steps in which a wsd run falls."""
    keep_branch: Annotated[bool, Flag()] = False
    """Keep weights and moments as they are before the decay, for --branch-from; 12 bytes a moving parameter."""
    branch_from: Annotated[str, Reads(("model", "checkpoint"), flag_only=True)] | None = None
    """Go on from the state that another run kept, or from a checkpoint; steps count from its beginning."""
    skip_positions: tuple[str, ...] = ()
    """Places of the stream to leave out, `first:last` with the last one excluded; an incident names them."""
    stages: tuple[StageOptions, ...] = ()
    """Parts of the run in which different weights move: share, strategy, learning_rate_factor, warmup_steps."""
    on_bad_step: Literal["stop", "skip"] = "stop"
    """What to do when loss or gradient are not finite: stop, or leave the step out and say so in the ledger."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """AdamW decay of matrices, by default 0.1, and 0 for an adapter; norms, biases and tables have none."""
    betas: tuple[_Average, _Average] = (0.9, 0.95)
    """AdamW's two averages."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest gradient norm; longer gradients are shortened to it."""
    compute: Annotated[Literal["auto", "fp32", "bf16"], Flag()] = "auto"
    """Precision of matrix products; auto: bf16 where the processor has units for it. Weights that move are fp32."""
    weights: Annotated[Literal["fp32", "bf16"], Flag()] = "fp32"
    """Weights while they move; bf16 halves them and rounds stochastically (needs langadapt[lowbit])."""
    moments: Annotated[Literal["fp32", "8bit", "4bit"], Flag()] = "fp32"
    """AdamW's two averages in memory: 8, 2 or 1 bytes a parameter (below fp32 needs langadapt[lowbit])."""
    compile: Annotated[bool, Flag()] = False
    """Compile the layers with torch.compile; needs a C++ compiler, pays off after some hundred steps."""
    gradient_checkpointing: Annotated[Literal["auto", "on", "off"], Flag(), Runtime()] = "auto"
    """Compute activations again instead of keeping them; auto: when memory would not do. Same result."""
    probe_every: Annotated[int, Field(ge=1)] | None = None
    """Steps between measurements of bits per byte; by default a third of the run."""
    max_forgetting: Annotated[float, Flag(), Runtime(), Field(ge=0)] = 0.10
    """Stop when a probe in another language than the target's is worse by more than this share."""
    device: Annotated[Literal["auto", "cpu", "cuda"], Flag(), Runtime()] = "auto"
    """Where to compute."""
    checkpoint_steps: Annotated[int | None, Runtime(), Field(ge=1)] = None
    """Steps between checkpoints; by default half of the run, at most 250."""
    keep_checkpoints: Annotated[int, Runtime(), Field(ge=1)] = 2
    """Checkpoints to keep."""
    threads: Annotated[Annotated[int, Field(ge=1, le=1024)] | None, Runtime()] = None
    """CPU threads; the last bits of a result depend on it, so go on with the number that a run began with."""


def run(config: Config, out: Output) -> Artifact:
    """Train, and write the model folder."""
    from langadapt.model.compute import threads_set

    with threads_set(config.threads):
        return _run(config, out)


def _run(config: Config, out: Output) -> Artifact:
    from langadapt.mixture.stream import Stream
    from langadapt.model.facts import model_facts
    from langadapt.train.branch import make_places
    from langadapt.train.combine import check_fit, check_options

    given, data = _one(out.inputs, "model"), _one(out.inputs, "data")
    base = {**given.facts, **model_facts(given.path)}
    check_fit(given, data, base)
    check_options(config)
    branch = _branch(config, out.inputs)
    plan = _plan(config, base, data.facts, branch)
    places = make_places(plan.budget.batch_blocks, config.skip_positions, branch)
    stream = Stream.open(data.path)
    out.progress.note(plan.sentence())
    tried = _try_rates(config, out, plan, places, stream) if config.lr_probe else {}
    if tried:
        plan = plan.with_peak(tried["learning_rate"])
    subject, course = load_subject(config, plan, means_of(config, plan), given.path)
    moving = subject.parameters
    facts = _train(config, out, subject, plan, course, places, stream, branch)
    if tried:
        write_durably(out.folder / RATES, pretty_json(tried))
        facts["lr_probe"] = tried
    return out.commit(
        {key: given.facts[key] for key in _KEPT_FACTS if key in given.facts}
        | model_facts(out.folder)
        | facts
        | {
            "lang": _lang(config, data.facts),
            "strategy": config.strategy,
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


def _try_rates(config: Config, out: Output, plan: "Plan", places: "Places", stream: "Stream") -> dict[str, Any]:
    """Short runs at several learning rates; returns what lr_probe.json will hold."""
    from langadapt.train.checkpoint import Checkpoints
    from langadapt.train.probe import langs_of
    from langadapt.train.rates import choose_rate

    given, data = _one(out.inputs, "model"), _one(out.inputs, "data")
    langs, targets = langs_of(data.path / "probes.jsonl"), _target_langs(config, data.facts)

    def attempt(short: "Plan", folder: Path) -> dict[str, dict[str, float]]:
        means = means_of(config, short)
        subject, course = load_subject(config, short, means, given.path)
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
        names=frozenset(langs),
        watched=frozenset(name for name, lang in langs.items() if lang not in targets),
        folder=out.partial,
        progress=out.progress,
    ).content()


def _branch(config: Config, inputs: Inputs) -> "Branch | None":
    if config.branch_from is None:
        return None
    from langadapt.train.branch import open_branch

    return open_branch(_one(inputs, "branch_from"), _one(inputs, "model"), _one(inputs, "data"))


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

    given, data = _one(out.inputs, "model"), _one(out.inputs, "data")
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
    return {"final_loss": journal.last_loss, "probes": journal.summary(), "layout": record["layout"]}


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

    given, data = _one(out.inputs, "model"), _one(out.inputs, "data")
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
    from langadapt.train.session import fit

    given, data = _one(out.inputs, "model"), _one(out.inputs, "data")
    size = sum(file.stat().st_size for file in given.path.iterdir() if file.is_file())
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
        old_rows=given.facts.get("old_rows"),
        new_rows=new_rows_of(given.path),
        vocabulary=int(data.facts["vocabulary"]),
        separator=int(data.facts["document_separator"]),
        result_bytes=0 if trial else size,
        saves_end=not trial,
    )


def _plan(config: Config, model: Mapping[str, Any], data: Mapping[str, Any], branch: "Branch | None" = None) -> "Plan":
    from langadapt.train.plan import make_plan

    rate = usual(config, "learning_rate", None)
    return make_plan(config.model_copy(update={"learning_rate": rate}), model, data, branch)


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Time and memory from facts of model and data, and from one layer timed on this machine."""
    from langadapt.train.combine import facts_of
    from langadapt.train.price import can_be_priced, price

    model, data = facts_of(_one(inputs, "model")), _one(inputs, "data").facts
    branch = inputs.get("branch_from")
    if not can_be_priced(model, data) or (isinstance(branch, Input) and not branch.exists):
        return Estimate(rows=(("cpt", "cannot be priced before model and data are known"),))
    plan = _plan(config, model, data, _branch(config, inputs))
    return price(config, plan, means_of(config, plan), model, data, lang=_lang(config, data))


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
    note = "probes are short held-out passages without context: use evaluate for figures to quote"
    found = [Table("bits per byte", ("probe", "start", "end", "change"), rows, (trained, note))]
    if "lr_probe" in facts:
        from langadapt.train.rates import table_of

        found.insert(0, table_of(facts["lr_probe"]))
    return found


def _one(inputs: Inputs, name: str) -> Input:
    value = inputs[name]
    if not isinstance(value, Input):
        raise ConfigError(f"`{name}` is missing")
    return value


def _target_langs(config: Config, data: Mapping[str, Any]) -> set[str]:
    found = {str(source["lang"]) for source in data["sources"].values() if source["role"] == "target"}
    return found | ({config.lang} if config.lang else set())


def _lang(config: Config, data: Mapping[str, Any]) -> str:
    return config.lang or "+".join(sorted(_target_langs(config, data))) or "und"
