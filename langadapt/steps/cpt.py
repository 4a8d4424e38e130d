"""Continue pretraining on a mixture: bits per byte and forgetting watched, safe to kill, exact to go on."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from langadapt.core.artifact import Artifact, Output
from langadapt.core.config import DataInput, Flag, ModelInput, Runtime, StepConfig
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input, Inputs
from langadapt.core.io import pretty_json, sha256_file, write_durably
from langadapt.core.languages import Lang
from langadapt.core.registry import load_method
from langadapt.core.types import Block, Estimate, Table
from langadapt.core.units import Count, show_bytes, show_seconds

if TYPE_CHECKING:
    from langadapt.mixture.stream import Stream
    from langadapt.train.plan import Plan
    from langadapt.train.session import Means

KIND = "model"
SCHEMA = 1
# Facts of the model that was given, which stay true of the one that is made.
_KEPT_FACTS = ("method", "base_digest", "old_rows", "added")
_Average = Annotated[float, Field(ge=0, lt=1)]
_STORED_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


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
    tokens: Annotated[Annotated[Count, Field(ge=1)] | None, Flag()] = None
    """Tokens to train on; by default the target text is read once."""
    steps: Annotated[Annotated[Count, Field(ge=1)] | None, Flag()] = None
    """Optimiser steps; by default tokens / batch_tokens."""
    max_epochs: Annotated[float, Field(gt=0)] = 4.0
    """Most times that the target text may be read; above 16 is an error."""
    learning_rate: Annotated[Annotated[float, Field(gt=0)] | None, Flag()] = None
    """Peak learning rate; by default 3e-4 at 135M parameters, 1e-4 at 1B, 5e-5 at 7B."""
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
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """AdamW decay of matrices; norms, biases and tables have none."""
    betas: tuple[_Average, _Average] = (0.9, 0.95)
    """AdamW's two averages."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest gradient norm; longer gradients are shortened to it."""
    compute: Annotated[Literal["auto", "fp32", "bf16"], Flag()] = "auto"
    """Precision of matrix products; auto: bf16 where the processor has units for it. Weights that move are fp32."""
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
    from langadapt.train.machine import threads_set

    with threads_set(config.threads):
        return _run(config, out)


def _run(config: Config, out: Output) -> Artifact:
    from langadapt.mixture.stream import Stream
    from langadapt.model.facts import model_facts
    from langadapt.model.load import load_model
    from langadapt.model.save import write_model
    from langadapt.model.tables import table_names

    given, data = _one(out.inputs, "model"), _one(out.inputs, "data")
    base = {**given.facts, **model_facts(given.path)}
    _check_fit(given, data, base)
    plan = _plan(config, base, data.facts)
    out.progress.note(plan.sentence())
    model = load_model(given.path)
    sizes = {name: value.numel() for name, value in model.named_parameters()}
    movable: set[str] = load_method("select", config.strategy)(sizes, table_names(model))

    stream = Stream.open(data.path)
    facts = _train(config, out, model, movable, plan, stream)
    write_model(
        given.path,
        out.folder,
        {name: value for name, value in model.named_parameters() if name in movable},
        progress=out.progress,
    )
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
            "document_separator": int(data.facts["document_separator"]),
            "trained_parameters": sum(sizes[name] for name in movable),
        }
    )


