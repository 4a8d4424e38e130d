"""Bits per byte of a model on a few passages, within a time limit: enough to see whether it knows a language at all."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.core.progress import Progress
from langadapt.model.load import load_model
from langadapt.model.score import ScoredText, TextScore, bits_per_byte, score_texts
from langadapt.model.separator import candidates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# 20 passages of 400 bytes: 8 kB, 15 s with a model of 135M parameters on one CPU core.
PASSAGE_BYTES = 400
TOTAL_BYTES = 8000
# With the wrong token in front SmolLM2 loses 0.1 bits per byte; two kB tell the candidates apart.
_SEPARATOR_PASSAGES = 5
_CHUNK = 4


@dataclass(frozen=True)
class Look:
    """Scores of the passages that fitted into the time, in order; `prefix` stood before each."""

    scores: tuple[TextScore, ...]
    prefix: str
    seconds: float

    def bits(self, count: int | None = None) -> float:
        """Bits per byte of the first `count` passages."""
        return bits_per_byte(self.scores[:count])

    def error(self, count: int | None = None) -> float:
        """Standard error of `bits`: that of a ratio of sums over passages (delta method)."""
        seen = self.scores[:count]
        if len(seen) < 2:
            return math.inf
        bits, total = bits_per_byte(seen), sum(score.bytes for score in seen)
        spread = math.fsum((score.nll / math.log(2) - bits * score.bytes) ** 2 for score in seen)
        return math.sqrt(spread * len(seen) / (len(seen) - 1)) / total


def fitting(most: int, seconds_each: float, seconds: float) -> int:
    """How many of `most` pieces of work fit into the time, at least one."""
    return max(1, min(most, int(seconds / seconds_each))) if seconds_each > 0 else most


def look(
    folder: Path,
    tokenizer: "PreTrainedTokenizerBase",
    texts: Mapping[str, Sequence[tuple[str, str]]],
    *,
    separator_from: str,
    compute: Any,
    device: Any,
    seconds: float,
    progress: Progress,
    name: str,
) -> dict[str, Look]:
    """Score (id, text) passages of each named set: as many as `seconds` have room for after loading, at least one each.

    The token in front is the candidate that scores the set `separator_from` best, as in training (mix chooses alike).
    """
    known = candidates(tokenizer) or {"(none)": 0}
    model = load_model(folder).to(device)
    total = sum(len(text.encode()) for passages in texts.values() for _, text in passages)
    bar = progress.start(f"score {name}", total=total, unit="bytes")

    def score(passages: Sequence[tuple[str, str]], prefix: int) -> list[TextScore]:
        return score_texts(
            model, tokenizer, [ScoredText(*passage) for passage in passages], prefix_id=prefix, compute=compute
        )

    start = time.monotonic()
    prefix = next(iter(known))
    first = texts[separator_from][:1]
    score(first, known[prefix])
    each = time.monotonic() - start
    # with one passage for each candidate and each set it has to end in time
    if len(known) > 1 and len(known) * each <= seconds / 2:
        few = texts[separator_from][: fitting(_SEPARATOR_PASSAGES, len(known) * each, seconds / 4)]
        prefix = min(known, key=lambda token: bits_per_byte(score(few, known[token])))
    chunk = fitting(_CHUNK, each, seconds / 20)
    found = {}
    for number, (key, passages) in enumerate(texts.items(), 1):
        began, scores, took = time.monotonic(), list[TextScore](), 0.0
        # what is left is shared out among the sets that are left
        end = began + (start + seconds - began) / (len(texts) - number + 1)
        for place in range(0, len(passages), chunk):
            now = time.monotonic()
            if place and now + took > end:
                break
            scores += score(passages[place : place + chunk], known[prefix])
            took = time.monotonic() - now
            bar.advance(sum(score.bytes for score in scores[place:]))
        found[key] = Look(tuple(scores), prefix, time.monotonic() - began)
    bar.finish()
    return found
