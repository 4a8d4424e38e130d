"""The price of refine-embeddings: snippets are found as in the run, one layer is timed on this machine."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from langadapt.core.errors import DataError
from langadapt.core.host import timed_rows
from langadapt.core.inputs import Input, Inputs, one
from langadapt.core.progress import Progress
from langadapt.core.types import Estimate
from langadapt.core.units import show_bytes, show_seconds
from langadapt.steps._refine_scores import sets_of

if TYPE_CHECKING:
    import torch

    from langadapt.embed.snippets import Snippets
    from langadapt.model.compute import Compute
    from langadapt.steps._refine_config import Config
    from langadapt.train.footprint import Shape

# Program start, choosing the separator, loading three times, writing, hashing and comparing what was written.
_START_SECONDS, _SECONDS_A_GIGABYTE = 12.0, 14.0
# Python, torch, transformers, two tokenizers, and what scoring left of the heap.
_PROGRAM_BYTES = 650_000_000
_MEASUREMENTS = 4


def price(config: "Config", inputs: Inputs, corpora: Mapping[str, Input], search: Mapping[str, int]) -> Estimate:
    """Time, memory and disk; nothing but problems while model or text are not there yet."""
    from langadapt.model.compute import busy_with, choose_device, repeatable, resolve_compute, threads_set
    from langadapt.model.facts import model_facts
    from langadapt.model.weights import BYTES_PER_VALUE
    from langadapt.steps._refine_given import check_lengths, open_given, seen_ids, snippets_of
    from langadapt.train.footprint import shape_of
    from langadapt.train.refine import make_plan

    model = one(inputs, "model")
    teacher = inputs.get("teacher")
    there = [model, *corpora.values(), *([teacher] if isinstance(teacher, Input) else [])]
    if not all(item.exists for item in there):
        return Estimate(facts=dict(model.facts), rows=(("refine", "cannot be priced before model and text are there"),))
    given = open_given(inputs)
    learned, held_out = snippets_of(given, corpora["target"], Progress(), **search)
    check_lengths(model.path, given, (learned, held_out), sets_of(config, corpora), config.context_bytes)
    facts, ids = model_facts(model.path), seen_ids(learned.counts)
    if not all(facts.get(name) for name in ("parameters", "rows", "hidden_size", "layers")):
        raise DataError(f"`{model.given}` does not say how large it is", hint="run it without `--dry-run`")
    shape = shape_of(
        parameters=int(facts["parameters"]), rows=int(facts["rows"]), hidden=int(facts["hidden_size"]),
        layers=int(facts["layers"]), tied=bool(facts["tied"]), moves="none",
    )  # fmt: skip
    plan, device = make_plan(config, len(learned)), choose_device(config.device)
    compute = resolve_compute(config.compute, device)
    with threads_set(config.threads), repeatable(device):
        parts = _snippet_seconds(config, shape, learned, plan.micro_batch, compute, device)
        scoring, scoring_bytes = _scoring(config, shape, corpora, compute)
    step = plan.batch * parts
    measuring = _MEASUREMENTS * (0 if held_out is None else len(held_out)) * parts * 2 / 3
    weights = int(facts["parameters"]) * BYTES_PER_VALUE.get(str(facts["dtype"]), 4)
    seconds = _START_SECONDS + _SECONDS_A_GIGABYTE * weights / 1e9 + scoring + plan.steps * step + measuring
    moving = len(ids) * shape.hidden * (2 if config.next_token and not facts["tied"] else 1)
    teacher_bytes = 0 if given.old_table is None else given.old_table.numel() * given.old_table.element_size()
    on_cpu = device.type == "cpu"
    held = _training_bytes(config, shape, learned, plan.micro_batch, compute, weights, on_cpu=on_cpu)
    memory = max(scoring_bytes, _PROGRAM_BYTES + held + teacher_bytes)
    passing = (config.keep_checkpoints + 1) * 12 * moving
    predicted: dict[str, object] = {**model.facts, **facts, "refined": len(ids), "snippets": len(learned)}
    new, old = learned.tokens()
    return Estimate(
        seconds=seconds,
        memory_bytes=round(memory + 12 * moving),
        disk_bytes=weights + passing + 30_000_000,
        passing_bytes=passing,
        facts=predicted,
        rows=(
            ("new tokens", f"{len(ids):,} of {len(given.new_ids):,} stand in the text"),
            ("snippets", f"{len(learned):,}: {new:,} new tokens, {old:,} old pieces"),
            ("read", f"{plan.epochs:.3g} times in {plan.steps:,} steps of {plan.batch}"),
            ("a step", f"{show_seconds(step)} ({compute})"),
            ("scoring before and after", show_seconds(scoring)),
            *timed_rows(busy_with(device)),
            ("model files", show_bytes(weights)),
        ),
        timed=True,
    )


def _snippet_seconds(
    config: "Config", shape: "Shape", learned: "Snippets", micro_batch: int, compute: "Compute", device: "torch.device"
) -> float:
    """Seconds of one snippet: the student there and back (two of three products), the teacher there."""
    from langadapt.train.cost import layer_seconds
    from langadapt.train.footprint import Work

    new, old = (tokens / len(learned) + 1 for tokens in learned.tokens())
    a_token = layer_seconds(shape, Work(max(1, round(new)), micro_batch, micro_batch, compute), device=device)
    layers = min(config.layer or shape.layers, shape.layers)
    student = new * layers * 2 / 3
    if config.next_token:
        # all layers there, and the head as wide as so many layers
        student += new * ((shape.layers - layers) / 3 + shape.rows / shape.layer_width / 3)
    return a_token * (student + old * layers / 3)


def _scoring(config: "Config", shape: "Shape", corpora: Mapping[str, Input], compute: "Compute") -> tuple[float, int]:
    """Seconds and memory of scoring the held-out texts with the model before and after."""
    from langadapt.evaluate.price import model_cost, window_bytes
    from langadapt.model.compute import matrix_rate

    read = sum(window_bytes(chosen, config.context_bytes) for chosen in sets_of(config, corpora).values())
    cost = model_cost((shape.parameters, shape.rows), _BYTES_PER_TOKEN, read, compute, matrix_rate(compute))
    return 2 * cost.seconds, cost.memory_bytes


# Between that of the new language, which has new tokens, and that of a language that the base knows.
_BYTES_PER_TOKEN = 3.5


def _training_bytes(
    config: "Config",
    shape: "Shape",
    learned: "Snippets",
    micro_batch: int,
    compute: "Compute",
    weights: int,
    *,
    on_cpu: bool,
) -> float:
    """The most of three times: while it loads, weights in fp32 and as stored; while it learns, weights as stored, what
    bf16 products copy of them, the student's activations; and, on a CPU, while the result is scored, weights in fp32,
    logits, and the heap of learning, which the C library keeps (2 GB at 16 snippets and 1.8 at 4 were measured so).
    """
    from langadapt.model.score import BATCH_TOKENS
    from langadapt.train.footprint import Work, activation_bytes, hole_bytes

    work = Work(max(learned.longest()), micro_batch, micro_batch, compute)
    layers = min(config.layer or shape.layers, shape.layers) if not config.next_token else shape.layers
    tokens = micro_batch * learned.longest()[0]
    heap = tokens * layers * activation_bytes(shape, work)
    heap += hole_bytes(shape, tokens, compute) * layers / shape.layers if on_cpu else 0
    # matrices stored in fp32 are narrowed for each forward pass, and the copies live as long as it does
    heap += 2.0 * shape.body if compute == "bf16" and weights >= 4 * shape.parameters else 0.0
    logits = BATCH_TOKENS * shape.rows * (2 if compute == "bf16" else 4)
    scoring = 4.0 * shape.parameters + logits + heap if on_cpu else 0.0
    return max(4.0 * shape.parameters + weights, weights + heap, scoring)