def _train(
    config: Config, out: Output, model: Any, movable: set[str], plan: "Plan", stream: "Stream"
) -> dict[str, Any]:
    """The run itself, and its records into the artifact; returns what it found out."""
    from langadapt.mixture.ledger import ledger
    from langadapt.model.load import load_tokenizer
    from langadapt.train.checkpoint import Checkpoints
    from langadapt.train.journal import Journal
    from langadapt.train.loop import Surroundings
    from langadapt.train.optimiser import AdamSettings
    from langadapt.train.probe import Probe
    from langadapt.train.session import fit

    given, data = _one(out.inputs, "model"), _one(out.inputs, "data")
    separator = int(data.facts["document_separator"])
    means = _means(config, plan)
    tokenizer = load_tokenizer(given.path)
    probe = Probe(
        data.path / "probes.jsonl", model, tokenizer, prefix=separator, compute=means.compute, progress=out.progress
    )
    checkpoints = Checkpoints(
        out.partial / "checkpoints", out.identity.fingerprint, config.keep_checkpoints, out.progress
    )
    around = Surroundings(
        batch_at=_batches(stream, plan.budget.batch_blocks),
        probe=probe,
        watched=probe.names_outside(_target_langs(config, data.facts)),
        decode=lambda tokens: str(tokenizer.decode(list(tokens))),
        journal=Journal(out.partial / "metrics.jsonl"),
        checkpoints=checkpoints,
        folder=out.partial,
        progress=out.progress,
        timing=lambda step, seconds: out.timing("train_step", step=step, seconds=round(seconds, 4)),
    )
    done, record = fit(
        model,
        movable,
        plan,
        means,
        around,
        AdamSettings(
            weight_decay=config.weight_decay,
            betas=config.betas,
            clip=config.clip,
            new_rows_factor=config.new_rows_factor,
        ),
        seed=config.seed,
        max_forgetting=config.max_forgetting,
        old_rows=given.facts.get("old_rows"),
        vocabulary=int(data.facts["vocabulary"]),
        separator=separator,
        result_bytes=sum(file.stat().st_size for file in given.path.iterdir() if file.is_file()),
    )
    out.run_record["computed_with"] = record
    journal = around.journal
    account = ledger(stream.plan, done.step * plan.budget.batch_blocks, done.consumed)
    if account["balance_tokens"] != 0:
        raise DataError(f"the token ledger does not balance: {account['balance_tokens']:,} tokens differ")
    write_durably(out.folder / "metrics.jsonl", journal.path.read_bytes())
    write_durably(out.folder / "probes.json", pretty_json(journal.curves()))
    write_durably(out.folder / "ledger.json", pretty_json(account))
    return {"final_loss": journal.last_loss, "probes": journal.summary(), "layout": record["layout"]}


def _plan(config: Config, model: Mapping[str, Any], data: Mapping[str, Any]) -> "Plan":
    from langadapt.train.plan import make_plan

    return make_plan(config, model, data)


