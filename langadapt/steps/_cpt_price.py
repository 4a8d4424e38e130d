"""What is known before a run of what it will let move, and what finding that out costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langadapt.core.inputs import Input, Inputs, maybe, one
from langadapt.core.types import Estimate, Portion
from langadapt.steps._cpt_choice import (
    RECORD,
    Languages,
    Wishes,
    check_subject,
    nothing_moves,
    strategies_of,
    wanted_of,
    who_chooses,
)
from langadapt.steps._cpt_measure import price as measuring
from langadapt.steps._given_facts import check_given
from langadapt.steps._strategy import known_choice, looks_at_text, named
from langadapt.train.subject import portions_of, together

if TYPE_CHECKING:
    from langadapt.select.selection import Selection


def given_portion(inputs: Inputs) -> Portion:
    """How much a given selection lets move. DataError if it is of another model."""
    given = one(inputs, "selection")
    check_given(given, one(inputs, "model"), "selection")
    facts = given.facts
    if "body_share" not in facts:  # it is not made yet
        return Portion(1.0, 1.0)
    return Portion(float(facts["body_share"]), float(facts["tables_share"]), whole=bool(facts["whole"]))


@dataclass(frozen=True)
class Known:
    """How much a run will let move: shares, how many numbers where that is certain, and which where nothing is read.

    `stages` holds the shares of each stage, of a run without them that of the whole.
    """

    portion: Portion
    stages: tuple[Portion, ...] = ()
    moving: int | None = None
    chosen: "Selection | None" = None


def known_of(wishes: Wishes, inputs: Inputs) -> Known:
    """What a selection says, what a strategy chooses that looks at names and shapes alone, or what its options say.

    ConfigError if nothing would move; DataError for a selection of another model.
    """
    given = maybe(inputs, "selection")
    if given is not None:
        known = Known(given_portion(inputs), moving=given.facts.get("moving"))
        _check_moves(known.portion, who_chooses(given, wishes.strategy))
        return known
    shares, chosen = [], None
    for (name, options), said in zip(strategies_of(wishes), portions_of(wishes), strict=True):
        # all of the model needs no look at it, but for a branch of a run in which less moved
        looked_at = name != "full" or maybe(inputs, "branch_from") is not None
        found = known_choice(name, options, one(inputs, "model"), wishes.seed) if looked_at else None
        chosen = None if found is None else found[0]
        shares.append(said if found is None else found[1])
        _check_moves(shares[-1], who_chooses(None, name))
    if wishes.stages or chosen is None:
        return Known(together(shares), tuple(shares))
    return Known(shares[0], tuple(shares), chosen.total, chosen)


def _check_moves(portion: Portion, who: str) -> None:
    if not (portion.body or portion.tables or portion.rank):
        raise nothing_moves(who)


def check_branch(known: Known, inputs: Inputs) -> None:
    """DataError for a branch of a run in which other weights moved, where both are known."""
    from langadapt.select.selection import read_selection
    from langadapt.train.branch import FOLDER
    from langadapt.train.checkpoint import other_moves

    branch, given = maybe(inputs, "branch_from"), maybe(inputs, "selection")
    if branch is None or branch.artifact is None or branch.artifact.kind != "model":
        return
    chosen = read_selection(given.path) if given is not None and given.exists else known.chosen
    if chosen is None:
        return
    record = branch.path / RECORD
    same = chosen.same_places(read_selection(record)) if record.is_dir() else chosen.total == chosen.parameters
    if not same:
        raise other_moves(branch.path / FOLDER)


def with_choice(
    wishes: Wishes, inputs: Inputs, model: Mapping[str, Any], run_tokens: int, known: Known, estimate: Estimate
) -> Estimate:
    """The price of a run with that of choosing what moves. ConfigError: a language that has to be known is not."""
    from langadapt.train.price import model_shape

    data, statistics = one(inputs, "data"), maybe(inputs, "statistics")
    if statistics is not None:
        check_given(statistics, one(inputs, "model"), "statistics")
    check_subject(wishes, one(inputs, "model"), data, statistics)
    rows, seconds = _moves(wishes, inputs, data, known.stages), 0.0
    if added := 0 if known.portion.tables else int(model.get("added", 0)):
        rows += (("new tokens", f"none of the rows of {added:,} moves"),)
    todo = wanted_of(wishes, data, run_tokens)
    if todo is not None:
        seconds, said = measuring(wishes, todo, model_shape(model, Portion()), int(data.facts["block_tokens"]))
        rows += said
    facts: dict[str, object] = {} if wishes.selection is None else {"strategy": "selection"}
    if known.moving is not None:  # the formula takes a table that moves but for some rows as a whole
        facts["trained_parameters"] = known.moving
    return replace(
        estimate,
        seconds=(estimate.seconds or 0.0) + seconds,
        rows=(*estimate.rows, *rows),
        facts=estimate.facts | facts,
    )


def _moves(wishes: Wishes, inputs: Inputs, data: Input, stages: Sequence[Portion]) -> tuple[tuple[str, str], ...]:
    """One line on what moves, or one a stage, and for which languages; none where everything does."""
    selection = maybe(inputs, "selection")
    if selection is not None:
        facts = selection.facts
        known = f"{facts['moving']:,} of {facts['parameters']:,} numbers" if "moving" in facts else "is not made yet"
        return (("moves", f"selection `{selection.given}`: {known}"),)
    if wishes.strategy == "full" and not wishes.stages:
        return ()
    if wishes.stages:
        found = [(f"stage {number} moves", _words(each)) for number, each in enumerate(stages, start=1)]
    else:
        found = [("moves", _words(stages[0]))]
    languages = Languages(wishes, data)
    for name, options in strategies_of(wishes):
        method, _ = named(name, options)
        if "source statistics" in method.facts.needs:
            found.append(("shielded for", languages.need_source(name)))
        elif looks_at_text(method):
            found.append(("neurons of", ", ".join(sorted(languages.targets))))
    return tuple(dict.fromkeys(found))


def _words(portion: Portion) -> str:
    body = f"about {100 * portion.body:.3g} % of the body" if portion.body else ""
    words = [body, _tables(portion), f"an adapter of rank {portion.rank}" if portion.rank else ""]
    return ", ".join(filter(None, words)) or "nothing"


def _tables(portion: Portion) -> str:
    if not portion.tables:
        return ""
    return "the tables" if portion.tables == 1 else "some rows of the tables"
