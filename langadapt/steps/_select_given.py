"""What `select` is handed: the model as names and shapes, statistics, other selections; and what choosing will cost."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from langadapt.core.inputs import Inputs, many, maybe, one
from langadapt.core.progress import Progress
from langadapt.core.registry import Method
from langadapt.core.types import Estimate, Portion
from langadapt.core.units import show_bytes, show_seconds
from langadapt.model.weights import BYTES_PER_VALUE
from langadapt.steps._given_facts import check_given
from langadapt.steps._select_effects import Wishes as Effects
from langadapt.steps._select_effects import price as price_of_effects
from langadapt.steps._select_effects import with_effects
from langadapt.steps._strategy import (
    check_neurons,
    check_statistics,
    look_without_values,
    looks_at_text,
    named,
    select_with,
    selection_in,
    statistics_of,
)

if TYPE_CHECKING:
    from langadapt.select.inputs import SelectInputs
    from langadapt.select.selection import Selection

# Python with torch and transformers loaded, and the architecture built without values: 4 to 9 s of processor time for
# SmolLM2-135M, 10 s where Python compiles their files for the first time. 411 to 430 MB, whatever is read of it.
_START_SECONDS, _PROGRAM_BYTES = 8.5, 410_000_000
# One core reads a tensor, looks for what is no number and sums its columns in float64 at this rate, numbers a second.
_READ_RATE = 60_000_000
# A tensor in its own type, in fp32 and in fp64.
_READ_BYTES = 14
# The record by name; half of the columns of a layer's matrices, about nine times its width, as int32.
_RECORD_BYTES, _BYTES_A_COLUMN = 100_000, 20
# Singular values of a body of matrices in fp64 take this many seconds a number and column (of 1,000): processor time of
# LAPACK on one core, within 5 % the same for SmolLM2-135M and for a layer of 2,048 columns.
_SVD_SECONDS = 1.35e-7


class Wishes(Effects, Protocol):
    """What select is asked for."""

    @property
    def method(self) -> str | None: ...
    @property
    def method_options(self) -> dict[str, Any]: ...
    @property
    def lang(self) -> str | None: ...
    @property
    def source(self) -> str | None: ...


def chosen(wishes: Wishes, inputs: Inputs, progress: Progress) -> "tuple[Selection, Portion]":
    """The method's choice, joined with `union`, cut by `intersection`, less `minus`; and its share of the model."""
    model = one(inputs, "model")
    _check_method(wishes, inputs)
    _warn_of_languages(wishes, progress)
    found, portion = _set(wishes, inputs, progress)
    if wishes.effects:
        found = with_effects(found, wishes, inputs, model, progress)
    return found, portion


def _set(wishes: Wishes, inputs: Inputs, progress: Progress) -> "tuple[Selection, Portion]":
    """What moves, without what is measured of it."""
    from langadapt.select.selection import nothing

    look = _look(wishes, inputs, progress)
    others = _others(inputs, look)
    found = nothing(look.parameters)
    if wishes.method is not None:
        found, _ = select_with(look, wishes.method, wishes.method_options)
    found = _combined(found, others)
    return found, found.portion(look.tables.among(look.parameters))


def _look(wishes: Wishes, inputs: Inputs, progress: Progress) -> "SelectInputs":
    model = one(inputs, "model")
    return look_without_values(
        model,
        seed=wishes.seed,
        source=wishes.source,
        targets=frozenset({wishes.lang} if wishes.lang else ()),
        statistics=statistics_of(maybe(inputs, "statistics"), model),
        progress=progress,
    )


# How another selection is combined with what was chosen (`union`), its digest, and what it holds.
_Other = tuple[str, str, "Selection"]


def _others(inputs: Inputs, look: "SelectInputs") -> list[_Other]:
    """The other selections, in the order in which they are applied; read first: a damaged one costs no time."""
    return [
        (how, item.digest, selection_in(item, one(inputs, "model"), look.parameters))
        for how in ("union", "intersection", "minus")
        for item in many(inputs, how)
    ]


def _combined(found: "Selection", others: list[_Other]) -> "Selection":
    """`found` joined with, cut by and less the others, which it then names."""
    from langadapt.select import selection as sets

    combine = {"union": sets.union, "intersection": sets.intersection, "minus": sets.minus}
    for how, _, other in others:
        found = combine[how](found, other)
    if not others:
        return found
    named_ones = [{"how": how, "method": other.method, "digest": digest} for how, digest, other in others]
    return replace(found, found={**found.found, "combined": named_ones})


def _warn_of_languages(wishes: Wishes, progress: Progress) -> None:
    """Say that one was named and nothing looks at any; a recipe names both for whatever method it is run with."""
    named_ones = " and ".join(f"`--{flag} {lang}`" for flag, lang in (("lang", wishes.lang), ("source", wishes.source))
                              if lang)  # fmt: skip
    if wishes.method is None:
        who = "a union"
    elif looks_at_text(named(wishes.method, wishes.method_options)[0]):
        return
    else:
        who = f"`{wishes.method}`"
    if named_ones:
        progress.warn(f"{named_ones}: nothing changes by it, {who} looks at no language")


