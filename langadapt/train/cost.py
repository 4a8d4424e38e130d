"""How long training will take: one layer, a piece of the head and of the optimiser, timed on this machine.

Everything is computed from a few numbers about the model, so that a model that does not exist yet has a price too.
The layer is that of the usual decoder (RMS norm, rotary attention, gated MLP); widths that are not known are chosen
so that it has the right number of parameters.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from langadapt.model.compute import wait_for
from langadapt.train.footprint import USUAL, Kept, Shape, Work
from langadapt.train.loss import cross_entropy

_HEAD_WIDTH = 64
# Bytes a second of writing, flushing and hashing a checkpoint or model, on a slow disk.
_DISK_RATE = 200e6
# Python with torch, loading, what moves made ready, the proof of isolation: SmolLM2-135M on two cores, 9 to 11 s.
_START_SECONDS = 10.0
_ADAPTED_FORWARDS = 2.2
# Numbers of the optimiser's step, and tokens of the head's, that are timed. A CPU takes as long for each whatever their
# number. A GPU that is given little mostly waits to be asked: with the tokens that suffice for a CPU (64) a step of
# 1.7B was priced at 21 s on an H200 and took 0.7 s. So a GPU is given a whole micro-batch.
_NUMBERS = {"cpu": 4_000_000, "cuda": 32_000_000}
_HEAD_TOKENS = 2048


def checkpoint_bytes(trained: int, kept: Kept = USUAL) -> int:
    """Weights that move, their two moments, and their averages where these are kept."""
    return round(trained * ((2 if kept.weights == "bf16" else 4) + kept.beside_bytes))


def write_seconds(amount: int) -> float:
    """Seconds to write `amount` bytes durably on a slow disk."""
    return amount / _DISK_RATE


@dataclass(frozen=True)
class Times:
    """How often what happens; `probe_tokens` are those of all probes together."""

    step: float
    steps: int
    checkpoints: int
    probes: int
    probe_tokens: int

    def seconds(self, shape: Shape, work: Work, checkpoint: int, weights: int) -> float:
        """The whole command: start, load, a micro-batch tried first, steps, probes, checkpoints, writing the model."""
        batch = work.block_tokens * work.batch_blocks
        tried = self.step * work.micro_tokens / batch if self.steps else 0.0
        # a probe is the forward pass: a third of a step's products where everything moves; more where less does, and
        # beside an adapter, whose own products are in it (3.6 of 8.3 ms a token were measured)
        forwards = _ADAPTED_FORWARDS if shape.rank else 2.0 + shape.body_part
        probing = self.probes * self.probe_tokens * self.step / (forwards * batch)
        writing = (self.checkpoints * checkpoint + 2 * weights) / _DISK_RATE
        return _START_SECONDS + tried + self.steps * self.step + probing + writing


def step_seconds(
    shape: Shape, work: Work, *, device: torch.device, recompute: bool = False, budget_seconds: float = 1.5
) -> float:
    """Seconds of one optimiser step, from one layer, a piece of the head and a piece of the optimiser timed here."""
    tokens = work.micro_tokens
    layer = layer_seconds(shape, work, device=device, budget_seconds=budget_seconds * 0.5)
    timed_head = _few(tokens, 6e10 / (6 * shape.rows * shape.hidden), device, at_least=32)
    timed_head = min(timed_head, _HEAD_TOKENS)
    head = _time(_head(shape, timed_head, work, device), device, budget_seconds * 0.35) / timed_head
    timed_numbers = min(shape.trained, _NUMBERS[device.type])
    move = _time(_move(timed_numbers, device), device, budget_seconds * 0.15) / timed_numbers
    # What is frozen needs no gradient of its own: two of three products remain, and of the third the part that moves
    # ... and activations that are computed again need a fourth
    products = (3.0 if shape.rank else 2.0 + shape.body_part) + recompute
    body = layer * shape.layers * products / 3
    return work.batch_blocks * work.block_tokens * (body + head) + shape.trained * move


def layer_seconds(shape: Shape, work: Work, *, device: torch.device, budget_seconds: float = 0.75) -> float:
    """Seconds that one layer takes for a token, forward and backward (three products a matrix), timed here."""
    timed = _few(work.micro_tokens, 2e10 / (6 * shape.layer_width * shape.hidden), device)
    timed = max(1, timed // work.block_tokens) * min(work.block_tokens, timed)
    return _time(_layer(shape, timed, work, device), device, budget_seconds) / timed


def forward_seconds(shape: Shape, work: Work, *, device: torch.device, budget_seconds: float = 0.75) -> float:
    """Seconds that one layer takes for a token without a backward pass, its weights in the dtype of `compute`."""
    timed = _few(work.micro_tokens, 4e10 / (2 * shape.layer_width * shape.hidden), device)
    timed = max(1, timed // work.block_tokens) * min(work.block_tokens, timed)
    return _time(_layer(shape, timed, work, device, learns=False), device, budget_seconds) / timed


def _few(tokens: int, enough: float, device: torch.device, *, at_least: int = 64) -> int:
    """How many of `tokens` are timed: on a CPU those that are `enough`, on a GPU all."""
    return tokens if device.type == "cuda" else min(tokens, max(at_least, round(enough)))


def _time(job: Callable[[], None], device: torch.device, budget_seconds: float) -> float:
    """Fewest seconds of a job after one unmeasured run; at least two runs. Other work only ever makes it slower."""
    job()
    seen: list[float] = []
    while len(seen) < 2 or sum(seen) < budget_seconds:
        began = time.perf_counter()
        job()
        wait_for(device)
        seen.append(time.perf_counter() - began)
    return min(seen)


def _layer(shape: Shape, tokens: int, work: Work, device: torch.device, *, learns: bool = True) -> Callable[[], None]:
    length = min(work.block_tokens, tokens)
    batch, width = max(1, tokens // length), shape.hidden
    heads = max(1, width // _HEAD_WIDTH)
    few = max(1, heads // 3)
    per_head = width // heads
    inner = max(4, (shape.layer_width - 2 * width - 2 * few * per_head) // 3)

    # what does not learn is kept in the dtype that it computes in
    dtype = torch.bfloat16 if work.compute == "bf16" and not learns else torch.float32

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.full((rows, columns), 0.01, device=device, dtype=dtype, requires_grad=learns)

    query, key, value = matrix(heads * per_head, width), matrix(few * per_head, width), matrix(few * per_head, width)
    back, gate, up, down = (
        matrix(width, heads * per_head),
        matrix(inner, width),
        matrix(inner, width),
        matrix(width, inner),
    )
    norm = torch.ones(width, device=device, dtype=dtype, requires_grad=learns)
    turn = torch.ones(length, per_head, device=device, dtype=dtype)
    see = torch.ones(batch, 1, length, length, dtype=torch.bool, device=device).tril()
    given = torch.full((batch, length, width), 0.5, device=device, dtype=dtype, requires_grad=learns)

    def normed(x: torch.Tensor) -> torch.Tensor:
        return norm * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    def turned(x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * turn + torch.cat((-second, first), dim=-1) * turn if per_head % 2 == 0 else x

    def split(x: torch.Tensor, count: int) -> torch.Tensor:
        return x.view(batch, length, count, per_head).transpose(1, 2)

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=work.compute == "bf16" and learns):
            x = normed(given)
            asked = turned(split(functional.linear(x, query), heads))
            keys, values = turned(split(functional.linear(x, key), few)), split(functional.linear(x, value), few)
            times = -(-heads // few)
            wide_keys = keys.repeat_interleave(times, 1)[:, :heads]
            wide_values = values.repeat_interleave(times, 1)[:, :heads]
            seen = functional.scaled_dot_product_attention(
                asked.to(wide_values.dtype), wide_keys.to(wide_values.dtype), wide_values, attn_mask=see
            )
            x = given + functional.linear(seen.transpose(1, 2).reshape(batch, length, heads * per_head), back)
            y = normed(x)
            y = functional.linear(functional.silu(functional.linear(y, gate)) * functional.linear(y, up), down)
        if learns:
            torch.autograd.backward([x + y], [given.detach()])

    return run


def _head(shape: Shape, tokens: int, work: Work, device: torch.device) -> Callable[[], None]:
    table = torch.full((shape.rows, shape.hidden), 0.01, device=device, requires_grad=True)
    given = torch.full((1, tokens, shape.hidden), 0.5, device=device, requires_grad=True)
    labels = torch.zeros(1, tokens, dtype=torch.long, device=device)

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=work.compute == "bf16"):
            loss = cross_entropy(functional.linear(given, table), labels, tokens)
        loss.backward()  # type: ignore[no-untyped-call]

    return run


def _move(numbers: int, device: torch.device) -> Callable[[], None]:
    weights = torch.nn.Parameter(torch.zeros(numbers, device=device))
    weights.grad = torch.ones(numbers, device=device)
    adam = torch.optim.AdamW([weights], fused=True)

    def run() -> None:
        norm = torch.nn.utils.get_total_norm([torch.ones(1) if weights.grad is None else weights.grad])
        torch.nn.utils.clip_grads_with_norm_([weights], 1.0, norm)
        adam.step()

    return run
