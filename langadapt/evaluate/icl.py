"""Can a model still learn from examples in its prompt? Small puzzles in letters and digits, in no language.

After the probe "Copain" of Emergent Abilities under CPT (arXiv 2506.00288), whose items and code we have not seen:
these are ours. A question is some solved examples of one task and a last one to solve; the model chooses among four
answers by their probability. What is counted is the right answer's surprise among the four, in bits (2 is guessing): it
moves before the share of right answers does, and both are compared question by question.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from langadapt.core.errors import DataError
from langadapt.core.rng import stream
from langadapt.evaluate.bootstrap import Resampled
from langadapt.evaluate.verdict import signed
from langadapt.model.compute import Compute
from langadapt.model.score import ScoredText, score_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from langadapt.core.progress import Task

# Every byte-level or byte-fallback tokenizer has these, and they belong to no language.
_LETTERS = "abcdefghjkmnpqrstuvwxyz"
_DIGITS = "0123456789"
CHOICES = 4
SHOTS = 8
PER_TASK = 12
# A model that is asked nothing: every answer alike.
GUESSING_BITS = math.log2(CHOICES)
# Longer than any prompt here: all of it is context.
_WHOLE = 1 << 20
_DIGITS_KEPT = 6

Words = list[str]
Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Question:
    """`prompt` ends where the answer begins; the first of `answers` is right."""

    task: str
    prompt: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """One question: its task, whether the right answer was the likeliest, and its surprise among the four, in bits."""

    task: str
    right: bool
    bits: float


def _some(random: Random, symbols: Sequence[str], count: int) -> Words:
    return [symbols[int(at)] for at in random.permutation(len(symbols))[:count]]


def _copy(random: Random) -> tuple[Words, Words]:
    shown = _some(random, _LETTERS, 4)
    return shown, shown


def _double(random: Random) -> tuple[Words, Words]:
    first, second = _some(random, _LETTERS, 2)
    return [first, second], [first, first, second, second]


def _first(random: Random) -> tuple[Words, Words]:
    shown = _some(random, _LETTERS, 4)
    return shown, shown[:1]


def _last(random: Random) -> tuple[Words, Words]:
    shown = _some(random, _LETTERS, 4)
    return shown, shown[-1:]


def _largest(random: Random) -> tuple[Words, Words]:
    shown = _some(random, _DIGITS, 4)
    return shown, [max(shown)]


def _rise(random: Random) -> tuple[Words, Words]:
    """The next digit."""
    first = int(random.integers(1, 7))
    return [str(first + at) for at in range(3)], [str(first + 3)]


# Chosen on SmolLM2-135M-Instruct, which answers each of them better than by guessing; swapping, reversing, sorting,
# finding what stands twice and numbers in larger steps were left out, because it guesses there, and what is not there
# cannot be lost.
TASKS: dict[str, Callable[[Random], tuple[Words, Words]]] = {
    "copy": _copy,
    "double": _double,
    "first": _first,
    "largest": _largest,
    "last": _last,
    "rise": _rise,
}


def questions(per_task: int = PER_TASK, *, shots: int = SHOTS, seed: int = 0) -> list[Question]:
    """Questions of every task; equal arguments give equal questions, and a larger `per_task` begins with the same."""
    made = [
        _question(name, shots, stream(seed, "icl", name, number))
        for name in sorted(TASKS)
        for number in range(per_task)
    ]
    return made + [_pairs(shots, stream(seed, "icl", "pairs", number)) for number in range(per_task)]


def _question(name: str, shots: int, random: Random) -> Question:
    examples = [TASKS[name](random) for _ in range(shots)]
    shown, right = TASKS[name](random)
    answers = [right]
    while len(answers) < CHOICES:
        wrong = _wrong(name, shown, right, random)
        if wrong not in answers:
            answers.append(wrong)
    return _written(name, examples, shown, answers)


def _wrong(name: str, shown: Words, right: Words, random: Random) -> Words:
    """What somebody would answer who has not seen the rule: symbols that were shown, as many as the answer has."""
    if name == "rise":
        return [str(int(random.integers(1, 10)))]
    if name == "copy":
        return [shown[int(at)] for at in random.permutation(len(shown))]
    return [shown[int(random.integers(len(shown)))] for _ in right]


def _pairs(shots: int, random: Random) -> Question:
    """Letters that stand for digits, known from the examples only; the letter asked for is among them."""
    letters, digits = _some(random, _LETTERS, CHOICES), _some(random, _DIGITS, CHOICES)
    order = [*range(CHOICES), *(int(random.integers(CHOICES)) for _ in range(max(0, shots - CHOICES)))]
    examples = [([letters[at]], [digits[at]]) for at in (order[int(each)] for each in random.permutation(len(order)))]
    # not the last one: repeating what stands there is no understanding
    asked = letters.index(examples[int(random.integers(len(examples) - 1))][0][0])
    wrong = [[digit] for digit in digits if digit != digits[asked]]
    return _written("pairs", examples, [letters[asked]], [[digits[asked]], *wrong])


def _written(task: str, examples: Sequence[tuple[Words, Words]], shown: Words, answers: Sequence[Words]) -> Question:
    lines = [f"{' '.join(one)} -> {' '.join(other)}" for one, other in examples]
    return Question(task, "\n".join([*lines, f"{' '.join(shown)} ->"]), tuple(f" {' '.join(each)}" for each in answers))


def answer(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    asked: Sequence[Question],
    *,
    prefix_id: int,
    compute: Compute = "fp32",
    progress: "Task | None" = None,
) -> list[Answered]:
    """What a model chooses; `prefix_id` stands before each prompt. DataError where it gives no number.

    `progress` counts bytes of answers (`size_of`).
    """
    texts = [
        ScoredText(f"{each.task}#{at}", each.prompt + choice, _WHOLE, start=len(each.prompt.encode()))
        for at, each in enumerate(asked)
        for choice in each.answers
    ]
    scores = score_texts(model, tokenizer, texts, prefix_id=prefix_id, compute=compute, progress=progress)
    found = []
    for at, each in enumerate(asked):
        nats = [score.nll for score in scores[at * CHOICES : (at + 1) * CHOICES]]
        if not all(math.isfinite(value) for value in nats):
            raise DataError(f"the model gives no number on a question of task `{each.task}`")
        least = min(nats)
        surprise = nats[0] - least + math.log(math.fsum(math.exp(least - value) for value in nats))
        found.append(Answered(each.task, nats[0] < min(nats[1:]), round(surprise / math.log(2), _DIGITS_KEPT)))
    return found


def size_of(asked: Sequence[Question]) -> int:
    """Bytes of all answers."""
    return sum(len(choice.encode()) for each in asked for choice in each.answers)


def same_tokens(asked: Sequence[Question], one: "PreTrainedTokenizerBase", other: "PreTrainedTokenizerBase") -> float:
    """Share of the questions that two tokenizers cut alike, answers included, by the pieces as they are written."""
    texts = [[each.prompt + choice for choice in each.answers] for each in asked]
    cut = [[[each.tokenize(text) for text in choices] for choices in texts] for each in (one, other)]
    alike = sum(first == second for first, second in zip(*cut, strict=True))
    return float(alike / max(1, len(asked)))


def compare(found: Mapping[str, Sequence[Answered]], *, samples: int, seed: int) -> dict[str, Any]:
    """Bits a question and share of right answers of each model, intervals, and adapted against base and control."""
    count = len(next(iter(found.values())))
    tasks = sorted({each.task for each in next(iter(found.values()))})
    ones = [1] * count
    # a ratio of sums over questions of size 1, so the bootstrap of bits per byte gives means of what is given in nats
    bits = {model: [each.bits * math.log(2) for each in rows] for model, rows in found.items()}
    # counted from 1 on, because ratios of two models are taken too and a model may be right nowhere
    hits = {model: [(1 + each.right) * math.log(2) for each in rows] for model, rows in found.items()}
    spread = Resampled(bits, ones, samples=samples, seed=seed, name="icl")
    right = Resampled(hits, ones, samples=samples, seed=seed, name="icl")
    models = {}
    for model, rows in found.items():
        own, share = spread.bits_per_byte(model), right.bits_per_byte(model)
        models[model] = {
            **_interval("bits", own.value, own.low, own.high),
            **_interval("right", *(None if end is None else end - 1.0 for end in (share.value, share.low, share.high))),
            "tasks": {
                task: round(_mean([float(each.right) for each in rows if each.task == task]), _DIGITS_KEPT)
                for task in tasks
            },
        }
    differences = {}
    for other in ("base", "control"):
        if other in found and "adapted" in found:
            apart, gained = spread.compare("adapted", other), right.compare("adapted", other)
            differences[f"adapted - {other}"] = {
                **_interval("bits", apart.delta.value, apart.delta.low, apart.delta.high),
                **_interval("right", gained.delta.value, gained.delta.low, gained.delta.high),
                "detectable": None if apart.detectable is None else round(apart.detectable, _DIGITS_KEPT),
                "verdict": apart.verdict,
            }
    return {
        "questions": count, "guessing_bits": GUESSING_BITS, "models": models, "differences": differences
    }  # fmt: skip


def _interval(name: str, value: float | None, low: float | None, high: float | None) -> dict[str, float | None]:
    parts = ((name, value), (f"{name}_low", low), (f"{name}_high", high))
    return {key: None if part is None else round(part, _DIGITS_KEPT) for key, part in parts}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def sentence(found: Mapping[str, Any]) -> str:
    """One honest sentence on base against adapted."""
    base, adapted = found["models"]["base"], found["models"]["adapted"]
    apart = found["differences"]["adapted - base"]
    figures = (
        f"{adapted['bits']:.2f} bits a question and {adapted['right']:.0%} right, the base model "
        f"{base['bits']:.2f} and {base['right']:.0%} (guessing: {found['guessing_bits']:.0f} bits, {1 / CHOICES:.0%})"
    )
    if apart["bits_low"] is None:
        return f"In-context learning: {figures}; {found['questions']} questions are too few for an interval."
    ends = f"{signed(apart['bits_low'], 2)} to {signed(apart['bits_high'], 2)}"
    return (
        f"In-context learning: {apart['verdict']}. The adapted model needs {figures}; "
        f"difference {signed(apart['bits'], 2)}, 95 % interval {ends}."
    )


def score_lines(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lines of scores.jsonl: bits a question and share of right answers, of each model and of each difference."""
    for metric, key in (("icl_bits", "bits"), ("icl_right", "right")):
        for model, entry in (*found["models"].items(), *found["differences"].items()):
            line = {"lang": None, "set": "icl", "metric": metric, "model": model, "n": found["questions"]}
            line |= {"value": entry[key], "low": entry[f"{key}_low"], "high": entry[f"{key}_high"]}
            yield line | ({"verdict": entry["verdict"]} if metric == "icl_bits" and "verdict" in entry else {})