def languages_used(wishes: Wishes) -> dict[str, str | None]:
    """Of the languages that were named, those that the method looks at."""
    needs = () if wishes.method is None else named(wishes.method, wishes.method_options)[0].facts.needs
    return {
        "lang": wishes.lang if "statistics" in needs else None,
        "source": wishes.source if "source statistics" in needs else None,
    }


def price(wishes: Wishes, inputs: Inputs) -> Estimate:
    """Time from what the method reads and computes; the memory of one tensor, widened, beside the program's."""
    from langadapt.train.combine import facts_of

    model = one(inputs, "model")
    for name in ("union", "intersection", "minus"):
        for item in many(inputs, name):
            check_given(item, model, "selection")
    given = maybe(inputs, "statistics")
    statistics_of(given, model)
    method = _check_method(wishes, inputs)
    needs = () if method is None else method.facts.needs
    facts = facts_of(model)
    parameters, width = int(facts.get("parameters") or 0), int(facts.get("hidden_size") or 0)
    seconds = _START_SECONDS
    rows = [("model", "names and shapes only; its values are not loaded")]
    body = max(0, parameters - int(facts.get("rows") or 0) * width * (1 if facts.get("tied") else 2))
    if "weights" in needs:
        seconds += body / _READ_RATE
        rows = [("model", f"{show_bytes(body * BYTES_PER_VALUE.get(str(facts.get('dtype')), 4))} are read, a "
                          "tensor at a time")]  # fmt: skip
    if "singular values" in needs:
        spent = body * width / 1000 * _SVD_SECONDS
        seconds += spent
        rows.append(("singular values", f"of every matrix, about {show_seconds(spent)}"))
    memory = _PROGRAM_BYTES + (_READ_BYTES * _largest_matrix(facts) if "weights" in needs else 0)
    if wishes.effects:
        langs = len(given.facts["languages"]) if given is not None and "languages" in given.facts else 2
        spent, taken = price_of_effects(wishes, inputs, (parameters, int(facts.get("rows") or 0)), langs)
        seconds, memory = seconds + spent, max(memory, taken)
        rows.append(("effects", f"{1 + 2 * langs} times over the text, {show_seconds(spent)}"))
    expected = _expected(wishes, inputs)
    if "moving" in expected:
        rows.append(("moves", f"{expected['moving']:,} of {expected['parameters']:,} numbers"))
    return Estimate(
        seconds=seconds,
        memory_bytes=memory,
        disk_bytes=_RECORD_BYTES
        + _BYTES_A_COLUMN * int(facts.get("layers") or 0) * width
        + 4 * int(facts.get("rows") or 0),
        facts={
            "method": wishes.method,
            "model_digest": model.digest if model.exists else None,
            **expected,
        },
        rows=tuple(rows),
    )


def _largest_matrix(facts: Mapping[str, Any]) -> int:
    """Numbers of the largest matrix of a layer; 0 where the facts do not tell."""
    from langadapt.train.price import model_shape

    if not all(facts.get(name) for name in ("parameters", "rows", "hidden_size", "layers")):
        return 0
    shape = model_shape({"tied": True, **facts}, Portion())
    return round(shape.hidden * shape.inner)


def _check_method(wishes: Wishes, inputs: Inputs) -> Method | None:
    """The method that was asked for. DataError or ConfigError if model or statistics lack what it looks at."""
    if wishes.method is None:
        return None
    method, settings = named(wishes.method, wishes.method_options)
    check_neurons(method, one(inputs, "model"))
    targets = frozenset({wishes.lang} if wishes.lang else ())
    check_statistics(method, settings, maybe(inputs, "statistics"), source=wishes.source, targets=targets)
    return method


def _expected(wishes: Wishes, inputs: Inputs) -> dict[str, Any]:
    """What will move, for the price of a run that waits for this selection.

    Exact where names and shapes are all that is looked at; else the shares that the method says, the most that can be;
    nothing where another selection is added, or the method does not say.
    """
    method = None if wishes.method is None else named(wishes.method, wishes.method_options)
    others = [item for name in ("union", "intersection", "minus") for item in many(inputs, name)]
    there = one(inputs, "model").exists and all(item.exists for item in others)
    if there and (method is None or not method[0].facts.needs):
        found, portion = _set(wishes, inputs, Progress())
        return {"moving": found.total, "parameters": found.parameters, **_shares(portion)}
    if method is None or many(inputs, "union") or method[0].facts.portion is None:
        return {}
    return _shares(method[0].facts.portion(method[1]))


def _shares(portion: Portion) -> dict[str, Any]:
    return {"body_share": portion.body, "tables_share": portion.tables, "whole": portion.whole}
