"""The questions of the in-context-learning probe, for a run that is watched and for models that are compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.artifact import Output
from langadapt.core.progress import Progress

if TYPE_CHECKING:
    from langadapt.evaluate.icl import Answered
    from langadapt.evaluate.partial import Partial
    from langadapt.model.compute import Compute
    from langadapt.train.icl_gauge import IclGauge

# The same questions in every run: what differs between two runs is then the models.
SEED = 0
# A letter and the space before it are a token of most tokenizers, a digit and its space often two.
_BYTES_PER_TOKEN = 1.6


def icl_gauge(
    model: Any,
    folder: Path,
    *,
    prefix: int,
    compute: "Compute",
    most: float | None,
    progress: Progress,
) -> "IclGauge":
    """Asks `model`, as it is when it is asked; `folder` holds its tokenizer, `prefix` stands before each prompt."""
    from langadapt.evaluate.icl import GUESSING_BITS
    from langadapt.model.load import load_tokenizer
    from langadapt.train.icl_gauge import IclGauge

    tokenizer = load_tokenizer(folder)

    def ask() -> list[tuple[bool, float]]:
        found = _answers(model, tokenizer, "in-context learning", prefix, compute, progress)
        return [(each.right, each.bits) for each in found]

    return IclGauge(ask, guessing=GUESSING_BITS, most=most)


def question_tokens() -> int:
    """About how many tokens a model reads for all questions, each answer with its prompt."""
    from langadapt.evaluate.icl import questions

    size = sum(len(each.prompt + choice) for each in questions(seed=SEED) for choice in each.answers)
    return round(size / _BYTES_PER_TOKEN)


def ask_model(
    model: Any, tokenizer: Any, role: str, partial: "Partial", *, prefix: int, compute: "Compute",
    progress: Progress,
) -> None:  # fmt: skip
    """Ask one model and keep its answers."""
    found = _answers(model, tokenizer, f"in-context learning of {role}", prefix, compute, progress)
    partial.save("icl", role, "questions", [line_of(each) for each in found])


def _answers(
    model: Any, tokenizer: Any, title: str, prefix: int, compute: "Compute", progress: Progress
) -> "Sequence[Answered]":
    from langadapt.evaluate.icl import answer, questions, size_of

    asked = questions(seed=SEED)
    bar = progress.start(title, total=size_of(asked), unit="bytes")
    found = answer(model, tokenizer, asked, prefix_id=prefix, compute=compute, progress=bar)
    bar.finish()
    return found


def line_of(found: "Answered") -> dict[str, Any]:
    """As a line of a file."""
    return {"task": found.task, "right": found.right, "bits": found.bits}


def compared(
    out: Output, roles: list[str], partial: "Partial", *, samples: int, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """The part of the summary, lines of scores.jsonl, and warnings."""
    from langadapt.evaluate.icl import Answered, compare, questions, same_tokens, score_lines, sentence
    from langadapt.model.load import load_tokenizer

    answers = {role: [Answered(**line) for line in partial.load("icl", role, "questions")] for role in roles}
    found = compare(answers, samples=samples, seed=seed)
    one, other = (load_tokenizer(out.inputs[role].path) for role in ("base", "adapted"))
    alike = same_tokens(questions(seed=SEED), one, other)
    warnings = []
    if alike < 1.0:
        warnings.append(
            f"the two tokenizers cut {1 - alike:.0%} of the questions on in-context learning differently: "
            "part of a difference may be theirs"
        )
    entry = {**found, "same_tokens": round(alike, 6), "sentence": sentence(found)}
    return entry, list(score_lines(found)), warnings
