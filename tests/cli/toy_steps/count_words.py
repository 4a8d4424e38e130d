"""Count the words of text files [a toy].

It knows nothing of models.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from langadapt.core.artifact import Artifact, Output
from langadapt.core.config import CorpusInput, Flag, StepConfig, TextInput
from langadapt.core.errors import DataError, SafetyError
from langadapt.core.inputs import Input, Inputs
from langadapt.core.io import write_durably
from langadapt.core.languages import Lang
from langadapt.core.types import Estimate, Table
from langadapt.core.units import Bytes, Count

KIND = "counts"
SCHEMA = 1
EXAMPLES = ("langadapt count-words a.txt --out counts", "langadapt count-words - --top 1k --out counts < a.txt")


class Config(StepConfig):
    """The toy's declaration."""

    text: tuple[TextInput, ...]
    """Text files."""
    control: CorpusInput | None = None
    """Another text."""
    sets: Annotated[dict[str, CorpusInput], Flag()] = {}  # noqa: RUF012
    """More text by name."""
    top: Annotated[Count, Flag("-n")] = 1000
    """How many words to keep [at most]."""
    lang: Annotated[Lang | None, Flag()] = None
    """Language of the text."""
    case: Annotated[Literal["keep", "lower"], Flag()] = "keep"
    """What to do with case."""
    sort: Annotated[bool, Flag()] = True
    """Sort the words."""
    weights: Annotated[dict[str, float], Flag()] = {}  # noqa: RUF012
    """Weights by name."""
    skip_words: Annotated[tuple[str, ...], Flag()] = ()
    """Words to leave out."""
    label: str = "words"
    """A name for the counts."""
    max_bytes: Annotated[Bytes | None, Flag()] = None
    """Read at most this much."""
    fail: Literal["no", "data", "safety", "bug", "disk", "memory", "signal", "wait", "deaf"] = "no"
    """How to fail."""


def run(config: Config, out: Output) -> Artifact:
    """Count."""
    _fail(config.fail)
    if config.fail in ("wait", "deaf"):
        _wait(out, poll=config.fail == "wait")
    texts = out.inputs["text"]
    counts: Counter[str] = Counter()
    for item in out.progress.track(texts, "counting", total=len(texts), unit="files"):
        assert isinstance(item, Input)
        counts.update(item.path.read_text(encoding="utf-8").split())
    out.progress.note("counted [hu] :smile:")
    if not counts:
        raise DataError("no words")
    out.progress.warn("toy counts only")
    write_durably(out.folder / "counts.json", json.dumps(counts.most_common(config.top), ensure_ascii=False))
    return out.commit({"words": counts.total(), "types": len(counts), "lang": config.lang})


def _wait(out: Output, *, poll: bool) -> None:
    """A minute of work that can be stopped between two pieces of it, or cannot."""
    import time

    bar = out.progress.start("waiting", total=6000, unit="pieces")
    for _ in range(6000):
        time.sleep(0.01)
        bar.advance(poll=poll)


def _fail(how: str) -> None:
    if how == "data":
        raise DataError("bad data", where="a.txt:3", hint="fix the line")
    if how == "safety":
        raise SafetyError("unsafe")
    if how == "bug":
        raise KeyError("a bug")
    if how == "memory":
        raise MemoryError
    if how == "disk":
        raise OSError(28, "No space left on device")
    if how == "signal":
        import os
        import signal

        os.kill(os.getpid(), signal.SIGTERM)


def estimate(config: Config, inputs: Inputs) -> Estimate:
    """The price."""
    texts = inputs["text"]
    assert isinstance(texts, tuple)
    size = sum(Path(item.path).stat().st_size for item in texts)
    disk = 10**18 if config.label == "huge" else size
    problems = ("there are no words",) if size == 0 else ()
    return Estimate(1.0, 5_000_000, disk, {"words": size // 5}, (("text", f"{size} B"),), problems)


def table(artifact: Artifact) -> Table:
    """The result."""
    facts = artifact.facts
    return Table(f"words [{facts['lang']}]", ("what", "n"), (("words", str(facts["words"])),), ("only [a] toy",))
