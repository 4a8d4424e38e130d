"""The price of calibrate: tokens of the texts from a sample, one layer timed on this machine."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from langadapt.core.host import timed_rows
from langadapt.core.inputs import Input, Inputs, one
from langadapt.core.types import Estimate
from langadapt.core.units import show_bytes
from langadapt.steps._calibrate_given import no_text
from langadapt.steps._measuring import token_seconds, work_of
from langadapt.steps._vocabulary import first_texts, size_of

if TYPE_CHECKING:
    from langadapt.steps._calibrate_config import Config
    from langadapt.train.footprint import Shape, Work

# Program start, loading, tokenising the sample; reading, cutting and writing are small beside the model.
_START_SECONDS, _SECONDS_A_GIGABYTE = 8.0, 4.0
# Python, torch, transformers and a tokenizer.
_PROGRAM_BYTES = 450_000_000
_BYTES_A_SUM = 8


def price(config: "Config", inputs: Inputs, corpora: Mapping[str, Input]) -> Estimate:
    """Time, memory and disk; facts only while the model is not there yet. DataError: a corpus without text."""
    from langadapt.model.compute import busy_with, choose_device, resolve_compute, threads_set
    from langadapt.model.facts import model_facts
    from langadapt.model.weights import BYTES_PER_VALUE
    from langadapt.train.footprint import shape_of

    for lang, corpus in corpora.items():
        if corpus.exists and next(first_texts(corpus), None) is None:
            raise no_text(lang, corpus)
    model = one(inputs, "model")
    facts = dict(model.facts) | (model_facts(model.path) if model.exists else {})
    added = inputs.get("add")
    known = added.facts.get("languages", {}) if isinstance(added, Input) else {}
    predicted: dict[str, object] = {
        "languages": {**{lang: {} for lang in corpora}, **known},
        "layers": facts.get("layers"),
    }
    if not all(facts.get(name) for name in ("parameters", "rows", "hidden_size", "layers")):
        return Estimate(facts=predicted, rows=(("calibrate", "cannot be priced before the model is there"),))
    shape = shape_of(
        parameters=int(facts["parameters"]), rows=int(facts["rows"]), hidden=int(facts["hidden_size"]),
        layers=int(facts["layers"]), tied=bool(facts["tied"]), moves="none",
    )  # fmt: skip
    device = choose_device(config.device)
    compute = resolve_compute(config.compute, device)
    work = work_of(config.window_tokens, compute, device)
    with threads_set(config.threads):
        a_token, head = token_seconds(shape, work, device, taylor=config.taylor)
    tokens = {lang: expected_tokens(config, corpus, model) for lang, corpus in corpora.items()}
    weights = shape.parameters * (2 if compute == "bf16" else 4)
    stored = shape.parameters * BYTES_PER_VALUE.get(str(facts.get("dtype")), 4)
    seconds = _START_SECONDS + _SECONDS_A_GIGABYTE * weights / 1e9 + sum(tokens.values()) * a_token
    sums = _sums(shape) * (2 if device.type == "cpu" else 1)
    return Estimate(
        seconds=seconds + 2 * work.micro_tokens * head,
        # while it is loaded the files lie in memory beside the weights
        memory_bytes=round(_PROGRAM_BYTES + weights + max(stored, sums + _working_bytes(config, shape, work))),
        disk_bytes=_sums(shape) * (len(corpora) + 2),
        facts=predicted,
        rows=(
            *((lang, f"{amount:,} tokens") for lang, amount in tokens.items()),
            ("speed", f"{1 / a_token:,.0f} tokens a second ({compute}, {device.type})"),
            ("statistics of a language", show_bytes(_sums(shape))),
            *timed_rows(busy_with(device)),
        ),
        timed=True,
    )


def _working_bytes(config: "Config", shape: "Shape", work: "Work") -> float:
    """Two sets of logits of the first batch, that are compared; a backward pass keeps activations of all layers."""
    from langadapt.train.footprint import activation_bytes

    size = 2 if work.compute == "bf16" else 4
    logits = work.micro_tokens * shape.rows * (3 * 4 if config.taylor else 2 * size)
    a_layer = work.micro_tokens * activation_bytes(shape, work)
    return logits + (shape.layers * a_layer if config.taylor else a_layer)


def _sums(shape: "Shape") -> int:
    """Bytes of the sums of one language: four a neuron, one a column of each matrix, one a value of two norms a layer;
    all of them for two halves.
    """
    return round(shape.layers * (5 * shape.inner + 8 * shape.hidden) * 2 * _BYTES_A_SUM)


def expected_tokens(config: "Config", corpus: Input, model: Input) -> int:
    """Tokens that will be read of a corpus, from its size and a sample of its beginning."""
    from langadapt.mixture.price import density

    texts = list(first_texts(corpus)) if corpus.exists and model.exists else []
    size = size_of(corpus)
    return min(config.tokens, round(size / density(model.path, texts)[0])) if size else config.tokens
