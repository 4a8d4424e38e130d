"""Each method on the same bench: rows for hidden tokens, rows for the new ones, and the model with them, in memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.host import spending
from langadapt.core.inputs import Inputs
from langadapt.core.progress import Progress
from langadapt.embed.assemble import Layout, layout, longer, longer_bias
from langadapt.embed.checks import old_sequences
from langadapt.embed.hiding import Hidden, hide, looked, recovery
from langadapt.embed.inflation import inflation
from langadapt.embed.rowmap import RowMap
from langadapt.evaluate.partial import Partial, SegmentRow, to_rows
from langadapt.evaluate.segments import ScoringSet
from langadapt.model.in_memory import put_tables
from langadapt.model.load import load_any_tokenizer, load_model, load_tokenizer
from langadapt.model.score import score_texts
from langadapt.steps._compare_candidates import Candidate, LeftOut
from langadapt.steps._compare_text import Manner, Separators, scoring_sets, separators
from langadapt.steps._init_setting import Setting

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BASE = "base"
_ALL = "all"


class Bench:
    """The base model, loaded once; the tables of one method after the other take the place of its own.

    What is finished lies in `partial`, so a run that was stopped goes on with the next method.
    """

    def __init__(self, here: Setting, given: Inputs, manner: Manner, partial: Partial, multiple: int | None) -> None:
        self.here, self.manner, self.partial = here, manner, partial
        self.plan: Layout = layout(here.tokens, multiple)
        self.sets: dict[str, ScoringSet] = scoring_sets(given, manner, here.seed)
        self.failed: list[LeftOut] = []

    @property
    def progress(self) -> Progress:
        """That of the step."""
        return self.here.progress

    @cached_property
    def hidden(self) -> Hidden:
        """The tokens that every method is asked for although the base has them."""
        here = self.here
        return hide(here.inputs("input"), here.tables.tokens, here.target, self.manner.hidden_share)

    @cached_property
    def tokenizers(self) -> "tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]":
        """The base's and the new one."""
        return load_tokenizer(self.here.tables.folder), load_any_tokenizer(self.here.target.folder)

    @cached_property
    def _loaded(self) -> "tuple[PreTrainedModel, list[torch.Tensor]]":
        """The model, and what its head is given for old text: looked at before any table is replaced."""
        import torch

        model = load_model(self.here.tables.folder)
        # the last sequence is ids from all over the vocabulary and no text
        sequences = old_sequences(self.here.tables, self.plan)
        with torch.inference_mode():
            body: Callable[..., Any] = model.base_model
            states = [
                body(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0].float()
                for ids in sequences[:-1] or sequences
            ]
        return model, states

    @cached_property
    def separators(self) -> Separators:
        """Asked for before any table is replaced: the base's own scores decide."""
        if not self.partial.has("separators", BASE, _ALL):
            found = separators(self.manner.document_separator, *self.tokenizers, self._loaded[0], self.sets)
            self.partial.save("separators", BASE, _ALL, [asdict(found)])
        return Separators(**self.partial.load("separators", BASE, _ALL)[0])

    def run(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Score the base, then every method; those that could do it, in the same order."""
        before = self.separators
        if any(not self.partial.has("scores", BASE, name) for name in self.sets):
            self._score(BASE, self.tokenizers[0], before.base_id)
        able = []
        for candidate in self.progress.track(candidates, "comparing", total=len(candidates), unit="methods"):
            self.progress.note(f"`{candidate.name}`")
            if not self.partial.has("figures", candidate.name, _ALL):
                try:
                    self._measure(candidate)
                except (ConfigError, DataError) as error:
                    self.failed.append(LeftOut(candidate.name, f"it cannot do this: {error.message}", error.hint or ""))
                    continue
            able.append(candidate)
        return able

    def figures(self, name: str) -> dict[str, Any]:
        """What was found of one method, beside its scores."""
        return self.partial.load("figures", name, _ALL)[0]

    def spent(self, name: str) -> dict[str, Any]:
        """Seconds and memory of one method: of this machine, at that time."""
        return self.partial.load("spent", name, _ALL)[0]

    def rows(self, names: Sequence[str], name: str) -> dict[str, list[SegmentRow]]:
        """Scores of some models on one set."""
        return {model: self.partial.load_rows(model, name) for model in names}

    def _measure(self, candidate: Candidate) -> None:
        here, tables, plan = self.here, self.here.tables, self.plan
        stored = {"input": tables.stored.input, "head": tables.stored.head}
        maps: dict[str, RowMap] = {}
        made: dict[str, Any] = {}
        with spending() as spent:
            for table in here.table_names:
                maps[table] = candidate.method(here.inputs(table), candidate.options)
                made[table] = longer(tables, str(stored[table]), maps[table], plan)
        bias = tables.stored.bias
        last = maps.get("head", maps["input"])
        made_bias = None if bias is None else longer_bias(tables, bias, last, plan).float().flatten()
        model, states = self._loaded
        head = made.get("head", made["input"]).float()
        taken = inflation(states, (tables.read_head(), tables.read_bias()), (head, made_bias), plan, last)
        put_tables(model, made["input"], made.get("head"), made_bias)
        del made, head
        figures = {
            "needs": list(candidate.needs),
            "hidden": {table: self._recovered(candidate, table) for table in here.table_names},
            "head_mass": asdict(taken),
            "reasons": maps["input"].reasons(),
            "duplicate_rows": max(sum(map(len, rows.duplicates())) for rows in maps.values()),
            "measured": {table: dict(rows.measured) for table, rows in maps.items() if rows.measured},
        }
        self._score(candidate.name, self.tokenizers[1], self.separators.new_id)
        self.partial.save("spent", candidate.name, _ALL, [asdict(spent)])
        self.partial.save("figures", candidate.name, _ALL, [figures])

    def _recovered(self, candidate: Candidate, table: str) -> dict[str, Any]:
        """How near the method comes to rows that it is not shown; `looked` tokens: it used hidden rows all the same.

        A method that can make rows of new tokens and none of hidden ones (those of a file) is compared without this.
        """
        here = self.here
        if not len(self.hidden.old):
            return {"tokens": 0}
        alone = "local" in candidate.method.facts.laws
        try:
            rows = candidate.method(self.hidden.from_method(here.inputs(table), alone=alone), candidate.options)
        except (ConfigError, DataError) as error:
            return {"tokens": 0, "why": error.message}
        seen = looked(rows, self.hidden)
        if seen:
            return {"tokens": 0, "looked": seen}
        old = here.tables.read_input() if table == "input" else here.tables.read_head()
        return recovery(rows, self.hidden, old.numpy(), here.tables.tokens.text_ids())

    def _score(self, role: str, tokenizer: "PreTrainedTokenizerBase", prefix: int) -> None:
        for name, chosen in self.sets.items():
            if self.partial.has("scores", role, name):
                continue
            bar = self.progress.start(f"score {role} on {name}", total=chosen.bytes, unit="bytes")
            scores = score_texts(
                self._loaded[0],
                tokenizer,
                chosen.scored_texts(self.manner.context_bytes),
                prefix_id=prefix,
                compute=self.manner.compute,
                progress=bar,
            )
            bar.finish()
            self.partial.save_rows(role, name, to_rows(chosen, scores))


def needs_of(candidates: Sequence[Candidate]) -> Mapping[str, tuple[str, ...]]:
    """Name -> what the method looks at."""
    return {candidate.name: candidate.needs for candidate in candidates}
