"""What one forward pass over text of several languages tells of a model: read by every selector that looks at activity.

All numbers are kept for two halves of the text, so that everything that is made of them has a measure of how stable it
is. Numbers of different runs add up, so a language can be added later.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from langadapt.core.errors import ConfigError, DataError

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
HALVES = 2
_ARRAYS = ("positive", "sums", "squares", "active", "taylor", "inputs", "norms")
# Those by the name of a weight; the others are by layer.
_BY_NAME = frozenset({"inputs", "norms"})
# Sums of what may be below 0.
_SIGNED = frozenset({"sums", "active"})
_MEASURED_AGAIN = "run `calibrate` again"


@dataclass(frozen=True)
class LanguageStatistics:
    """Activations on text of one language, in two halves of `tokens` [2] tokens each.

    By layer, of z, the value before the activation function of each neuron [2, width]: `positive` counts tokens with
    z > 0, `sums` and `squares` add up z and z^2, `active` adds up act(z); `taylor` adds up |dL/dh x h| where it was
    asked for (h = what the down matrix reads). `inputs` adds up the squares of what each matrix reads [2, inputs], by
    the name of its weight; `norms` those of what each norm reads [2, size], the mean over heads where it is one of
    each head.
    """

    lang: str
    tokens: Ints
    positive: Mapping[int, Ints] = field(repr=False)
    sums: Mapping[int, Floats] = field(repr=False)
    squares: Mapping[int, Floats] = field(repr=False)
    active: Mapping[int, Floats] = field(repr=False)
    inputs: Mapping[str, Floats] = field(repr=False)
    taylor: Mapping[int, Floats] = field(default_factory=dict, repr=False)
    norms: Mapping[str, Floats] = field(default_factory=dict, repr=False)

    @property
    def neurons(self) -> dict[str, int]:
        """How many there are, by kind of number and layer."""
        return {
            f"{kind}/{layer}": value.shape[-1]
            for kind in _ARRAYS
            if kind not in _BY_NAME
            for layer, value in getattr(self, kind).items()
        }

    def rates(self, half: int | None = None) -> Floats:
        """Share of tokens on which each neuron is active, [layers, width]; of one half of the text if asked for.

        LAPE's p (Tang et al. 2024). DataError if the layers have different widths.
        """
        return self._mean(self.positive, half)

    def taylor_scores(self, half: int | None = None) -> Floats:
        """Mean |dL/dh x h| of each neuron [layers, width] (LANDeRMT). ConfigError if it was not measured."""
        if not self.taylor:
            raise ConfigError("these statistics were made without gradients", hint="langadapt calibrate ... --taylor")
        return self._mean(self.taylor, half)

    def input_squares(self, weight: str, half: int | None = None) -> Floats:
        """Mean square of what a matrix reads [inputs], by the name of its weight. DataError if it was not measured."""
        if weight not in self.inputs:
            raise DataError(f"these statistics hold nothing of `{weight}`: they are of another model")
        return self._mean_of(self.inputs[weight], half)

    def norm_squares(self, weight: str, half: int | None = None) -> Floats:
        """Mean square of what a norm reads [size], by the name of its weight. DataError if it was not measured."""
        if weight not in self.norms:
            raise DataError(
                f"these statistics do not hold what the norm `{weight}` reads: an older version made them, or the "
                "model does not meet it once for every token",
                hint="run `calibrate` again; if that does not help, choose by other rules: `--method magnitude`",
            )
        return self._mean_of(self.norms[weight], half)

    def half(self, number: int) -> "LanguageStatistics":
        """What one half of the text alone tells."""
        kept = slice(number, number + 1)
        arrays = {kind: {key: value[kept] for key, value in getattr(self, kind).items()} for kind in _ARRAYS}
        return LanguageStatistics(self.lang, self.tokens[kept], **arrays)

    def _mean(self, arrays: Mapping[int, Any], half: int | None) -> Floats:
        if not arrays:
            raise DataError(
                "these statistics count no active neurons: the MLPs or the activation function of the model are none "
                "that calibrate knows",
                hint="choose by columns or layers: `--method ssu`, `--method layers`",
            )
        if len({array.shape for array in arrays.values()}) > 1:
            raise DataError("the layers of this model have different numbers of neurons")
        return np.stack([self._mean_of(arrays[layer], half) for layer in sorted(arrays)])

    def _mean_of(self, sums: Any, half: int | None) -> Floats:
        """Sums of both halves [2, ...], or of one, for each of its tokens."""
        chosen = slice(None) if half is None else slice(half, half + 1)
        mean: Floats = sums[chosen].sum(0) / max(1, int(self.tokens[chosen].sum()))
        return mean


@dataclass(frozen=True)
class Statistics:
    """Statistics by language, and the digest of the model that they are of. DataError: they are not of one model."""

    by_lang: Mapping[str, LanguageStatistics]
    model_digest: str = ""

    def __post_init__(self) -> None:
        neurons = {lang: self.by_lang[lang].neurons for lang in self.langs}
        for lang, found in neurons.items():
            first = self.langs[0]
            if odd := sorted(key for key, _ in found.items() ^ neurons[first].items()):
                raise DataError(
                    f"the statistics of `{first}` and `{lang}` are not of one model: they disagree on the neurons of "
                    f"`{odd[0]}`",
                    hint=_MEASURED_AGAIN,
                )

    @property
    def langs(self) -> tuple[str, ...]:
        """Languages, sorted."""
        return tuple(sorted(self.by_lang))

    def half(self, number: int) -> "Statistics":
        """Those of one half of each language's text: choices made of both halves tell how far one can be trusted."""
        return Statistics({lang: found.half(number) for lang, found in self.by_lang.items()}, self.model_digest)

    def of(self, lang: str) -> LanguageStatistics:
        """Those of a language. ConfigError if it was not measured, with those that were."""
        check_measured([lang], self.langs)
        return self.by_lang[lang]


