"""Make one self-contained HTML page of what was measured, with a Markdown twin.

The verdict comes first, then figures with intervals, tokens, training, samples, and where everything came from.
"""

from collections.abc import Mapping
from typing import Annotated, cast

from pydantic import Field

from langadapt.core.artifact import Artifact, Output
from langadapt.core.config import Flag, Reads, ScoresInput, StepConfig
from langadapt.core.inputs import Input, Inputs
from langadapt.core.io import pretty_json, write_durably
from langadapt.core.types import Estimate, Table

KIND = "report"
SCHEMA = 1


class Config(StepConfig):
    scores: ScoresInput
    """Scores made by evaluate."""
    model: Annotated[str, Reads(("model",), flag_only=True)] | None = None
    """The adapted model, for its training curves and ledger."""
    control: Annotated[str, Reads(("model",), flag_only=True)] | None = None
    """The control model, for the record."""
    tokenizer: Annotated[str, Reads(("tokenizer",), flag_only=True)] | None = None
    """The extended tokenizer, for what its checks found."""
    data: Annotated[str, Reads(("data",), flag_only=True)] | None = None
    """The training data, for its mixture."""
    corpora: dict[str, Annotated[str, Reads(("corpus",), flag_only=True)]] = Field(default_factory=dict)
    """Corpora, NAME=FOLDER each, for what was kept and what was dropped."""
    title: Annotated[str, Flag()] = ""
    """Title of the page; by default it names the language."""


def run(config: Config, out: Output) -> Artifact:
    """Collect, then write page, Markdown and summary."""
    from langadapt.report import markdown, page
    from langadapt.report.collect import Sources, collect

    scores = _artifact(out.inputs, "scores")
    corpora = {
        name: item.artifact
        for name, item in cast(Mapping[str, Input], out.inputs.get("corpora") or {}).items()
        if item.artifact is not None
    }
    sources = Sources(
        scores=cast(Artifact, scores),
        model=_artifact(out.inputs, "model"),
        control=_artifact(out.inputs, "control"),
        tokenizer=_artifact(out.inputs, "tokenizer"),
        data=_artifact(out.inputs, "data"),
        corpora=corpora,
    )
    content = collect(sources, config.title)
    write_durably(out.folder / "report.html", page.render(content))
    write_durably(out.folder / "report.md", markdown.render(content))
    write_durably(out.folder / "summary.json", pretty_json(content.summary))
    sentences = [text for _, _, _, entry in content.sets for text in entry["sentences"]]
    return out.commit({"title": content.title, "sentences": sentences})


def _artifact(inputs: Inputs, name: str) -> Artifact | None:
    found = inputs.get(name)
    return found.artifact if isinstance(found, Input) else None


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """A second, and a page of about 100 kB."""
    return Estimate(seconds=1.0, memory_bytes=100_000_000, disk_bytes=200_000, facts={"title": config.title})


def table(artifact: Artifact) -> Table:
    """The sentences of the verdict and where the page lies."""
    sentences = artifact.facts["sentences"]
    rows = (("page", str(artifact.file("report.html"))), ("Markdown", str(artifact.file("report.md"))))
    return Table("report", ("what", "where"), rows, tuple(str(text) for text in sentences))
