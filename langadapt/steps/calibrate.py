"""Measure in one pass over text how active a model's neurons and columns are in each language."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Artifact, Output
from langadapt.core.errors import ConfigError
from langadapt.core.inputs import Input, Inputs, maybe, one
from langadapt.core.io import sha256_file
from langadapt.core.types import Estimate, Table
from langadapt.core.units import show_bytes
from langadapt.steps._calibrate_config import Config
from langadapt.steps._calibrate_given import added_to, check_names, corpora_of, cut_of, encoder_of, no_text
from langadapt.steps._calibrate_kept import SCHEMA as SCHEMA
from langadapt.steps._calibrate_price import expected_tokens, price
from langadapt.steps._given_facts import check_given
from langadapt.steps._measuring import go_on, load_meter, reading

if TYPE_CHECKING:
    from langadapt.select.measure import Meter
    from langadapt.select.windows import Cut
    from langadapt.steps._calibrate_given import Encode
    from langadapt.steps._calibrate_kept import Kept

KIND = "statistics"
HEAVY = True
EXAMPLES = (
    "langadapt calibrate base hu=data/hu en=data/en --out stats --dry-run",
    "langadapt calibrate base hu=data/hu en=data/en --out stats --tokens 100k",
    "langadapt calibrate base sk=data/sk --add stats --out stats3 --tokens 100k",
)
_NO_NEURONS = "{}: neurons are not measured, columns are"


def check(config: Config) -> None:
    """ConfigError without text, or for names that are no languages."""
    if not config.corpora:
        raise ConfigError("no text to measure on", where="corpora", hint="name it by its language: hu=CORPUS")
    check_names(config.corpora)


def run(config: Config, out: Output) -> Artifact:
    """Read text of each language, keep what was measured, write it with its stability."""
    from langadapt.model.compute import choose_device, repeatable, threads_set

    with threads_set(config.threads), repeatable(choose_device(config.device)):
        return _run(config, out)


def _run(config: Config, out: Output) -> Artifact:
    from langadapt.model.facts import model_facts
    from langadapt.model.load import load_tokenizer
    from langadapt.select.stability import specific_layers
    from langadapt.select.statistics import read_language
    from langadapt.steps._calibrate_kept import Kept

    model, corpora = one(out.inputs, "model"), corpora_of(out.inputs)
    if why := _check_model(config, model):
        out.progress.warn(_NO_NEURONS.format(why))
    facts = model_facts(model.path)
    tokenizer = load_tokenizer(model.path)
    cut = cut_of(config, tokenizer, model.path, int(facts["rows"]))
    encode = encoder_of(config, tokenizer, model)
    settings = settings_of(config, cut.opener)
    before = added_to(out.inputs, corpora, settings)
    kept = Kept(out.partial, out.identity.fingerprint, out.progress)
    # loaded when the first language needs it: a run that goes on may need no model
    meter = cache(partial(load_meter, model.path, config.compute, config.device, taylor=config.taylor))
    languages: dict[str, Any] = {}
    for lang, corpus in corpora.items():
        finished = kept.done(lang) or _measure(config, out, meter, kept, lang, corpus, cut, encode)
        languages[lang] = {key: finished.facts[key] for key in ("tokens", "bytes", "documents", "stability")}
        _copy(finished, lang, out)
    if before is not None and before.artifact is not None:
        for lang in before.facts["languages"]:
            languages[lang] = before.facts["languages"][lang]
            _copy(before.artifact, lang, out)
    found = {lang: read_language(out.folder, lang) for lang in sorted(languages)}
    return out.commit(
        {
            "languages": languages,
            "model_digest": model.digest,
            **settings,
            "tokenizer_digest": sha256_file(model.path / "tokenizer.json"),
            "layers": facts["layers"],
            "neurons": sum(value.shape[-1] for value in next(iter(found.values())).sums.values()),
            "counted": all(one.positive for one in found.values()),
            "specific_layers": {lang: [list(item) for item in top] for lang, top in specific_layers(found).items()},
        }
    )


def settings_of(config: Config, opener: int | None) -> dict[str, Any]:
    """Settings that decide what the numbers mean."""
    from langadapt.model.compute import choose_device, resolve_compute

    return {
        "window_tokens": config.window_tokens,
        "skip_first": config.skip_first,
        "chat": config.chat,
        "taylor": config.taylor,
        "compute": resolve_compute(config.compute, choose_device(config.device)),
        "opener": opener,
    }


def _check_model(config: Config, model: Input) -> str:
    """DataError for a model that cannot be measured. Returns why its neurons will not be; empty if they may."""
    from langadapt.model.anatomy import anatomy
    from langadapt.model.empty import empty_model
    from langadapt.model.facts import check_positions
    from langadapt.model.kinds import require_causal
    from langadapt.select.wiring import why_none

    require_causal(model.path, "`calibrate`")
    check_positions(model.path, config.window_tokens, "a window has", "give shorter windows: --window-tokens {}")
    why = why_none(anatomy(empty_model(model.path)))
    if why and config.taylor:
        from langadapt.select.measure import no_gradients

        raise no_gradients(why)
    return why


def _measure(
    config: Config,
    out: Output,
    loaded: "Callable[[], Meter]",
    kept: "Kept",
    lang: str,
    corpus: Input,
    cut: "Cut",
    encode: "Encode",
) -> Artifact:
    """Read the text of a language from where an earlier run stopped. DataError: there is none."""
    import torch

    from langadapt.select.stability import stability
    from langadapt.select.windows import Read, windows

    meter, read = loaded(), Read()
    computed_with = {"device": meter.device.type, "threads": torch.get_num_threads()}
    state = go_on(meter, kept, lang)
    if state is not None:
        out.progress.note(f"{lang}: going on after {meter.windows:,} windows")
        if state.facts["computed_with"] != computed_with:
            out.progress.warn(f"this run goes on with {computed_with}: its last bits will not be those of one run")
    source = windows(_texts(corpus), encode, cut, read)
    bar = out.progress.start(
        f"measure {lang}",
        total=expected_tokens(config, corpus, one(out.inputs, "model")),
        unit="tokens",
        done=meter.tokens,
    )
    began = time.monotonic()
    for _, counted in reading(meter, kept, lang, source, {"computed_with": computed_with}):
        bar.advance(counted, poll=False)
    bar.finish()
    found = meter.found(lang)
    if not found.tokens.sum():
        raise no_text(lang, corpus)
    out.timing("language", lang=lang, seconds=round(time.monotonic() - began, 3), tokens=meter.tokens)
    _tell(out, meter, lang, read.tokens, config.tokens)
    if not found.tokens.all():
        out.progress.warn(
            f"{lang}: {int(found.tokens.sum()):,} tokens are too few for two halves, so nothing tells how far a choice "
            "made of them can be trusted"
        )
    facts = {"tokens": int(found.tokens.sum()), "bytes": read.bytes, "documents": read.documents}
    kept.save(found, meter.windows, {**facts, "stability": stability(found)}, done=True)
    return kept.finished(lang)


def _tell(out: Output, meter: "Meter", lang: str, read: int, most: int) -> None:
    """What a reader of the result has to know now: that there are no neurons, or little text."""
    from langadapt.select.wiring import BOTH_SIDES

    if read < most:
        out.progress.note(f"{lang}: the text has {read:,} tokens, {most:,} were asked for")
    if (wiring := meter.wiring) is None or (wiring.neurons and wiring.by_sign):
        return
    text = BOTH_SIDES if wiring.neurons else _NO_NEURONS.format(wiring.why_none)
    if text not in out.progress.warnings:
        out.progress.warn(text)


def _texts(corpus: Input) -> Iterator[str]:
    from langadapt.corpus.store import documents

    return (document.text for document in documents(corpus.path, "train"))


def _copy(finished: Artifact, lang: str, out: Output) -> None:
    name = f"{lang}.safetensors"
    shutil.copyfile(finished.file(name), out.folder / name)


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Tokens of the texts, and time and memory of a forward pass over them: one layer is timed on this machine."""
    model = one(inputs, "model")
    why = _check_model(config, model) if model.exists else ""
    if (before := maybe(inputs, "add")) is not None:
        check_given(before, model, "statistics")
    found = price(config, inputs, corpora_of(inputs))
    return replace(found, rows=(*found.rows, ("neurons", f"not measured: {why}"))) if why else found


def table(artifact: Artifact) -> Table:
    """How much of each language was measured, how stable that is, and where a language is least like the others."""
    facts = artifact.facts
    rows = []
    for lang, entry in sorted(facts["languages"].items()):
        apart = ", ".join(f"{layer} ({value:.3f})" for layer, value in facts["specific_layers"].get(lang, ()))
        halves = [entry["stability"][name] for name in ("neurons", "columns")]
        cells = ("-" if value is None else f"{value:.3f}" for value in halves)
        rows.append((lang, f"{entry['tokens']:,}", show_bytes(entry["bytes"]), *cells, apart or "-"))
    notes = [
        "stable neurons: shared part of the 5 % most often active ones in two halves of the text; stable columns: rank "
        "correlation of their mean squares"
    ]
    if facts["specific_layers"]:
        notes.append("layers: those whose neurons are active at the least usual rates, with the mean difference")
    if not facts["counted"]:
        notes.append("active neurons were not counted: choose by columns or layers")
    columns = ("language", "tokens", "text read", "stable neurons", "stable columns", "layers")
    return Table("Statistics", columns, tuple(rows), tuple(notes))
