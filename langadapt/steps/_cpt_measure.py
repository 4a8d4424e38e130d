"""Statistics of activations for a strategy that needs them, measured on the run's own data before the model is loaded.

Blocks are read from the beginning of each source, whose documents lie in random order. What was measured is kept
beside the checkpoints, language by language and every half minute, so that a run that goes on measures nothing twice.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from langadapt.core.artifact import Output
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input
from langadapt.core.units import show_seconds
from langadapt.steps._measuring import go_on, load_meter, reading, token_seconds, work_of

if TYPE_CHECKING:
    from langadapt.model.compute import AskedCompute, AskedDevice
    from langadapt.select.measure import Meter, Window
    from langadapt.select.statistics import LanguageStatistics, Statistics
    from langadapt.train.footprint import Shape

FOLDER = "statistics"
# About what neurons want to be told apart; columns are known sooner (docs/calibrate.md).
_MOST, _FEWEST = 1_000_000, 100_000
# Loading the model for this alone.
_START_SECONDS = 5.0


class Rules(Protocol):
    """How a run computes."""

    @property
    def compute(self) -> "AskedCompute": ...
    @property
    def device(self) -> "AskedDevice": ...
    @property
    def threads(self) -> int | None: ...
    @property
    def calibration_tokens(self) -> int | None: ...


@dataclass(frozen=True)
class Wanted:
    """What is to be measured: tokens of each source, by language; `taylor` needs gradients."""

    by_lang: Mapping[str, Mapping[str, int]]
    taylor: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of all languages together."""
        return sum(sum(parts.values()) for parts in self.by_lang.values())


def wanted(rules: Rules, data: Mapping[str, Any], langs: tuple[str, ...], run_tokens: int, *, taylor: bool) -> Wanted:
    """How much of each source of the data is read. ConfigError for a language that the data do not hold.

    Of a language at most `calibration_tokens`, by default as many as the run trains on, from 100,000 to a million.
    """
    most = rules.calibration_tokens or min(_MOST, max(_FEWEST, run_tokens))
    found: dict[str, dict[str, int]] = {}
    for lang in langs:
        # a source that is not made yet may not have its tokens counted
        own = {name: int(source.get("tokens") or most)
               for name, source in data["sources"].items() if source["lang"] == lang}  # fmt: skip
        if not own:
            raise ConfigError(
                f"the data hold no text in `{lang}`, so nothing can be measured on it",
                hint=f"mix it in, or measure it on a corpus: langadapt calibrate MODEL {lang}=CORPUS --out stats, then "
                "`--statistics stats`",
            )
        share = min(1.0, most / sum(own.values()))
        found[lang] = {name: max(1, round(tokens * share)) for name, tokens in sorted(own.items())}
    return Wanted(found, taylor)


def measured(rules: Rules, wishes: Wanted, model: Input, data: Input, out: Output) -> "Statistics":
    """Statistics of every wanted language, read back from what is kept or measured now."""
    from langadapt.select.statistics import Statistics, read_language
    from langadapt.steps._calibrate_kept import Kept

    kept = Kept(out.partial / FOLDER, out.identity.fingerprint, out.progress)
    meter: Meter | None = None
    found: dict[str, LanguageStatistics] = {}
    for lang in wishes.by_lang:
        done = kept.done(lang)
        if done is None:
            # for this alone: what is trained later is loaded when this one is gone
            meter = meter or load_meter(model.path, rules.compute, rules.device, taylor=wishes.taylor)
            _measure(meter, kept, lang, wishes, model, data, out)
            done = kept.finished(lang)
        found[lang] = read_language(done.path, lang)
    return Statistics(found, model.digest)


def _measure(meter: "Meter", kept: Any, lang: str, wishes: Wanted, model: Input, data: Input, out: Output) -> None:
    from langadapt.model.token_table import TokenTable

    parts = wishes.by_lang[lang]
    go_on(meter, kept, lang)
    specials = np.array(sorted(TokenTable.from_folder(model.path).special_ids), dtype=np.int64)
    length = int(data.facts["block_tokens"])
    bar = out.progress.start(
        f"measure {lang}", total=sum(parts.values()), unit="tokens", done=meter.windows * length
    )  # fmt: skip
    for batch, _ in reading(meter, kept, lang, _windows(data, parts, specials), {}):
        bar.advance(sum(len(window.ids) for window in batch), poll=False)
    bar.finish()
    found = meter.found(lang)
    if not found.tokens.all():
        raise DataError(
            f"the data hold {int(found.tokens.sum()):,} tokens of text in `{lang}`: too few to measure anything",
            hint=f"langadapt calibrate MODEL {lang}=CORPUS --out stats, then `--statistics stats`",
        )
    kept.save(found, meter.windows, {"tokens": int(found.tokens.sum())}, done=True)


def _windows(data: Input, parts: Mapping[str, int], specials: Any) -> "Iterator[Window]":
    """Blocks of the sources, one after the other; special tokens, separators among them, do not count."""
    from langadapt.mixture.stream import Stream
    from langadapt.select.measure import Window

    stream = Stream.open(data.path)
    length = stream.plan.block_tokens
    for source, shards in zip(stream.plan.sources, stream.shards, strict=True):
        for first in range(0, parts.get(source.name, 0), length):
            count = min(length, parts[source.name] - first)
            ids = shards.read(first, count)
            counts = ~np.isin(ids, specials) & (ids != stream.plan.separator)
            yield Window(ids.astype(np.int32), counts)


def price(rules: Rules, wishes: Wanted, shape: "Shape", block_tokens: int) -> tuple[float, tuple[tuple[str, str], ...]]:
    """Seconds that measuring takes, from one layer timed on this machine; and what is said of it."""
    from langadapt.model.compute import choose_device, resolve_compute, threads_set

    device = choose_device(rules.device)
    work = work_of(block_tokens, resolve_compute(rules.compute, device), device)
    with threads_set(rules.threads):
        a_token, _ = token_seconds(shape, work, device, taylor=wishes.taylor)
    seconds = _START_SECONDS + wishes.tokens * a_token
    words = ", ".join(f"{sum(parts.values()):,} tokens of {lang}" for lang, parts in wishes.by_lang.items())
    ways = "fewer: `-o calibration_tokens=...`; once for several runs: `calibrate`, then `--statistics`"
    return seconds, (("measured first", f"{words}: {show_seconds(seconds)}; {ways}"),)
