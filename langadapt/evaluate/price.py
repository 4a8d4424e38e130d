"""What an evaluation will cost, from the bytes it reads and one small measurement of the machine."""

from dataclasses import dataclass

from langadapt.evaluate.segments import ScoringSet
from langadapt.model.compute import Compute
from langadapt.model.cuts import next_cut
from langadapt.model.score import BATCH_TOKENS

# Share of a bare matrix product's rate that a whole forward pass with log-sum-exp reaches; SmolLM2-135M, one core.
_EFFICIENCY = {"fp32": 0.60, "bf16": 0.43}
# Text that stands before a scored segment and is read with it, per scored byte; documents of a few kB.
UNSEEN_CONTEXT = 1.5
LOAD_SECONDS = 1.5
_PYTHON_BYTES = 650_000_000
# Tokens of one continuation of 160 bytes, by a model that writes three bytes a token.
_CONTINUATION_TOKENS = 55


@dataclass(frozen=True, slots=True)
class Cost:
    """Of scoring one model."""

    seconds: float
    memory_bytes: int


def window_bytes(chosen: ScoringSet, context_bytes: int) -> int:
    """Bytes that one model reads: every segment with its context, shared windows counted once."""
    total = 0
    for text in chosen.scored_texts(context_bytes):
        content = text.text.encode()
        windows: dict[int, int] = {}
        starts = (text.start, *text.segment_ends[:-1])
        for first, last in zip(starts, text.segment_ends, strict=True):
            windows[next_cut(content, first - context_bytes)] = last
        total += sum(last - opening for opening, last in windows.items())
    return total


def model_cost(size: tuple[int, int], bytes_per_token: float, read: int, compute: Compute, rate: float) -> Cost:
    """`size` is (parameters, rows), `rate` what `matrix_rate` measured. A token costs two operations a parameter."""
    parameters, rows = size
    tokens = read / bytes_per_token
    seconds = 2 * parameters * tokens / (rate * _EFFICIENCY[compute]) + LOAD_SECONDS
    # weights in fp32 (with bf16 autocast a bf16 copy beside them), one batch of logits and its fp32 rows
    weights = parameters * (6 if compute == "bf16" else 4)
    logits = BATCH_TOKENS * rows * (2 if compute == "bf16" else 4)
    return Cost(seconds, weights + logits + _PYTHON_BYTES)


def continuation_seconds(size: tuple[int, int], count: int) -> float:
    """Writing is bound by reading all weights once a token, at about 8 GB a second."""
    return count * _CONTINUATION_TOKENS * size[0] * 4 / 8e9
