"""Bits per byte: how well a model predicts a text, in a unit that does not depend on its tokenizer.

Documents are independent, each is tokenised once as a whole, and a token belongs to the segment that holds its last
byte. Every segment is scored with the same bytes before it for every model. The prefix id that opens a window is
chosen by the caller and never scored.
"""

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from langadapt.core.errors import DataError
from langadapt.core.progress import Task
from langadapt.model.compute import Compute
from langadapt.model.cuts import cut_points, next_cut
from langadapt.model.spans import PieceReader, Spans, spans

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# On CPU 512 to 2,048 tokens a batch are equally fast and 8,192 is 20 % slower; memory is tokens x vocabulary x 4 bytes.
BATCH_TOKENS = 1024
# Rows of logits that are widened to fp32 at a time: 256 x 50k x 4 bytes = 50 MB.
_ROWS = 256
# An unknown token hides its bytes; a uniform guess over bytes is what a reader would need to get them back.
_NATS_PER_HIDDEN_BYTE = 8 * math.log(2)


@dataclass(frozen=True, slots=True)
class ScoredText:
    """A document and the parts of it to score.

    Segments are consecutive: the first begins at byte `start`, each ends at one of `segment_ends` (byte offsets in
    the UTF-8 text, rising; none means one segment to the end). Each sees at most `context_bytes` of the text before it.
    """

    id: str
    text: str
    context_bytes: int = 1200
    segment_ends: tuple[int, ...] = ()
    start: int = 0

    @classmethod
    def cut(cls, id: str, text: str, *, segment_bytes: int = 600, context_bytes: int = 1200) -> "ScoredText":
        """The whole text in segments of about `segment_bytes`, cut before spaces."""
        return cls(id, text, context_bytes, cut_points(text, segment_bytes))


@dataclass(frozen=True, slots=True)
class SegmentScore:
    """One segment [start, end) in bytes: its negative log-likelihood in nats, and how many tokens carry it."""

    start: int
    end: int
    nll: float
    tokens: int
    unknown_bytes: int = 0

    @property
    def bytes(self) -> int:
        """Length in UTF-8 bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class TextScore:
    """Scores of one document; `changed_bytes` counts bytes that the tokenizer does not spell as they stand."""

    id: str
    segments: tuple[SegmentScore, ...]
    changed_bytes: int = 0

    @property
    def nll(self) -> float:
        """Nats over all segments."""
        return math.fsum(segment.nll for segment in self.segments)

    @property
    def bytes(self) -> int:
        """Bytes over all segments."""
        return sum(segment.bytes for segment in self.segments)

    @property
    def tokens(self) -> int:
        """Tokens over all segments."""
        return sum(segment.tokens for segment in self.segments)


@dataclass(frozen=True, slots=True)
class _Window:
    """One forward pass: `ids` of context and segments; `owner[i]` is the segment of token i, -1 for context."""

    text: int
    ids: tuple[int, ...]
    owner: tuple[int, ...]
    bytes: int


def bits_per_byte(scores: Sequence[TextScore]) -> float:
    """Micro-average over all bytes: sum of nats / ln 2 / sum of bytes. DataError if there is nothing to divide by."""
    length = sum(score.bytes for score in scores)
    if length == 0:
        raise DataError("there is no text to score")
    return math.fsum(score.nll for score in scores) / math.log(2) / length


def score_texts(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[ScoredText],
    *,
    prefix_id: int,
    compute: Compute = "fp32",
    progress: Task | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> list[TextScore]:
    """Score every segment of every text; same order as `texts`, independent of the batch size to 1e-6 in fp32.

    `progress` counts bytes. A model that gives NaN yields NaN, which callers must treat as "no score". DataError if a
    window is longer than the model's positions.
    """
    placed = _placed(tokenizer, texts)
    windows = [window for index, text in enumerate(texts) for window in _windows(index, text, placed[index])]
    _check_length(getattr(model.config, "max_position_embeddings", None), windows, texts)
    nats = [np.zeros(len(_bounds(text))) for text in texts]
    with _scoring(model), torch.inference_mode(), _autocast(model, compute):
        for batch in _batches(windows, batch_tokens):
            for window, values in zip(batch, _token_nats(model, batch, prefix_id), strict=True):
                owner = np.array(window.owner)
                np.add.at(nats[window.text], owner[owner >= 0], values[owner >= 0])
            if progress is not None:
                progress.advance(sum(window.bytes for window in batch))
    return [_collect(text, placed[index], nats[index]) for index, text in enumerate(texts)]


def check_windows(limit: int | None, tokenizer: "PreTrainedTokenizerBase", texts: Sequence[ScoredText]) -> None:
    """DataError where `score_texts` would refuse a model of `limit` positions; no model is loaded."""
    if limit is not None:
        placed = _placed(tokenizer, texts)
        windows = [window for index, text in enumerate(texts) for window in _windows(index, text, placed[index])]
        _check_length(limit, windows, texts)


def _placed(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[ScoredText]) -> list[Spans]:
    reader = PieceReader.of(tokenizer)
    return [spans(tokenizer, text.text, reader) for text in texts]


def _bounds(text: ScoredText) -> list[tuple[int, int]]:
    length = len(text.text.encode())
    ends = text.segment_ends or ((length,) if length > text.start else ())
    starts = (text.start, *ends[:-1])
    bounds = [(first, last) for first, last in zip(starts, ends, strict=False)]
    if any(first >= last for first, last in bounds) or (ends and ends[-1] > length):
        raise DataError(f"segments of document `{text.id}` do not rise or leave its {length:,} bytes")
    return bounds


def _owners(bounds: list[tuple[int, int]], ends: Sequence[int]) -> list[int]:
    """Segment of each token: the one that holds the token's last byte; -1 outside all segments."""
    if not bounds:
        return [-1] * len(ends)
    # token end e (exclusive) has its last byte at e - 1; segment k holds it if start_k < e <= end_k. A token before the
    # first byte (a lone `▁`) belongs to that byte: it is predicted, so it is paid for.
    paid = np.maximum(ends, 1)
    found = np.searchsorted([last for _, last in bounds], paid, side="left")
    inside = (paid > bounds[0][0]) & (found < len(bounds))
    return [int(item) for item in np.where(inside, found, -1)]


