"""What a run of `cpt` lets move: a selection that was given, or a strategy's choice, made once and kept.

The choice is kept beside the checkpoints, so that a run that goes on trains what it trained, and written into the
result, so that the shield can be shown again.
"""

import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from langadapt.core.artifact import Identity, Output, keeping, open_artifact
from langadapt.core.config import Options
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input, maybe, one
from langadapt.core.progress import Progress
from langadapt.core.registry import load_method
from langadapt.core.types import Movable, Slice
from langadapt.steps._cpt_measure import Rules, Wanted, measured, wanted
from langadapt.steps._given_facts import check_given
from langadapt.steps._strategy import (
    check_neurons,
    check_statistics,
    look_at,
    looks_at_text,
    named,
    select_with,
    selection_in,
    statistics_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from langadapt.select.inputs import SelectInputs
    from langadapt.select.selection import Selection
    from langadapt.select.statistics import Statistics

# Folder in a model that was trained in part, and of the choice in what is kept of an unfinished run.
RECORD = "selection"
_KEPT = "choice"


class Wishes(Rules, Protocol):
    """The options of a run that say what moves, and what it is chosen by."""

    @property
    def seed(self) -> int: ...
    @property
    def lang(self) -> str | None: ...
    @property
    def source(self) -> str | None: ...
    @property
    def strategy(self) -> str: ...
    @property
    def strategy_options(self) -> Mapping[str, Any]: ...
    @property
    def stages(self) -> Any: ...
    @property
    def selection(self) -> str | None: ...
    @property
    def statistics(self) -> str | None: ...


def strategies_of(wishes: Wishes) -> list[tuple[str, Mapping[str, Any]]]:
    """The strategies of a run with their options: that of each stage, or the one it has."""
    stages = [(stage.strategy, stage.strategy_options) for stage in wishes.stages]
    return stages or [(wishes.strategy, wishes.strategy_options)]


def adapters_of(wishes: Wishes) -> list[str]:
    """The strategies that put new weights beside the model's, as far as their options tell."""
    from langadapt.select.adapter import AdapterOptions

    return [
        name for name, options in strategies_of(wishes) if issubclass(named(name, options)[0].options, AdapterOptions)
    ]


def check_wishes(wishes: Wishes) -> None:
    """ConfigError for strategies and options that there are not, and for those that exclude each other."""
    strategies = strategies_of(wishes)
    for name, _ in strategies:
        load_method("select", name, "strategy")
    methods = [named(*each)[0] for each in strategies]
    if wishes.selection is not None:
        if wishes.strategy != "full" or wishes.strategy_options or wishes.stages:
            raise ConfigError(
                "a selection takes the place of a strategy",
                where="selection",
                hint=f"leave {'`stages`' if wishes.stages else '`--strategy` and its options'} out",
            )
        if wishes.statistics is not None:
            raise ConfigError("a selection was made with its statistics already", hint="leave `--statistics` out")
    elif wishes.statistics is not None and not any(map(looks_at_text, methods)):
        raise ConfigError(
            f"`{methods[-1].name}` looks at no statistics",
            where="statistics",
            hint="leave `--statistics` out, or choose a strategy that does: `ssu`, `subnetwork`, `lape`",
        )


def check_subject(wishes: Wishes, model: Input, data: Input, statistics: Input | None) -> None:
    """DataError for a strategy that chooses what the model does not have, or by gradients that the statistics lack.

    ConfigError for a language that they lack.
    """
    if wishes.selection is not None:
        return
    languages = Languages(wishes, data)
    for name, options in strategies_of(wishes):
        method, settings = named(name, options)
        check_neurons(method, model)
        source = languages.need_source(name) if "source statistics" in method.facts.needs else None
        check_statistics(method, settings, statistics, source=source, targets=languages.targets)


def who_chooses(given: Input | None, strategy: str) -> str:
    """A strategy, or the selection that takes its place, in words."""
    return f"`{strategy}`" if given is None else f"the selection `{given.given}`"


def nothing_moves(who: str) -> ConfigError:
    """The error for a choice of nothing."""
    return ConfigError(
        f"nothing would move: {who} names no weight of this model",
        hint="look at it: langadapt select MODEL --method ... --out DIR",
    )


class Languages:
    """Which languages a data artifact holds: those that are learned, and the one that is replayed."""

    def __init__(self, wishes: Wishes, data: Input) -> None:
        sources = data.facts["sources"].values()
        targets = {str(source["lang"]) for source in sources if source["role"] == "target"}
        replayed = sorted({str(source["lang"]) for source in sources if source["role"] != "target"} - targets)
        self.targets = frozenset(targets | ({wishes.lang} if wishes.lang else set()))
        self.source = wishes.source or (replayed[0] if len(replayed) == 1 else None)
        self.every = frozenset(targets) | frozenset(replayed)
        self._replayed, self._asked = replayed, wishes.source

    def to_measure(self, settings: Options) -> list[str]:
        """Those that a strategy looks at: what is learned, what it is compared with. ConfigError if it cannot be."""
        from langadapt.select.neurons import NeuronOptions, check_compared

        if isinstance(settings, NeuronOptions) and not settings.compares:
            return sorted(self.targets)
        langs = sorted(set(getattr(settings, "langs", ())) or self.every | self.targets)
        if isinstance(settings, NeuronOptions):
            check_compared(langs, self.targets)
        return langs

    def warn_of_source(self, strategies: Iterable[tuple[str, Mapping[str, Any]]], progress: Progress) -> None:
        """Say that a language is both learned and shielded: right for a new subject, wrong for a new language.

        Also that one was named and nothing shields it.
        """
        chosen = [(name, named(name, given)[0].facts.needs) for name, given in strategies]
        shields = [name for name, needs in chosen if "source statistics" in needs]
        if self._asked and not shields:
            progress.warn(
                f"`--source {self._asked}` changes nothing: `{chosen[-1][0]}` shields no language, as `ssu` does"
            )
        if shields and self.source in self.targets:
            progress.warn(
                f"`{shields[0]}` shields `{self.source}`, which is also what is learned; "
                "`--source` is the language that should stay"
            )

    def need_source(self, strategy: str) -> str:
        """The language that should stay. ConfigError if it cannot be known."""
        if self.source is None:
            several = f"the data replay {' and '.join(self._replayed)}" if self._replayed else "the data replay nothing"
            raise ConfigError(
                f"`{strategy}` shields a language, and {several}", where="source", hint="name it: `--source en`"
            )
        return self.source


def wanted_of(wishes: Wishes, data: Input, run_tokens: int) -> Wanted | None:
    """What has to be measured on the data; None where nothing is, or it was given."""
    if wishes.selection is not None or wishes.statistics is not None:
        return None
    languages, langs, needs = Languages(wishes, data), list[str](), set[str]()
    for name, options in strategies_of(wishes):
        method, settings = named(name, options)
        needs |= set(method.facts.needs)
        if "source statistics" in method.facts.needs:
            langs.append(languages.need_source(name))
        elif looks_at_text(method):
            langs += languages.to_measure(settings)
    if not langs:
        return None
    return wanted(wishes, data.facts, tuple(dict.fromkeys(langs)), run_tokens, taylor="gradients" in needs)


class Chooser:
    """Strategies by name, on a loaded model; `selection` is what the last one chose (None: stages have several)."""

    def __init__(self, wishes: Wishes, out: Output) -> None:
        self._wishes, self._out = wishes, out
        self._model, self._data = one(out.inputs, "model"), one(out.inputs, "data")
        self._languages = Languages(wishes, self._data)
        self.selection: Selection | None = None
        self._shapes: Mapping[str, tuple[int, ...]] = {}
        self._table, self._new_rows = "", frozenset[int]()
        self._calibrated: dict[str, int] = {}
        self._given = maybe(out.inputs, "selection")
        if self._given is not None:
            check_given(self._given, self._model, "selection")
        self._measured: Callable[[], Statistics] | None = statistics_of(maybe(out.inputs, "statistics"), self._model)

    def prepare(self, run_tokens: int) -> None:
        """Measure what the strategy looks at, where it was not given: before the model that is trained is loaded.

        ConfigError if the data lack a language that has to be measured, DataError if the model lacks what is chosen.
        """
        check_subject(self._wishes, self._model, self._data, maybe(self._out.inputs, "statistics"))
        if self._wishes.selection is None:
            self._languages.warn_of_source(strategies_of(self._wishes), self._out.progress)
        elif self._wishes.source:
            self._out.progress.warn(
                f"`--source {self._wishes.source}` changes nothing: the selection says what may move"
            )
        wishes = wanted_of(self._wishes, self._data, run_tokens)
        if wishes is None:
            return
        found = measured(self._wishes, wishes, self._model, self._data, self._out)
        self._calibrated = {lang: int(found.of(lang).tokens.sum()) for lang in found.langs}
        self._measured = lambda: found

    def __call__(self, model: Any, strategy: str, options: Mapping[str, Any]) -> Movable:
        """What may move. ConfigError if nothing would."""
        look = look_at(
            model,
            self._model.path,
            seed=self._wishes.seed,
            old_rows=self._model.facts.get("old_rows"),
            source=self._languages.source,
            targets=self._languages.targets,
            statistics=self._measured,
            progress=self._out.progress,
        )
        self._shapes = look.parameters
        self._table, self._new_rows = look.tables.input, frozenset(look.new_rows.tolist())
        if self._given is not None:
            chosen, movable = selection_in(self._given, self._model, look.parameters), None
        elif self._wishes.stages:
            chosen, movable = select_with(look, strategy, options)
        else:
            chosen, movable = self._kept(look) or self._choose(look, strategy, options)
        self.selection = None if self._wishes.stages else chosen
        if not chosen.total and (movable is None or movable.adapter is None):
            raise nothing_moves(who_chooses(self._given, strategy))
        plain = chosen.movable()
        return plain if movable is None else replace(movable, names=plain.names, slices=plain.slices)

    def tell(self, may_move: tuple[Collection[str], Mapping[str, Slice]]) -> None:
        """Say how much may move where that is not everything; warn of new tokens that would never be learned."""
        found = self._allowed(may_move)
        if found.total < found.parameters:
            self._out.progress.note(
                f"{found.total:,} of {found.parameters:,} numbers may move ({found.total / found.parameters:.2%}); the "
                "others stay bit for bit, shown on the files at the end"
            )
        if self._new_rows and not _rows_move(found, self._table, self._new_rows):
            self._out.progress.warn(
                f"none of the rows of {len(self._new_rows):,} new tokens may move: unless an earlier run trained them, "
                "let them move too (`tables=new-rows`, or `select --method new-tokens --union SELECTION`)"
            )

    def write(self, may_move: tuple[Collection[str], Mapping[str, Slice]]) -> dict[str, Any]:
        """Write into the result what may move of the model, an adapter's layers included; returns what facts say of it.

        Nothing is written where everything may.
        """
        from langadapt.select.selection import write_selection

        found = self._allowed(may_move)
        if found.total == found.parameters:
            return {}
        write_selection(self._out.folder / RECORD, found)
        told = {"method": found.method, "moving": found.total, "parameters": found.parameters}
        return {RECORD: told | {key: found.found[key] for key in _TOLD if key in found.found}}

    def _allowed(self, may_move: tuple[Collection[str], Mapping[str, Slice]]) -> "Selection":
        """What may move of the model as it was loaded, with what is known of how it was chosen."""
        from langadapt.select.selection import selection_of

        chosen = self.selection
        return selection_of(
            Movable(frozenset(may_move[0]) & self._shapes.keys(), may_move[1]),
            self._shapes,
            method="stages" if chosen is None else chosen.method,
            options={} if chosen is None else chosen.options,
            found={} if chosen is None else chosen.found,
        )

    def _choose(self, look: "SelectInputs", strategy: str, options: Mapping[str, Any]) -> "tuple[Selection, Movable]":
        selection, movable = select_with(look, strategy, options)
        if self._calibrated:
            selection = replace(selection, found={**selection.found, "calibrated": self._calibrated})
        if named(strategy, options)[0].facts.needs:
            self._keep(selection, movable)
        return selection, movable

    @property
    def _identity(self) -> Identity:
        """Whatever is kept belongs to one run, which has one strategy."""
        return Identity("selection", "cpt", 1, {"kept": _KEPT}, {"run": self._out.identity.fingerprint})

    def _keep(self, selection: "Selection", movable: Movable) -> None:
        from langadapt.select.selection import write_selection

        with keeping(self._out.partial / _KEPT, self._identity, progress=self._out.progress) as target:
            write_selection(target.folder, selection)
            target.commit(
                {
                    "adapter": None if movable.adapter is None else dict(movable.adapter),
                    "keep_adapter": movable.keep_adapter,
                    "tables_factor": movable.tables_factor,
                }
            )

    def _kept(self, look: "SelectInputs") -> "tuple[Selection, Movable] | None":
        """What an earlier process chose; None if there is none. One that is damaged is said, and made again."""
        from langadapt.select.selection import check_model, read_selection

        place = self._out.partial / _KEPT
        if not place.is_dir():
            return None
        try:
            kept = open_artifact(place, "selection")
            kept.verify()
            if kept.fingerprint != self._identity.fingerprint:
                raise DataError(f"`{place}` is of another run")
            selection = read_selection(place)
            check_model(selection, look.parameters, str(place))
        except DataError as error:
            self._out.progress.warn(f"the choice that was kept is made again: {error.message}")
            shutil.rmtree(place)
            return None
        facts = kept.facts
        return selection, Movable(
            selection.names, selection.slices, facts["adapter"], facts["keep_adapter"], facts["tables_factor"]
        )


def _rows_move(found: "Selection", table: str, rows: Collection[int]) -> bool:
    """May any of these rows of the input table move, even in some columns only?"""
    part = found.slices.get(table)
    if part is None:
        return table in found.names
    return part.axis != 0 or not frozenset(part.ids.tolist()).isdisjoint(rows)


# What the facts of a model repeat of what its strategy found.
_TOLD = ("combined", "stability", "counts", "calibrated")