def _means(config: Config, plan: "Plan") -> "Means":
    from langadapt.model.compute import resolve_compute
    from langadapt.train.machine import choose_device
    from langadapt.train.session import Means

    device = choose_device(config.device)
    chosen = {"compute"} if config.compute != "auto" else set()
    return Means(
        compute=resolve_compute(config.compute),
        device=device,
        micro_batch_blocks=plan.micro_batch_blocks(device.type, config.micro_batch_blocks),
        chosen=frozenset(chosen | ({"micro_batch_blocks"} if config.micro_batch_blocks else set())),
    )


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Time and memory from facts of model and data, and from one layer timed on this machine."""
    from langadapt.train import cost
    from langadapt.train.machine import threads_set

    model, data = _model_facts(_one(inputs, "model")), _one(inputs, "data").facts
    needed = {"parameters", "rows", "hidden_size", "layers", "tied"}
    if not needed <= model.keys() or not {"sources", "block_tokens"} <= data.keys():
        return Estimate(rows=(("cpt", "cannot be priced before model and data are known"),))
    plan = _plan(config, model, data)
    means = _means(config, plan)
    tables = int(model["rows"]) * int(model["hidden_size"]) * (1 if model["tied"] else 2)
    trained = int(model["parameters"]) if config.strategy != "embeddings" else tables
    shape = cost.Shape(
        int(model["parameters"]), trained, int(model["rows"]), int(model["hidden_size"]), int(model["layers"]),
        bool(model["tied"]),
    )  # fmt: skip
    work = cost.Work(plan.block_tokens, plan.budget.batch_blocks, means.micro_batch_blocks, means.compute)
    with threads_set(config.threads):
        step = cost.step_seconds(shape, work, device=means.device)
    weights = shape.parameters * _STORED_BYTES.get(str(model.get("dtype")), 4)
    checkpoint = cost.checkpoint_bytes(trained)
    times = cost.Times(
        step=step,
        steps=plan.budget.steps,
        checkpoints=(plan.budget.steps - 1) // plan.checkpoint_every,
        probes=-(-plan.budget.steps // plan.probe_every) + 1,
        probe_tokens=_probe_tokens(data),
    )
    memory = cost.memory_bytes(shape, work)
    # a stopped run writes one more than those that fall due; the oldest goes after the newest is complete
    disk = min(config.keep_checkpoints + 1, times.checkpoints + 1) * checkpoint + weights
    facts: dict[str, object] = {
        **model,
        "lang": _lang(config, data),
        "strategy": config.strategy,
        "steps": plan.budget.steps,
        "tokens": plan.budget.tokens,
        "trained_parameters": trained,
        "epochs": plan.target_epochs,
    }
    rows = (
        *plan.rows(),
        ("a step", f"{show_seconds(step)} ({plan.budget.batch_tokens / step:,.0f} tokens a second, {means.compute})"),
        ("checkpoints", f"every {plan.checkpoint_every} steps, {show_bytes(checkpoint)} each"),
    )
    seconds = times.seconds(shape, work, checkpoint, weights)
    return Estimate(seconds=seconds, memory_bytes=memory, disk_bytes=disk, facts=facts, rows=rows)


def _model_facts(model: Input) -> Mapping[str, Any]:
    if "parameters" in model.facts or not model.exists:
        return model.facts
    from langadapt.model.facts import model_facts

    return {**model.facts, **model_facts(model.path)}


def _probe_tokens(data: Mapping[str, Any]) -> int:
    """Tokens of all probes together; 4 kB each where mix has not run yet."""
    sources = data["sources"].values()
    per_token = sum(float(source["bytes_per_token"]) for source in sources) / max(1, len(sources))
    probes = data.get("probe_bytes", dict.fromkeys(data["sources"], 4000))
    return round(sum(int(size) for size in probes.values()) / per_token)


def table(artifact: Artifact) -> Table:
    """Bits per byte of the probes before and after."""
    facts = artifact.facts
    rows = tuple(
        (name, f"{ends['start']:.3f}", f"{ends['end']:.3f}", f"{ends['end'] / ends['start'] - 1:+.1%}")
        for name, ends in sorted(facts["probes"].items())
    )
    trained = (
        f"{facts['tokens']:,} tokens in {facts['steps']:,} steps; {facts['trained_parameters']:,} parameters moved"
    )
    note = "probes are short held-out passages without context: use evaluate for figures to quote"
    return Table("bits per byte", ("probe", "start", "end", "change"), rows, (trained, note))


def _batches(stream: "Stream", blocks: int) -> Callable[[int], list[Block]]:
    return lambda step: [stream.block(step * blocks + offset) for offset in range(blocks)]


def _check_fit(model: Input, data: Input, base: Mapping[str, Any]) -> None:
    from langadapt.model.facts import check_positions

    tokenizer = model.path / "tokenizer.json"
    if data.facts.get("tokenizer_digest") != (sha256_file(tokenizer) if tokenizer.is_file() else None):
        raise DataError(
            f"`{data.given}` was tokenised with another tokenizer than that of `{model.given}`",
            hint="run `langadapt mix` with this model",
        )
    if int(data.facts["vocabulary"]) > int(base["rows"]):
        raise DataError(f"`{data.given}` is for {data.facts['vocabulary']:,} rows, the model has {base['rows']:,}")
    check_positions(
        model.path,
        int(data.facts["block_tokens"]),
        f"blocks of `{data.given}` have",
        "make it again with shorter blocks: langadapt mix ... --block-tokens {}",
    )


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
