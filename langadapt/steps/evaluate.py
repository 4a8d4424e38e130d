"""Score base and adapted model on the same held-out bytes, with intervals, a null line and a verdict.

Bits per byte by segment, paired bootstrap, tokenizer figures and continuations.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from langadapt.core.artifact import Artifact, Output
from langadapt.core.config import Flag, Later, ModelInput, Reads, Runtime, StepConfig
from langadapt.core.errors import ConfigError
from langadapt.core.host import timed_rows
from langadapt.core.inputs import Input, Inputs
from langadapt.core.io import pretty_json, write_durably, write_json_lines
from langadapt.core.types import Document, Estimate, Table
from langadapt.core.units import Bytes, show_bytes
from langadapt.model.compute import AskedCompute, AskedDevice, Compute

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from langadapt.evaluate.partial import Partial
    from langadapt.evaluate.segments import ScoringSet

KIND = "scores"
SCHEMA = 1
HEAVY = True

ROLES = ("base", "adapted", "control")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Config(StepConfig):
    base: ModelInput
    """The model before: a folder, a .gguf file or a hub id."""
    adapted: ModelInput
    """The model after."""
    sets: dict[str, Annotated[str, Reads(("corpus",), plain=True, flag_only=True)]]
    """Held-out text to score on, NAME=FOLDER each: corpora made by prepare, or plain text."""
    control: Annotated[str, Reads(("model",), True, "langadapt.model.load:resolve", True)] | None = None
    """A third model to compare the adapted one with, such as one trained alike without the new vocabulary."""
    set_bytes: Annotated[Bytes, Flag()] = 30_000
    """Bytes of text scored per set, in at least 50 segments where the set has them."""
    segment_bytes: Bytes = 600
    """Longest segment; segments are what the bootstrap resamples."""
    context_bytes: Bytes = 1200
    """Most bytes of preceding text that a segment may see."""
    continuations: Annotated[int, Field(ge=0, le=100)] = 4
    """Prompts of the target language that every model continues."""
    document_separator: str = "auto"
    """Token before each document: `auto` takes the one the adapted model was trained with, else measures; a model that
    lacks it gets its own."""
    compute: Annotated[AskedCompute, Flag()] = "auto"
    """Precision of the forward pass: `auto` is bf16 on a CPU or GPU with bf16 units, else fp32; same for all models."""
    device: Annotated[AskedDevice, Flag(), Runtime()] = "auto"
    """Where to compute."""
    icl: Annotated[bool, Flag(), Later()] = False
    """Ask every model questions that are answered from examples in the prompt, in no language."""
    bootstrap_samples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    """Replicates of the paired bootstrap."""


def check(config: Config) -> None:
    """ConfigError without held-out text, or for names and sizes of it that cannot be."""
    if not config.sets:
        raise ConfigError("`evaluate` needs held-out text", hint="name it: --set hu=FOLDER")
    for name in config.sets:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"`{name}` cannot name a set: use letters, digits, `-` and `_`")
    if min(config.set_bytes, config.segment_bytes) < 50 or config.context_bytes < 0:
        raise ConfigError("`set_bytes` and `segment_bytes` must be at least 50, `context_bytes` at least 0")


def run(config: Config, out: Output) -> Artifact:
    """Score one model after the other, each set once, then compare."""
    from langadapt.model.compute import choose_device, repeatable

    device = choose_device(config.device)
    with repeatable(device):
        return _run(config, out, device)


def _run(config: Config, out: Output, device: "torch.device") -> Artifact:
    from langadapt.evaluate.partial import Partial
    from langadapt.evaluate.segments import MIN_SEGMENTS, WANTED_SEGMENTS
    from langadapt.evaluate.summary import headline, paired_continuations
    from langadapt.evaluate.verdict import add_sentences
    from langadapt.model.compute import resolve_compute
    from langadapt.steps._evaluate_separators import separators, show
    from langadapt.steps._evaluate_tokenizers import tokenizer_figures
    from langadapt.steps._icl import compared as icl_compared

    _check_kinds(out.inputs)
    chosen = {name: _choose(config, name, source) for name, source in out.inputs["sets"].items()}
    langs = {name: _lang(name, source) for name, source in out.inputs["sets"].items()}
    target = str(out.inputs["adapted"].facts.get("lang") or next(iter(langs.values())))
    targets = frozenset(target.split("+"))  # as cpt writes it when a mixture has several
    compute = resolve_compute(config.compute, device)
    sources = [name for name, lang in langs.items() if lang not in targets] or list(langs)
    before = separators(config.document_separator, out, _roles(out), sources)
    partial = Partial(out.partial)
    warnings = [
        f"set `{name}` has {len(found.segments)} segments only: "
        + ("too few for an interval" if len(found.segments) < MIN_SEGMENTS else "intervals will be wide")
        for name, found in chosen.items()
        if len(found.segments) < WANTED_SEGMENTS
    ]
    if out.inputs["base"].made_from(out.inputs["adapted"]):
        warnings.append("the base was made from the adapted model: are the two swapped?")
    if not targets & set(langs.values()):
        warnings.append(f"no set is in the target language `{target}`: all are reported as sources")
    prompts_from = next((name for name, lang in langs.items() if lang in targets), next(iter(langs)))
    models = {}
    for role in _roles(out):
        models[role] = _score_model(config, out, role, chosen, before[role], compute, device, partial, prompts_from)
        warnings += models[role].pop("warnings")
    icl: dict[str, Any] = {}
    lines: list[dict[str, Any]] = []
    if config.icl:
        icl, lines, said = icl_compared(out, list(models), partial, samples=config.bootstrap_samples, seed=config.seed)
        warnings += said
    compared = _compare(config, out, chosen, langs, targets, partial, models, lines)
    continuations = paired_continuations(partial, list(models), prompts_from)
    samples = tokenizer_figures(out, compared, targets)
    add_sentences(compared)
    for text in warnings:
        out.progress.warn(text)
    write_json_lines(out.folder / "samples.jsonl", [*samples, *continuations])
    settings = {
        "document_separator": show(before),
        "compute": compute,
        "set_bytes": config.set_bytes,
        "segment_bytes": config.segment_bytes,
        "context_bytes": config.context_bytes,
        "bootstrap_samples": config.bootstrap_samples,
        "wanted_segments": WANTED_SEGMENTS,
        "interval": 0.95,
    }
    summary = {"languages": compared, "models": models, "target": target, "continuations": continuations}
    summary |= {"settings": settings, "warnings": warnings} | ({"icl": icl} if icl else {})
    write_durably(out.folder / "summary.json", pretty_json(summary))
    return out.commit({"target": target, "settings": settings, "headline": headline(compared), "warnings": warnings})


def _compare(
    config: Config,
    out: Output,
    chosen: dict[str, "ScoringSet"],
    langs: dict[str, str],
    targets: frozenset[str],
    partial: "Partial",
    models: dict[str, dict[str, Any]],
    more: list[dict[str, Any]],
) -> dict[str, Any]:
    """Write segments.jsonl and scores.jsonl (`more` at its end); return each language's sets with their figures."""
    from langadapt.evaluate.summary import SetScores, score_lines, segment_lines, summarise_set

    languages: dict[str, Any] = {}
    segments: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for name, found in chosen.items():
        rows = {role: partial.load_rows(role, name) for role in models}
        scores = SetScores(name, langs[name], found, rows, {role: models[role]["rows"] for role in models})
        entry = summarise_set(scores, samples=config.bootstrap_samples, seed=config.seed)
        segments += segment_lines(scores)
        lines += score_lines(langs[name], name, entry)
        role = "target" if langs[name] in targets else "source"
        languages.setdefault(langs[name], {"role": role, "sets": {}})["sets"][name] = entry
    write_json_lines(out.folder / "segments.jsonl", segments)
    write_json_lines(out.folder / "scores.jsonl", [*lines, *more])
    return languages


