"""Fills in one step: variables become values, names become references to steps or paths."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from langadapt.core.config import InputField, input_fields
from langadapt.core.errors import ConfigError
from langadapt.core.verb import Verb
from langadapt.recipe import sources
from langadapt.recipe.axes import as_text
from langadapt.recipe.document import Problems, Recipe, StepText
from langadapt.recipe.sources import FromPath, FromStep, Source
from langadapt.recipe.step import Step, Wiring
from langadapt.recipe.values import Unset, Variables


@dataclass
class Builder:
    """Fills in one step; `sound` is False afterwards if its config cannot be judged, `whole` if something optional of
    it is still to be given.

    `active` holds the ids of the steps that are on. With `lenient` an input whose variable is not set yet gets a
    placeholder, so that all else can be checked.
    """

    recipe: Recipe
    step: StepText
    verb: Verb
    variables: Variables
    active: set[str]
    problems: Problems
    lenient: bool = False
    sound: bool = True
    whole: bool = True
    _dropped: list[str] = field(default_factory=list)

    def build(self) -> Step:
        """The step, as far as it could be filled in; what is wrong went to the problems."""
        values: dict[str, Any] = {}
        wiring: dict[str, Wiring] = {}
        inputs = {item.name: item for item in input_fields(self.verb.config)}
        for key, template in self.step.fields.items():
            try:
                if key in inputs:
                    self.wire(inputs[key], template, values, wiring)
                elif key in self.verb.config.model_fields:
                    self.fill(key, template, values)
                else:
                    self.sound = False  # told already
            except ConfigError as error:
                self.sound = False
                self.problems.add(f"step `{self.step.id}`: {error.message}", error.where, error.hint)
        return Step(
            self.step.id, self.verb, values, wiring, self.where(), self.step.written, dict(self.step.point)
        )  # fmt: skip

    def where(self) -> dict[str, str]:
        """Places by dotted key, also under the keys as they are after filling in."""
        places = {"": self.step.place}
        for key, place in self.step.where.items():
            places[key] = place
            if "${" in key:
                for here in self.variables.spread(key):
                    try:
                        places[here.fill_key(key)] = place
                    except ConfigError:  # told where the key itself is filled in
                        continue
        return places

    def place(self, key: str) -> str:
        return self.step.where.get(key, self.step.place)

    def fill(self, key: str, template: Any, values: dict[str, Any]) -> None:
        value = self.variables.fill(template, self.place(key))
        if not isinstance(value, Unset):
            values[key] = value
        elif self.verb.config.model_fields[key].is_required():
            self.sound = False
            self.unset(key, value)
        else:
            self.whole = False

    def unset(self, key: str, value: Unset) -> None:
        self.problems.unset(value.name, f"step `{self.step.id}` needs `{key}`", self.place(key))

    def wire(self, item: InputField, template: Any, values: dict[str, Any], wiring: dict[str, Wiring]) -> None:
        """Wire one input field; what is not text is left for pydantic to judge."""
        self._dropped = []
        typed = item.name in self.step.typed or self.variables.uses_typed(template)
        value = self.variables.fill(template, self.place(item.name))
        if item.shape == "many" and isinstance(value, str):
            value = [value]
        if isinstance(value, Unset):
            if item.required:
                self.unset(item.name, value)
                self.hold_place(item, wiring)
            else:
                self.whole = False
            return
        if isinstance(value, str) and item.shape == "one":
            for source in self.one(value, item, self.variables, typed):
                wiring[item.name] = source
        elif isinstance(value, list) and item.shape == "many" and all(isinstance(part, str) for part in value):
            found = [source for text in value for source in self.every(text, item, typed)]
            wiring[item.name] = tuple(found)
        elif isinstance(value, dict) and item.shape == "map" and all(isinstance(part, str) for part in value.values()):
            wiring[item.name] = self.named(template if isinstance(template, dict) else value, item, typed)
        else:
            values[item.name] = value
        if item.required and not wiring.get(item.name) and item.name not in values:
            self.sound = False
            dropped = ", ".join(self._dropped)
            what = f"only to what is switched off: {dropped}" if dropped else "to nothing"
            self.problems.add(f"step `{self.step.id}`: `{item.name}` refers {what}", self.place(item.name))

    def hold_place(self, item: InputField, wiring: dict[str, Wiring]) -> None:
        source = FromPath("?")
        shaped: dict[str, Wiring] = {"one": source, "many": (source,), "map": {"?": source}}
        wiring[item.name] = shaped[item.shape]
        self.sound = self.sound and self.lenient
        self.whole = self.whole and item.shape != "map"  # its keys are unknown too

    def named(self, template: Mapping[str, Any], item: InputField, typed: bool) -> dict[str, Source]:
        """A map of inputs; a key that names an axis stands for one entry a value of it."""
        found: dict[str, Source] = {}
        for key, inner in template.items():
            for here in self.variables.spread(key):
                text = here.fill(inner, self.place(item.name))
                if isinstance(text, Unset):
                    self.whole = False
                    continue
                for source in self.one(text, item, here, typed):
                    found[here.fill_key(key)] = source
        return found

    def one(self, text: str, item: InputField, here: Variables, typed: bool) -> Iterator[Source]:
        """What a name means, nothing if that is switched off; ConfigError if it means several steps."""
        fits = self.fitting(text, here)
        if len(fits) > 1:
            more = [axis for axis in fits[0].axes if axis not in here.point]
            ask = f'or collect them: `{item.name}: {{"${{{more[0]}}}": {text}}}`' if item.shape == "map" else ""
            raise ConfigError(
                f"`{item.name}: {text}` means {len(fits)} steps, one for each {' and '.join(more)}",
                where=self.place(item.name),
                hint=f"add `matrix: [{', '.join([*self.step.axes, *more])}]` to the step, {ask}".rstrip(", "),
            )
        yield from self.kept(fits, text) if self.is_step(text) else self.path(text, item, typed)

    def every(self, text: str, item: InputField, typed: bool) -> Iterator[Source]:
        """What a name in a list means: all steps that the matrix makes of it."""
        if self.is_step(text):
            yield from self.kept(self.fitting(text, self.variables), text)
        else:
            yield from self.path(text, item, typed)

    def is_step(self, text: str) -> bool:
        return any(text in (step.id, step.written) for step in self.recipe.steps.values())

    def fitting(self, text: str, here: Variables) -> list[StepText]:
        """The steps that a name may mean: that of exactly this id, else those whose values agree with `here`."""
        if text in self.recipe.steps:
            return [self.recipe.steps[text]]

        def agrees(step: StepText) -> bool:
            return all(as_text(here.point.get(axis, value)) == as_text(value) for axis, value in step.point.items())

        return [step for step in self.recipe.expanded(text) if agrees(step)]

    def kept(self, found: list[StepText], text: str) -> Iterator[Source]:
        for step in found:
            if step.id in self.active:
                yield FromStep(step.id)
            else:
                self._dropped.append(step.id)
        if not found:
            self._dropped.append(text)  # `exclude` left nothing of it here

    def path(self, text: str, item: InputField, typed: bool) -> Iterator[Source]:
        yield sources.find(
            text,
            item,
            folder=self.recipe.cwd if typed else self.recipe.folder,
            steps=list(dict.fromkeys([*(step.written for step in self.recipe.steps.values()), *self.recipe.steps])),
            typed=typed,
            where=self.place(item.name),
        )
