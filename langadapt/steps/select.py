"""Choose which weights of a model may move: rows and columns by a method, joined with or cut by other selections

Everything that a selection does not name is the shield: `cpt --selection` keeps it bit for bit.
"""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from langadapt.core.artifact import Artifact, Output
from langadapt.core.config import Flag, ModelInput, Reads, StepConfig
from langadapt.core.errors import ConfigError
from langadapt.core.inputs import Inputs, maybe, one
from langadapt.core.io import read_json_object
from langadapt.core.languages import Lang
from langadapt.core.types import Estimate, Portion, Table
from langadapt.core.units import Bytes

if TYPE_CHECKING:
    from langadapt.select.selection import Selection

KIND = "selection"
SCHEMA = 1
EXAMPLES = (
    "langadapt select base --method ssu --statistics stats --source en --out shielded",
    "langadapt select base --method lape --statistics stats --lang hu --out neurons",
    "langadapt select base --method new-tokens --union neurons --out both",
    "langadapt select base --method lape --statistics stats --lang hu -o effects=true --text hu=HU --out e",
)
_Selections = tuple[Annotated[str, Reads(("selection",), flag_only=True)], ...]


class Config(StepConfig):
    """What select takes."""

    model: ModelInput
    """Model to choose from: a folder, a .gguf file or a hub id. It is not loaded: what a method asks for is read."""
    method: Annotated[str | None, Flag(room="select")] = None
    """How the weights that may move are chosen; see `langadapt list methods`. Without one: only `--union`."""
    method_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the method, e.g. `method_options.ratio=0.7`; docs/methods/ has a page for each."""
    statistics: Annotated[str, Reads(("statistics",), flag_only=True)] | None = None
    """Activations measured by calibrate on this model."""
    lang: Annotated[Lang | None, Flag()] = None
    """Language that is to be learned: its neurons move."""
    source: Annotated[Lang | None, Flag()] = None
    """Language that is to stay: what it needs most is shielded."""
    union: _Selections = ()
    """Selections to add: what one of them lets move may move."""
    intersection: _Selections = ()
    """Selections to cut by: only what all of them let move may move."""
    minus: _Selections = ()
    """Selections to take away: what one of them lets move is shielded. Taken away last."""
    text: dict[str, Annotated[str, Reads(("corpus",), plain=True, flag_only=True)]] = Field(default_factory=dict)
    """Text to measure effects on, LANG=CORPUS each; its held-out part is scored."""
    effects: bool = False
    """Silence the neurons of each language, score every `--text` without them: one forward pass for each set and one
    for as many neurons drawn at random. For methods that choose neurons of languages."""
    effects_bytes: Annotated[Bytes, Field(ge=300)] = 6000
    """Bytes of each text that are scored."""


def run(config: Config, out: Output) -> Artifact:
    """Choose, combine, write."""
    from langadapt.select.selection import write_selection
    from langadapt.steps._select_given import chosen

    selection, portion = chosen(config, out.inputs, out.progress)
    write_selection(out.folder, selection)
    return out.commit(_facts(config, selection, portion, out.inputs))


def _facts(config: Config, selection: "Selection", portion: Portion, inputs: Inputs) -> dict[str, Any]:
    from langadapt.steps._select_given import languages_used

    statistics = maybe(inputs, "statistics")
    return {
        "method": config.method,
        "options": dict(selection.options),
        "model_digest": one(inputs, "model").digest,
        "moving": selection.total,
        "parameters": selection.parameters,
        "body_share": round(portion.body, 6),
        "tables_share": round(portion.tables, 6),
        "whole": portion.whole,
        "languages": languages_used(config),
        "statistics": None if statistics is None else statistics.digest,
        "combined": selection.found.get("combined", []),
        "stability": selection.found.get("stability"),
    }


def check(config: Config) -> None:
    """ConfigError without anything to choose by, or for a method that puts an adapter beside the weights.

    The same for statistics that the method does not look at: what is chosen would not be what they seem to say. And for
    those that it needs, which come before all that is read of them.
    """
    from langadapt.select.adapter import AdapterOptions
    from langadapt.select.inputs import without_statistics
    from langadapt.steps._select_effects import check_effects
    from langadapt.steps._strategy import looks_at_text, named

    check_effects(config.effects, config.text)
    if config.method is None:
        if not config.union:
            raise _nothing_to_choose_by(config)
        if config.method_options:
            raise ConfigError("`method_options` without a method", hint="give `--method NAME`")
        return
    method, _ = named(config.method, config.method_options)
    if issubclass(method.options, AdapterOptions):
        raise ConfigError(
            f"`{config.method}` puts an adapter beside the weights: that is no choice among them",
            hint=f"train with it: langadapt cpt ... --strategy {config.method}",
        )
    if config.statistics is None and looks_at_text(method):
        raise without_statistics(f"`{config.method}`")
    if config.statistics is not None and not looks_at_text(method):
        raise ConfigError(
            f"`{config.method}` looks at no statistics",
            where="statistics",
            hint="leave `--statistics` out, or choose a method that does: `ssu`, `subnetwork`, `lape`",
        )


def _nothing_to_choose_by(config: Config) -> ConfigError:
    """The error without a method and without a union."""
    for flag, given, what in (("intersection", config.intersection, "to intersect it with"),
                              ("minus", config.minus, "to take it away from")):  # fmt: skip
        if given:
            return ConfigError(
                f"`--{flag} {given[0]}`: there is nothing {what}",
                hint=f"name it: `--union SELECTION --{flag} {given[0]}`, or `--method full` for all weights",
            )
    return ConfigError(
        "nothing to choose by",
        hint="give `--method NAME` (see `langadapt list methods`), or `--union SELECTION` of selections to join",
    )


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Seconds to read the weights that a method looks at, and what it computes of them."""
    from langadapt.steps._select_given import price

    return price(config, inputs)


def table(artifact: Artifact) -> list[Table]:
    """How many numbers move, by layer and by kind of tensor."""
    from langadapt.select.selection import RECORD
    from langadapt.steps._select_table import tables

    return tables(artifact.facts, read_json_object(artifact.file(RECORD)))
