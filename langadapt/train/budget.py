"""How long to train, in steps of how many tokens: derived from the corpus and from what the user fixed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from langadapt.core.errors import ConfigError, DataError
from langadapt.train.reading import stream_of_epochs, tokens_read

MOST_EPOCHS = 16
SMALLEST_BATCH = 1024
# 64k tokens a step suit a model of 135M parameters, 256k one of 1B and more.
_LARGEST_BATCH_SMALL_MODEL = 65_536
_LARGEST_BATCH = 262_144
_SMALL_MODEL = 500_000_000
# Fewer steps than these and the warm-up is most of the run; more than the latter and larger batches are as good.
FEWEST_STEPS = 60
_TINY_BATCH = 64
_ENOUGH_STEPS = 500
_WARMUP_SHARE = 0.05
# Full tuning, peak learning rate by number of parameters.
_RATES = ((135e6, 3e-4), (1e9, 1e-4), (7e9, 5e-5))


@dataclass(frozen=True)
class Budget:
    """`tokens` = steps x batch_tokens; `epochs` says how often each source is seen."""

    steps: int
    batch_tokens: int
    batch_blocks: int
    warmup_steps: int
    tokens: int
    epochs: dict[str, float]


def default_learning_rate(parameters: int) -> float:
    """3e-4 at 135M parameters, 1e-4 at 1B, 5e-5 at 7B, on a straight line between them in logarithms."""
    sizes = [math.log(size) for size, _ in _RATES]
    rates = [math.log(rate) for _, rate in _RATES]
    place = min(max(math.log(max(parameters, 1)), sizes[0]), sizes[-1])
    for (low, high), (first, last) in zip(pairwise(sizes), pairwise(rates), strict=True):
        if place <= high:
            exact = math.exp(first + (last - first) * (place - low) / (high - low))
            return float(f"{exact:.2g}")
    return _RATES[-1][1]


def plan_budget(
    sources: Mapping[str, Mapping[str, Any]],
    *,
    parameters: int,
    block_tokens: int,
    tokens: int | None,
    steps: int | None,
    batch_tokens: int | None,
    warmup_steps: int | None,
    max_epochs: float,
    behind: int = 0,
) -> Budget:
    """Fill in what the user left open. `sources` are those of the data artifact's facts.

    `behind` are steps of a branch that read other data: errors name steps and tokens as users count them, with those.

    ConfigError when the wishes contradict each other, or when a target would be read more than `max_epochs` times.
    """
    if not 0 < max_epochs <= MOST_EPOCHS:
        raise ConfigError(
            f"`max_epochs` is {max_epochs:g}; it should be above 0 and at most {MOST_EPOCHS}",
            hint="text read more often than that is learnt by heart; add text, or train on fewer tokens",
        )
    for name, value in (("tokens", tokens), ("steps", steps), ("batch_tokens", batch_tokens)):
        if value is not None and value < 1:
            raise ConfigError(f"`{name}` is {value}; it should be at least 1")
    if not sources:
        raise DataError("the data artifact has no sources")
    targets = [sources[name] for name in target_names(sources)]
    once, most = stream_of_epochs(targets, 1.0), stream_of_epochs(targets, max_epochs)
    if batch_tokens is None:
        batch_tokens = _batch(tokens, steps, once, parameters, most)
    blocks = max(1, round(batch_tokens / block_tokens))
    batch = blocks * block_tokens
    if steps is None:
        wanted = tokens if tokens is not None else max(once, min(FEWEST_STEPS * batch, most))
        steps = max(1, math.floor(wanted / batch))
    elif tokens is not None and abs(tokens - steps * batch) > batch:
        raise ConfigError(
            f"{behind + steps:,} steps of {batch:,} tokens are {(behind + steps) * batch:,} tokens, "
            f"not {behind * batch + tokens:,}",
            hint="give two of `--tokens`, `--steps` and `-o batch_tokens`, or one",
        )
    if steps * batch > most:
        raise _too_often(steps, batch, most, max_epochs, targets, behind)
    warmup = max(1, round(_WARMUP_SHARE * steps)) if warmup_steps is None else warmup_steps
    if not 0 <= warmup <= steps:
        raise ConfigError(f"`warmup_steps` is {warmup:,}, the whole run has {steps:,} steps")
    total = steps * batch
    epochs = {
        name: round(tokens_read(source, total) / int(source["tokens"]), 4) for name, source in sorted(sources.items())
    }
    return Budget(steps, batch, blocks, warmup, total, epochs)


def target_names(sources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sources whose role is `target`; all of them when none has it."""
    return [name for name, source in sorted(sources.items()) if source.get("role") == "target"] or sorted(sources)


def _batch(tokens: int | None, steps: int | None, once: float, parameters: int, most: float) -> int:
    """Tokens of a step; `once` and `most` are those of the stream that reads the targets once, as often as allowed."""
    if steps is not None:
        return SMALLEST_BATCH if tokens is None else max(1, tokens // steps)
    wanted = tokens if tokens is not None else once
    largest = _LARGEST_BATCH_SMALL_MODEL if parameters < _SMALL_MODEL else _LARGEST_BATCH
    size: int = 2 ** math.floor(math.log2(max(wanted / _ENOUGH_STEPS, 1)))
    smallest = SMALLEST_BATCH
    # A tiny corpus: rather fewer tokens a step than too few steps
    reachable = tokens if tokens is not None else most
    while smallest > _TINY_BATCH and reachable / smallest < FEWEST_STEPS / 4:
        smallest //= 2
    return min(max(size, smallest), largest)


def _too_often(
    steps: int, batch: int, most: float, max_epochs: float, targets: Sequence[Mapping[str, Any]], behind: int
) -> ConfigError | DataError:
    fewer = math.floor(most / batch)
    if fewer < 1:
        return DataError(
            f"the target text has too few tokens for one step of {batch:,} within {max_epochs:g} epochs",
            hint="add text, or give a smaller `-o batch_tokens` and shorter blocks (`mix --block-tokens`)",
        )
    times = max(tokens_read(source, steps * batch) / int(source["tokens"]) for source in targets)
    return ConfigError(
        f"{steps * batch:,} tokens would read the target {times:.1f} times; the limit is {max_epochs:g} (`max_epochs`)",
        hint=f"the largest budget is `--tokens {(behind + fewer) * batch}` (`--steps {behind + fewer}`)",
    )
