"""What the methods that choose neurons have in common: how many, of which language, and what moves beside them."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from langadapt.core.config import Options
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.languages import Lang
from langadapt.core.types import Movable, Portion, Slice
from langadapt.select.choice import TablesMove, by_layer, moving, tables_of, tables_share
from langadapt.select.statistics import check_measured

if TYPE_CHECKING:
    from langadapt.select.inputs import SelectInputs
    from langadapt.select.statistics import Statistics

    Ids = np.ndarray[Any, np.dtype[np.int32]]
    Floats = np.ndarray[Any, np.dtype[np.float64]]


class NeuronOptions(Options):
    """How many neurons are chosen, among which languages, and what happens to the tables."""

    top_rate: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of all neurons that is chosen."""

    langs: tuple[Lang, ...] = ()
    """Languages to compare; by default all of the statistics. The choice depends on which they are."""

    tables: TablesMove = "freeze"
    """Rows of input table and head that move: all but those of special tokens, those of new tokens, or none."""

    @property
    def compares(self) -> bool:
        """Does the choice look at languages beside those that are learned?"""
        return True

    def looked_at(self, measured: Collection[str], targets: Sequence[str]) -> tuple[str, ...]:
        """The languages of the statistics that the choice depends on: those `measured`, or `langs`, or the targets.

        ConfigError: one was not measured; to compare, there are fewer than two, or a target is not among them.
        """
        chosen = tuple(sorted(set(self.langs) or set(measured))) if self.compares else tuple(targets)
        check_measured((*chosen, *targets), measured)
        if self.compares:
            check_compared(chosen, targets)
        return chosen


def portion(options: NeuronOptions) -> Portion:
    """At most `top_rate` of the body: attention does not move."""
    return Portion(options.top_rate, tables_share(options.tables))


def check_compared(chosen: Sequence[str], targets: Collection[str]) -> None:
    """ConfigError for fewer than two languages to compare, or a target not among them."""
    missing = sorted(set(targets) - set(chosen))
    if missing:
        raise ConfigError(f"`{missing[0]}` is to be learned and not among `langs`", hint="add it to `langs`")
    if len(chosen) < 2:
        raise ConfigError(
            f"neurons of a language are those that others do not use, and there is only `{chosen[0]}`",
            hint="langadapt calibrate MODEL en=CORPUS --add STATISTICS --out ...: measure more languages",
        )


def need_text(statistics: "Statistics", langs: Sequence[str]) -> None:
    """DataError if a language was measured on no text."""
    for lang in langs:
        if not int(statistics.of(lang).tokens.sum()):
            raise DataError(f"the statistics of `{lang}` are of no text", hint="calibrate with more text of it")


def slices_of(inputs: "SelectInputs", chosen: Sequence["Ids"]) -> dict[str, Slice]:
    """Rows and columns of the chosen neurons of each layer."""
    found: dict[str, Slice] = {}
    for layer, ids in zip(inputs.anatomy.need_neurons(), chosen, strict=True):
        if len(ids):
            found |= layer.slices(ids)
    return found


def fitting(inputs: "SelectInputs", rates: "Floats") -> None:
    """DataError if numbers [layers, width] are not of the neurons of this model."""
    neurons = inputs.anatomy.need_neurons()
    wanted = [layer.width for layer in neurons]
    if list(rates.shape) != [len(neurons), *set(wanted)]:
        raise DataError(
            f"the statistics are of {list(rates.shape)} neurons, the model has {len(wanted)} layers of "
            f"{' or '.join(f'{width:,}' for width in sorted(set(wanted)))}"
        )


def moving_neurons(
    inputs: "SelectInputs",
    sets: "Mapping[str, Ids]",
    targets: Sequence[str],
    tables: TablesMove,
    *,
    chosen: int | None = None,
) -> Movable:
    """The neurons of the languages that are learned, and rows of tables; the sets of all languages are told.

    `chosen` is how many neurons were chosen in all, where some may belong to no language.
    """
    widths = [layer.width for layer in inputs.anatomy.need_neurons()]
    every = len(np.unique(np.concatenate(list(sets.values())))) if chosen is None else chosen
    inputs.found.update(_told(sets, every, widths))
    wanted = np.unique(np.concatenate([sets[lang] for lang in targets]))
    return moving(inputs, slices_of(inputs, by_layer(wanted, widths)) | tables_of(inputs, tables))


def _told(sets: "Mapping[str, Ids]", chosen: int, widths: Sequence[int]) -> dict[str, Any]:
    """What a selection keeps of the sets: neurons of each language layer by layer, how many, and those of each pair."""
    langs = sorted(sets)
    return {
        "neurons": {lang: [ids.tolist() for ids in by_layer(sets[lang], widths)] for lang in langs},
        "counts": {lang: len(sets[lang]) for lang in langs},
        "chosen": chosen,
        "overlap": {
            f"{one} {other}": len(np.intersect1d(sets[one], sets[other]))
            for place, one in enumerate(langs)
            for other in langs[place + 1 :]
        },
    }


def no_neurons(lang: str, why: str) -> DataError:
    """The error for a language that no neuron was found for."""
    return DataError(
        f"no neuron of `{lang}` was found: {why}",
        hint="choose more (`top_rate`), calibrate on more text, or compare with languages that are less alike",
    )