def _windows(index: int, text: ScoredText, placed: Spans) -> Iterator[_Window]:
    """Group segments that see the same first byte: under a causal model one pass scores them all."""
    bounds = _bounds(text)
    content = text.text.encode()
    owners = _owners(bounds, placed.ends)
    begins = [0, *placed.ends[:-1]]
    groups: dict[int, list[int]] = {}
    for segment, (first, _) in enumerate(bounds):
        wanted = first - text.context_bytes
        groups.setdefault(next_cut(content, wanted) if wanted > 0 else 0, []).append(segment)
    for opening, segments in groups.items():
        chosen = [at for at, begin in enumerate(begins) if begin >= opening or (owners[at] in segments)]
        chosen = [at for at in chosen if placed.ends[at] <= bounds[segments[-1]][1]]
        yield _Window(
            index,
            tuple(placed.ids[at] for at in chosen),
            tuple(owners[at] if owners[at] in segments else -1 for at in chosen),
            sum(bounds[segment][1] - bounds[segment][0] for segment in segments),
        )


def _check_length(limit: int | None, windows: list[_Window], texts: Sequence[ScoredText]) -> None:
    for window in windows:
        if limit is not None and len(window.ids) > limit:
            raise DataError(
                f"document `{texts[window.text].id}` needs a window of {len(window.ids):,} tokens, "
                f"the model has {limit:,} positions",
                hint="use shorter segments and a shorter context, e.g. `-o segment_bytes=300 -o context_bytes=300`",
            )


def _batches(windows: Sequence[_Window], batch_tokens: int) -> Iterator[list[_Window]]:
    """Windows of similar length together, longest first, padded size at most `batch_tokens` (or one window)."""
    order = sorted(windows, key=lambda window: -len(window.ids))
    batch: list[_Window] = []
    for window in order:
        if batch and len(batch[0].ids) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        if window.ids:
            batch.append(window)
    if batch:
        yield batch


def _token_nats(model: Any, batch: list[_Window], prefix_id: int) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """-ln p of every token of every window, context included as zeros where no logits were asked for."""
    longest = len(batch[0].ids)
    # The last token predicts nothing, so the input is the prefix and all tokens but the last. Padding is on the
    # right, where a causal model cannot see it; its logits are thrown away.
    inputs = torch.full((len(batch), longest), prefix_id, dtype=torch.long)
    for row, window in enumerate(batch):
        inputs[row, 1 : len(window.ids)] = torch.tensor(window.ids[:-1], dtype=torch.long)
    first = min(next((at for at, owner in enumerate(window.owner) if owner >= 0), longest - 1) for window in batch)
    options = {"logits_to_keep": longest - first} if _keeps_logits(model) else {}
    logits = model(input_ids=inputs.to(model.device), use_cache=False, **options).logits
    first = longest - logits.shape[1]
    result = []
    for row, window in enumerate(batch):
        values = np.zeros(len(window.ids))
        targets = torch.tensor(window.ids[first:], device=logits.device, dtype=torch.long)
        if len(targets):
            values[first:] = _negative_log_likelihood(logits[row, : len(targets)], targets)
        result.append(values)
    return result


def _negative_log_likelihood(logits_TV: torch.Tensor, targets_T: torch.Tensor) -> Any:
    """Log-sum-exp in fp32 whatever the model computed in, a few rows at a time."""
    parts = []
    for begin in range(0, len(targets_T), _ROWS):
        rows = logits_TV[begin : begin + _ROWS].float()
        picked = rows.gather(1, targets_T[begin : begin + _ROWS, None])[:, 0]
        parts.append(torch.logsumexp(rows, 1) - picked)
    return torch.cat(parts).double().cpu().numpy()


def _keeps_logits(model: Any) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def _autocast(model: Any, compute: Compute) -> AbstractContextManager[Any]:
    if compute == "bf16":
        return torch.autocast(model.device.type, dtype=torch.bfloat16)
    # also inside a caller's autocast, fp32 must mean fp32
    return torch.autocast(model.device.type, enabled=False) if torch.is_autocast_enabled() else nullcontext()


@contextmanager
def _scoring(model: Any) -> Iterator[None]:
    """No dropout while scoring; the mode the model was in comes back."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _collect(text: ScoredText, placed: Spans, nats: Any) -> TextScore:
    bounds = _bounds(text)
    owners = np.array(_owners(bounds, placed.ends), dtype=np.int64)
    hidden_bytes = np.array(placed.hidden, dtype=np.int64)
    segments = []
    for index, (first, last) in enumerate(bounds):
        mine = owners == index
        hidden = int(hidden_bytes[mine].sum())
        nll = float(nats[index]) + hidden * _NATS_PER_HIDDEN_BYTE
        segments.append(SegmentScore(first, last, nll, int(mine.sum()), hidden))
    return TextScore(text.id, tuple(segments), placed.changed_bytes)