def _check_kinds(inputs: Inputs) -> None:
    """DataError for a model that does not write from left to right: it has no bits per byte."""
    from langadapt.model.kinds import require_causal

    for source in (inputs.get(role) for role in ROLES):
        if isinstance(source, Input) and source.exists:
            require_causal(source.path, "`evaluate`")


def _roles(out: Output) -> list[str]:
    return [role for role in ROLES if out.inputs[role] is not None]


def _lang(name: str, source: Input) -> str:
    """What the corpus declares, else the set's name if it is a language code, else `und`."""
    from langadapt.core.languages import normalise

    declared = source.facts.get("lang")
    if declared:
        return str(declared)
    try:
        return normalise(name.replace("_", "-").split("-")[0])
    except ConfigError:
        return "und"


def _documents(source: Input) -> Iterator[Document]:
    from langadapt.corpus.store import documents

    return documents(source.path, "held-out")


def _choose(config: Config, name: str, source: Input) -> "ScoringSet":
    from langadapt.evaluate.segments import choose_segments

    return choose_segments(
        _documents(source),
        set_bytes=config.set_bytes,
        segment_bytes=config.segment_bytes,
        seed=config.seed,
        name=name,
    )


def _score_model(
    config: Config,
    out: Output,
    role: str,
    chosen: dict[str, "ScoringSet"],
    separator: str,
    compute: Compute,
    device: "torch.device",
    partial: "Partial",
    prompts_from: str,
) -> dict[str, Any]:
    """Score one model on every set that is not finished yet, and let it go."""
    from langadapt.evaluate.continuations import choose_prompts, continue_text
    from langadapt.evaluate.partial import to_rows
    from langadapt.model.facts import model_facts
    from langadapt.model.load import load_model, load_tokenizer
    from langadapt.model.score import score_texts
    from langadapt.steps._icl import ask_model

    source = out.inputs[role]
    tokenizer = load_tokenizer(source.path)
    prefix = int(tokenizer.get_vocab()[separator])
    model: PreTrainedModel | None = None
    for name, found in chosen.items():
        if partial.has("scores", role, name):
            continue
        model = model or load_model(source.path).to(device)
        texts = found.scored_texts(config.context_bytes)
        bar = out.progress.start(f"score {role} on {name}", total=found.bytes, unit="bytes")
        scores = score_texts(model, tokenizer, texts, prefix_id=prefix, compute=compute, progress=bar)
        bar.finish()
        partial.save("changed", role, name, [{"bytes": sum(score.changed_bytes for score in scores)}])
        partial.save_rows(role, name, to_rows(found, scores))
    if not partial.has("continuations", role, prompts_from):
        held_out = _documents(out.inputs["sets"][prompts_from])
        prompts = choose_prompts(held_out, config.continuations, seed=config.seed, name=prompts_from)
        lines = []
        for prompt in out.progress.track(prompts, f"continue with {role}", total=len(prompts), unit="prompts"):
            model = model or load_model(source.path).to(device)
            text = continue_text(model, tokenizer, prompt.text, prefix_id=prefix)
            lines.append({"document": prompt.document, "prompt": prompt.text, "actual": prompt.actual, "text": text})
        partial.save("continuations", role, prompts_from, lines)
    if config.icl and not partial.has("icl", role, "questions"):
        model = model or load_model(source.path).to(device)
        ask_model(model, tokenizer, role, partial, prefix=prefix, compute=compute, progress=out.progress)
    facts = model_facts(source.path)
    record = {
        "digest": source.digest,
        "parameters": facts["parameters"],
        "rows": facts["rows"],
        "dtype": facts["dtype"],
        "document_separator": separator,
    }
    return record | {"warnings": list(_text_warnings(partial, role, chosen))}


