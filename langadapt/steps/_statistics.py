"""Statistics of activations as an input of a step: opened, and refused where they are of another model."""

from typing import TYPE_CHECKING

from langadapt.core.errors import DataError
from langadapt.core.inputs import Input

if TYPE_CHECKING:
    from langadapt.select.statistics import Statistics

_SHOWN = 16


def open_statistics(given: Input, model: Input) -> "Statistics":
    """What calibrate measured. DataError if it is of another model, or damaged."""
    from langadapt.select.statistics import Statistics, read_language

    check_same_model(given, model)
    languages = sorted(given.facts["languages"])
    return Statistics({lang: read_language(given.path, lang) for lang in languages}, model.digest)


def check_same_model(given: Input, model: Input) -> None:
    """DataError if these statistics were not measured on this model: a neuron of another one is another neuron."""
    digest = str(given.facts["model_digest"])
    if digest != model.digest:
        raise DataError(
            f"`{given.given}` was measured on another model (digest {digest[:_SHOWN]}) than `{model.given}` "
            f"(digest {model.digest[:_SHOWN]})",
            hint=f"langadapt calibrate {model.given} LANG=CORPUS ... --out STATISTICS",
        )
