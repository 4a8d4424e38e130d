"""What a run lets move: the strategy, handed the model and everything else that it may look at."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.config import Options
from langadapt.core.errors import DataError
from langadapt.core.inputs import Input
from langadapt.core.progress import Progress
from langadapt.core.registry import Method, load_method
from langadapt.core.types import Movable, Portion
from langadapt.core.validate import validate
from langadapt.steps._given_facts import check_given

if TYPE_CHECKING:
    from langadapt.select.inputs import SelectInputs
    from langadapt.select.selection import Selection
    from langadapt.select.statistics import Statistics


def look_at(
    model: Any,
    folder: Path | None,
    *,
    seed: int,
    old_rows: int | None = None,
    source: str | None = None,
    targets: frozenset[str] = frozenset(),
    statistics: "Callable[[], Statistics] | None" = None,
    progress: Progress | None = None,
) -> "SelectInputs":
    """What selectors may look at of a model that may be without values; `folder` holds its files."""
    import numpy as np

    from langadapt.model.anatomy import anatomy
    from langadapt.model.row_origin import new_rows_of
    from langadapt.model.tables import table_names
    from langadapt.model.token_table import TokenTable
    from langadapt.select.inputs import SelectInputs

    tables, none = table_names(model), np.zeros(0, dtype=np.int64)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    new = None if folder is None else new_rows_of(folder)
    if new is None:
        rows = shapes[tables.input][0]
        new = np.arange(rows if old_rows is None else old_rows, rows, dtype=np.int64)
    special = none
    if folder is not None:
        special = np.array(sorted(TokenTable.from_folder(folder).special_ids), dtype=np.int64)
    return SelectInputs(
        shapes, tables, anatomy(model), folder, new, special, seed, source, targets, statistics, progress or Progress()
    )


def look_without_values(model: Input, *, seed: int, **more: Any) -> "SelectInputs":
    """The same of a model that is not loaded: its config tells names and shapes. `more` are arguments of `look_at`."""
    from langadapt.model.empty import empty_model

    return look_at(empty_model(model.path), model.path, seed=seed, old_rows=model.facts.get("old_rows"), **more)


def named(name: str, options: Mapping[str, Any]) -> tuple[Method, Options]:
    """A selector and its options. ConfigError if there is no such one, or no such option of it."""
    method = load_method("select", name)
    return method, validate(method.options, options, what=f"options of `{name}`")


def check_neurons(method: Method, model: Input) -> None:
    """DataError for a method of neurons and a model without any that are known, such as a mixture of experts.

    Its config says so: nothing is measured first.
    """
    active = "active neurons" in method.facts.needs
    if not model.exists or not (active or "neurons" in method.facts.needs):
        return
    from langadapt.model.anatomy import anatomy
    from langadapt.model.empty import empty_model
    from langadapt.select.wiring import why_none

    if why := why_none(anatomy(empty_model(model.path)), active=active):
        raise DataError(
            f"`{method.name}` chooses neurons, and of `{model.given}` there are none to choose from: {why}",
            hint="choose by columns or layers: `ssu`, `layers`",
        )


def check_statistics(
    method: Method, settings: Options, given: Input | None, *, source: str | None, targets: Collection[str]
) -> None:
    """ConfigError for statistics that lack a language that the method looks at, DataError for those without gradients.

    Their manifest says so: they are not read for it.
    """
    if given is None or "languages" not in given.facts:
        return
    from langadapt.select.inputs import no_source, no_target
    from langadapt.select.neurons import NeuronOptions
    from langadapt.select.statistics import check_measured

    needs, measured = method.facts.needs, given.facts["languages"]
    if "gradients" in needs and not given.facts.get("taylor", True):
        raise DataError(
            f"`{method.name}` looks at gradients, and `{given.given}` was made without",
            where="statistics",
            hint="langadapt calibrate ... --taylor",
        )
    if "source statistics" in needs:
        if source is None:
            raise no_source()
        check_measured([source], measured)
    if isinstance(settings, NeuronOptions):
        if not targets:
            raise no_target()
        settings.looked_at(measured, sorted(targets))


def looks_at_text(method: Method) -> bool:
    """Does it look at statistics of activations, of one language or of several?"""
    return not {"statistics", "source statistics"}.isdisjoint(method.facts.needs)


def select_with(look: "SelectInputs", name: str, options: Mapping[str, Any]) -> "tuple[Selection, Movable]":
    """What a selector chooses, checked; one that looks at statistics is asked again on each half of the text."""
    from langadapt.select.selection import agreement, selection_of

    method, settings = named(name, options)
    plain = settings.model_dump(mode="json")

    def ask(view: "SelectInputs") -> "tuple[Selection, Movable]":
        movable: Movable = method(view, settings)
        return selection_of(movable, look.parameters, method=name, options=plain, found=view.found), movable

    selection, movable = ask(look)
    if not looks_at_text(method):
        return selection, movable
    whole = look.statistics()
    try:
        first, second = (ask(replace(look, measured=partial(whole.half, half), found={}))[0] for half in (0, 1))
        stability = round(agreement(first, second, look.tables.among(look.parameters)), 6)
    except DataError:  # half of the text chooses nothing
        stability = 0.0
    return replace(selection, found={**selection.found, "stability": stability}), movable


def known_choice(name: str, options: Mapping[str, Any], model: Input, seed: int) -> "tuple[Selection, Portion] | None":
    """What a selector chooses, where names and shapes of a model are all that it looks at: known before any run.

    With its shares of the model. None where it looks at more, puts an adapter beside the weights, or the model is not
    there yet.
    """
    from langadapt.select.adapter import AdapterOptions

    method, settings = named(name, options)
    if not model.exists or method.facts.needs or isinstance(settings, AdapterOptions):
        return None
    look = look_without_values(model, seed=seed)
    chosen, _ = select_with(look, name, options)
    return chosen, chosen.portion(look.tables.among(look.parameters))


def statistics_of(given: Input | None, model: Input) -> "Callable[[], Statistics] | None":
    """Reads statistics when they are asked for. DataError if they are of another model."""
    if given is None:
        return None
    check_given(given, model, "statistics")

    def read() -> "Statistics":
        from langadapt.select.statistics import Statistics, read_language

        langs = sorted(given.facts["languages"])
        if given.artifact is not None:
            for lang in langs:  # what the facts name is a file of the artifact, and none elsewhere
                given.artifact.file(f"{lang}.safetensors")
        return Statistics({lang: read_language(given.path, lang) for lang in langs}, model.digest)

    return read


def selection_in(given: Input, model: Input, shapes: Mapping[str, tuple[int, ...]]) -> "Selection":
    """A selection that was made by `select`. DataError if it is damaged, or of another model."""
    from langadapt.select.selection import check_model, read_selection

    check_given(given, model, "selection")
    found = read_selection(given.path)
    check_model(found, shapes, given.given)
    return found
