"""`--method auto`: every method whose needs are met is compared on a little text, and the pick is taken."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Output
from langadapt.core.errors import ConfigError, DataError
from langadapt.core.inputs import Input, Inputs
from langadapt.core.io import pretty_json, write_durably
from langadapt.core.types import Estimate
from langadapt.steps._compare_candidates import Candidate, LeftOut, candidates
from langadapt.steps._compare_text import Manner, text_inputs
from langadapt.steps._init_setting import Setting

if TYPE_CHECKING:
    from langadapt.steps._compare_result import Compared

# Methods that can be compared, and those that are left out.
Able = tuple[list[Candidate], list[LeftOut]]

AUTO = "auto"
# 6 kB of target and 3 kB of source text in segments of 300 bytes, in float32: the same on every machine.
MANNER = Manner()


def check_auto(own: dict[str, Any], head_method: str | None) -> None:
    """ConfigError for settings that belong to one method; `own` are the options of the method that was named."""
    for name, value in (("method_options", own), ("head_method", head_method)):
        if value:
            raise ConfigError(
                f"`{name}` goes with a method that is named, not with `auto`",
                where=name,
                hint="compare first: langadapt compare-embeddings MODEL TOKENIZER --corpus CORPUS --out DIR",
            )


def auto_candidates(given: Inputs) -> Able:
    """All methods that can run. ConfigError: no text; DataError: a model that is not causal."""
    from langadapt.model.kinds import require_causal

    text_inputs(given)
    model = given["model"]
    if isinstance(model, Input) and model.exists:
        require_causal(model.path, "`--method auto`")
    return candidates((), {}, given)


def compare_all(here: Setting, found: Able, out: Output, multiple: int | None) -> "Compared":
    """Compare them, write the table into the artifact, and say which one is taken."""
    from langadapt.steps._compare_result import FILE, compare

    compared = compare(here, *found, MANNER, out, multiple=multiple)
    if compared.choice.name is None:
        raise DataError(f"`auto` cannot pick: {compared.choice.reason}")
    here.progress.note(f"method: {compared.choice.name} ({compared.choice.reason})")
    write_durably(out.folder / FILE, pretty_json(compared.summary))
    return compared


def with_auto(plain: Estimate, found: Able, inputs: Inputs) -> Estimate:
    """The price of the comparison on top of that of writing the model."""
    from langadapt.steps._compare_price import price

    more = price(*found, MANNER, inputs)
    highest = [size for size in (plain.memory_bytes, more.memory_bytes) if size is not None]
    seconds = None if plain.seconds is None or more.seconds is None else plain.seconds + more.seconds
    rows = (*plain.rows, *more.rows)
    return replace(plain, seconds=seconds, memory_bytes=max(highest, default=None), rows=rows, timed=more.timed)