def check_measured(wanted: Iterable[str], measured: Iterable[str]) -> None:
    """ConfigError for a language that was not measured, with those that were."""
    known = sorted(measured)
    for lang in wanted:
        if lang not in known:
            raise ConfigError(
                f"the statistics hold nothing of `{lang}`; they have {', '.join(known) or 'no language'}",
                hint=f"langadapt calibrate MODEL {lang}=CORPUS --add STATISTICS --out ...",
            )


def _fault(found: LanguageStatistics) -> str | None:
    """What cannot be the statistics of any text."""
    tokens = found.tokens
    if tokens.shape != (HALVES,) or tokens.dtype != np.int64 or bool((tokens < 0).any()):
        return "`tokens` are not those of two halves"
    for kind in _ARRAYS:
        wanted = np.int64 if kind == "positive" else np.float64
        for key, value in getattr(found, kind).items():
            if value.ndim != 2 or len(value) != HALVES or value.dtype != wanted:
                return f"`{kind}/{key}` is {value.dtype} {list(value.shape)}, not two rows of {np.dtype(wanted)}"
            if not np.isfinite(value).all() or (kind not in _SIGNED and bool((value < 0).any())):
                return f"`{kind}/{key}` holds numbers that no text gives: below 0, infinite, or none at all"
            if kind == "positive" and bool((value > tokens[:, None]).any()):
                return f"`{kind}/{key}` counts more active tokens than there are tokens"
    return None


def write_language(folder: Path, found: LanguageStatistics) -> None:
    """Write `LANG.safetensors` into a folder."""
    from safetensors.numpy import save_file

    from langadapt.model.save import saving

    tensors: dict[str, Any] = {"tokens": found.tokens}
    for kind in _ARRAYS:
        tensors |= {f"{kind}/{key}": np.ascontiguousarray(value) for key, value in getattr(found, kind).items()}
    path = folder / f"{found.lang}.safetensors"
    with saving(path):
        save_file(tensors, path)


def read_language(folder: Path, lang: str) -> LanguageStatistics:
    """Read what `write_language` wrote. DataError if the file is damaged, or holds what no text gives."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / f"{lang}.safetensors"
    try:
        tensors = load_file(path)
        arrays: dict[str, dict[Any, Any]] = {kind: {} for kind in _ARRAYS}
        for name, value in tensors.items():
            kind, _, key = name.partition("/")
            if kind in arrays:
                arrays[kind][key if kind in _BY_NAME else int(key)] = value
        found = LanguageStatistics(lang, tensors["tokens"], **arrays)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DataError(f"`{path}` cannot be read: {error}", hint=_MEASURED_AGAIN) from error
    if (fault := _fault(found)) is not None:
        raise DataError(f"`{path}` is damaged: {fault}", hint=_MEASURED_AGAIN)
    return found
