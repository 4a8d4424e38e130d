"""Compare ways to make rows for new tokens before any training, and pick one

Hides tokens whose rows are known, scores the model with each method's rows in memory, bounds what the head loses.
"""

from typing import Annotated, Any

from pydantic import Field

from langadapt.core.artifact import Artifact, Output
from langadapt.core.config import Flag, OptionsOf
from langadapt.core.inputs import Input, Inputs
from langadapt.core.io import pretty_json, write_durably, write_json_lines
from langadapt.core.types import Estimate, Table
from langadapt.core.units import Bytes
from langadapt.model.compute import Compute
from langadapt.steps._compare_candidates import candidates, wanted_methods
from langadapt.steps._compare_text import Manner, text_inputs
from langadapt.steps._init_config import InitConfig

KIND = "comparison"
SCHEMA = 2
HEAVY = True


class Config(InitConfig):
    """What compare-embeddings takes."""

    methods: Annotated[tuple[str, ...], Flag()] = ()
    """Methods to compare; all whose needs are met if none is named."""

    method_options: Annotated[dict[str, dict[str, Any]], OptionsOf("embed", "methods")] = Field(default_factory=dict)
    """Options by method, e.g. `method_options.focus.epochs=5`."""

    target_bytes: Annotated[Bytes, Flag()] = Field(default=9000, ge=300)
    """Bytes of held-out text of `corpus` that are scored."""

    source_bytes: Annotated[Bytes, Flag()] = Field(default=9000, ge=300)
    """The same of `source_text`."""

    segment_bytes: Annotated[int, Field(ge=50)] = 300
    """Longest segment; segments are what the bootstrap resamples."""

    context_bytes: Annotated[int, Field(ge=0)] = 0
    """Most bytes of preceding text that a segment may see."""

    hidden_share: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Share of the tokens of both tokenizers that are hidden from the methods; at most 2,000."""

    document_separator: str = "auto"
    """Token before each segment: `auto` measures which of those that both tokenizers have suits the base."""

    compute: Annotated[Compute, Flag()] = "fp32"
    """Precision of the forward pass."""

    bootstrap_samples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    """Replicates of the paired bootstrap."""


def check(config: Config) -> None:
    """ConfigError for methods and options that there are not."""
    if config.methods or config.method_options:
        wanted_methods(config.methods, config.method_options)


def run(config: Config, out: Output) -> Artifact:
    """Compare, and write figures, segments and the pick."""
    from langadapt.steps._compare_result import FILE, compare, facts_of
    from langadapt.steps._init_setting import say_match, setting

    _check(config, out.inputs)
    able, left = candidates(config.methods, config.method_options, out.inputs)
    for item in left:
        if item.name in config.methods:  # who names a method waits for its line in the table
            out.progress.warn(item.sentence)
    here = setting(config, out)
    say_match(here)
    found = compare(here, able, left, _manner(config), out)
    write_durably(out.folder / FILE, pretty_json(found.summary))
    write_json_lines(out.folder / "segments.jsonl", found.lines)
    return out.commit(facts_of(found))


def _manner(config: Config) -> Manner:
    return Manner(
        target_bytes=config.target_bytes,
        source_bytes=config.source_bytes,
        segment_bytes=config.segment_bytes,
        context_bytes=config.context_bytes,
        hidden_share=config.hidden_share,
        bootstrap_samples=config.bootstrap_samples,
        compute=config.compute,
        document_separator=config.document_separator,
    )


def _check(config: Config, inputs: Inputs) -> None:
    """ConfigError without target text; DataError for a model that has no bits per byte."""
    from langadapt.model.kinds import require_causal

    text_inputs(inputs)
    model = inputs["model"]
    if isinstance(model, Input) and model.exists:
        require_causal(model.path, "`compare-embeddings`")


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """Time from the text and a measured rate of this machine; memory of one model."""
    from langadapt.steps._compare_price import price

    _check(config, inputs)
    return price(*candidates(config.methods, config.method_options, inputs), _manner(config), inputs)


def table(artifact: Artifact) -> Table:
    """One row a method, and the pick."""
    from langadapt.steps._compare_result import FILE, comparison_table

    return comparison_table(artifact.file(FILE).parent)