def _text_warnings(partial: "Partial", role: str, chosen: dict[str, "ScoringSet"]) -> Iterator[str]:
    for name, found in chosen.items():
        hidden = sum(row.unknown_bytes for row in partial.load_rows(role, name))
        if hidden:
            yield f"the {role} tokenizer hides {hidden:,} bytes of set `{name}` behind unknown tokens (8 bits each)"
        whole = sum(len(text.encode()) for text in found.texts.values())
        changed = partial.load("changed", role, name)[0]["bytes"]
        if changed:
            share = f"{changed / whole:.2%} of the bytes of set `{name}`"
            yield f"the {role} tokenizer changes {share} before it reads them"


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Seconds from the bytes of all windows and a measured rate of this machine; memory of one model at a time."""
    from langadapt.evaluate import price
    from langadapt.model.compute import busy_with, choose_device, matrix_rate, resolve_compute
    from langadapt.steps._icl import question_tokens

    _check_kinds(inputs)
    device = choose_device(config.device)
    compute = resolve_compute(config.compute, device)
    sets = inputs["sets"]
    read = {}
    for name, source in sets.items() if isinstance(sets, dict) else ():
        if source.exists:
            read[name] = price.window_bytes(_choose(config, name, source), config.context_bytes)
        else:
            limit = int(source.facts.get("held_out_bytes", config.set_bytes))
            read[name] = round(min(config.set_bytes, limit) * price.UNSEEN_CONTEXT)
    seconds, memory, problems = 0.0, 0, []
    rate, busy = matrix_rate(compute, device=device), busy_with(device)
    for model in (inputs.get(role) for role in ROLES):
        if not isinstance(model, Input):
            continue
        cost = price.model_cost(_model_size(model), _bytes_per_token(model, sets), sum(read.values()), compute, rate)
        seconds += cost.seconds + price.continuation_seconds(_model_size(model), config.continuations)
        memory = max(memory, cost.memory_bytes)
        if config.icl:
            # a question is read once for each answer
            cost = price.model_cost(_model_size(model), 1.0, question_tokens(), compute, rate)
            seconds += cost.seconds
    if not read:
        problems.append("no set of held-out text is known yet")
    rows = tuple((name, f"{show_bytes(size)} of text with its context, for each model") for name, size in read.items())
    rows += (("compute", f"{compute}, {device.type}"), *timed_rows(busy))
    return Estimate(seconds, memory, 2_000_000, {}, rows, tuple(problems), timed=True)


def _model_size(source: Input) -> tuple[int, int]:
    from langadapt.model.facts import model_facts

    facts = model_facts(source.path) if source.exists else source.facts
    return int(facts.get("parameters") or 0), int(facts.get("rows") or 0)


def _bytes_per_token(source: Input, sets: Any) -> float:
    """Measured on a few documents where model and text exist; 3 bytes a token else."""
    from langadapt.model.load import load_tokenizer
    from langadapt.model.spans import spans

    texts = [
        document.text[:2000]
        for item in (sets.values() if isinstance(sets, dict) else ())
        if item.exists
        for document in islice(_documents(item), 10)
    ]
    if not source.exists or not texts:
        return 3.0
    tokenizer = load_tokenizer(source.path)
    return sum(len(text.encode()) for text in texts) / sum(len(spans(tokenizer, text).ids) for text in texts)


def table(artifact: Artifact) -> Table:
    """Base against adapted, one row a set; the verdict sentences below."""
    from langadapt.core.io import read_json_object
    from langadapt.evaluate.table import summary_table

    return summary_table(read_json_object(artifact.file("summary.json")))
