"""Rows of new tokens that make a model see a word as it saw the word's old pieces (token distillation).

Dobler et al. 2026, Token Distillation: a text is read twice by the same frozen model, once with the old pieces
(teacher), once with the new tokens (student); the new tokens' input rows move so that the hidden states agree wherever
a token of both ends at the same byte. Loss = mean over those places and all dimensions of (student - teacher)^2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from langadapt.core.errors import ConfigError
from langadapt.core.types import Block, Snippet
from langadapt.train.faster import layers_of
from langadapt.train.head import Head
from langadapt.train.loss import PIECE_NUMBERS
from langadapt.train.new_rows import NewRows
from langadapt.train.objective import Objective

LIGHTER = "lower `-o micro_batch_snippets` or `-o snippet_tokens`; `--dry-run` shows what a run needs"

# Snippets that the teacher reads at once.
_ALIKE = 4


class _Reached(Exception):
    """The layer that is asked for has given its states."""


@dataclass(frozen=True)
class Goal:
    """What is compared: states behind `layer` layers (None: the last states, behind the final norm).

    `prefix` and `old_prefix` open each snippet for student and teacher. `next_token` weighs the cross entropy that the
    head's new rows learn from, 0 leaves it out. `old_table` is the teacher's input table where it is not the model's.
    """

    prefix: int
    old_prefix: int
    layer: int | None = None
    next_token: float = 0.0
    old_table: torch.Tensor | None = None


class Distiller(nn.Module):
    """A frozen model and the rows that move: `table.rows`, and `head_rows` where the head is a matrix of its own."""

    def __init__(self, model: Any, ids: Sequence[int], goal: Goal, head: Head | None) -> None:
        """ConfigError: there is no such layer, or the head's rows should learn and the head is no plain one."""
        super().__init__()
        self.goal, self.head, self.tied = goal, head, _tied(model)
        self._layer = _layer(model, goal.layer)
        if goal.next_token and head is None:
            raise ConfigError(
                f"the head of {type(model).__name__} is no plain product, so its new rows cannot learn",
                where="next_token",
                hint="-o next_token=0",
            )
        for value in model.parameters():
            value.requires_grad_(False)
        self.register_buffer("ids", torch.tensor(list(ids)), persistent=False)
        self.table = NewRows(model.get_input_embeddings(), torch.tensor(list(ids)))
        moves_head = bool(goal.next_token) and head is not None and not self.tied
        weight = head.linear.weight if head is not None else None
        self.head_rows = (
            nn.Parameter(weight.detach()[torch.tensor(list(ids))].float())
            if moves_head and weight is not None
            else None
        )
        model.set_input_embeddings(self.table)
        self.model = model
        # the mean square of the teacher's states; the loss is a share of it
        self.scale = 1.0

    @property
    def moving(self) -> list[str]:
        """Names of the parameters that move."""
        return ["table.rows"] + ["head_rows"] * (self.head_rows is not None)

    def train(self, mode: bool = True) -> "Distiller":
        """Stay in evaluation mode: dropout would make student and teacher differ where they should agree."""
        return super().train(False)

    def objective(self, snippet_at: Callable[[int], Snippet]) -> Objective:
        """What the loop makes smaller; the index of a block is the number of its snippet."""

        def count(blocks: Sequence[Block]) -> int:
            return sum(len(snippet_at(block.index).new_at) for block in blocks)

        def size(blocks: Sequence[Block]) -> int:
            return len(blocks) * max(len(snippet_at(block.index).old) for block in blocks)

        def loss(blocks: Sequence[Block], places: int) -> torch.Tensor:
            found = self.compare([snippet_at(block.index) for block in blocks])
            total = found.squares / (places * self.scale)
            if self.goal.next_token:
                # places, not labels, so that a micro-batch adds what it would add in a larger one
                total = total + self.goal.next_token * found.nats / places
            return total

        return Objective(count, loss, size, LIGHTER, can_leave_out=False)

    @torch.no_grad()
    def measure(self, snippets: Sequence[Snippet], at_once: int) -> dict[str, float]:
        """Sums over snippets: `squares` and `teacher` are means over dimensions added up over `places`; `nats`,
        `labels`."""
        totals = dict.fromkeys(("squares", "teacher", "places", "nats", "labels"), 0.0)
        for first in range(0, len(snippets), at_once):
            found = self.compare(snippets[first : first + at_once])
            for name in totals:
                totals[name] += float(getattr(found, name))
        return totals

    @torch.no_grad()
    def hold_still(self, snippets: Sequence[Snippet], at_once: int, directions: int) -> float:
        """Keep rows as they are in the directions in which a head reads most; returns their share of what it reads.

        In a tied model a row is read twice, as input and by the head, where it adds (last state x row) to the token's
        logit at every place of every text. The directions are those in which the last states of `snippets` are longest
        (eigenvectors of their second moments): a row that keeps out of them keeps its logits nearly as they were.
        """
        width = self.table.rows.shape[1]
        moments = torch.zeros(width, width, dtype=torch.float64, device=self.table.rows.device)
        for first in range(0, len(snippets), at_once):
            few = snippets[first : first + at_once]
            states, last = self._states([snippet.new for snippet in few], self.goal.prefix, whole=True)
            for row, snippet in enumerate(few):
                read = (states if last is None else last)[row, 1 : 1 + len(snippet.new)].double()
                moments += read.T @ read
        values, vectors = torch.linalg.eigh(moments)
        self.table.still = vectors[:, -directions:].float()
        return float(values[-directions:].sum() / values.sum())

    def compare(self, snippets: Sequence[Snippet]) -> "Compared":
        """Read the snippets in both ways; gradients go to the rows that move only."""
        goal, device = self.goal, self.table.rows.device
        with torch.no_grad(), self.table.reading(goal.old_table):
            wanted = self._teacher(snippets)
        new, last = self._states([snippet.new for snippet in snippets], goal.prefix, whole=bool(goal.next_token))
        given = _picked(new, [snippet.new_at for snippet in snippets])
        squares = (given - wanted).square().sum() / given.shape[1]
        teacher = wanted.square().sum() / given.shape[1]
        nats, labels = torch.zeros((), device=device), 0
        if goal.next_token and last is not None:
            hidden = [last[row, : len(snippet.new)] for row, snippet in enumerate(snippets)]
            targets = torch.cat([torch.from_numpy(snippet.new).long() for snippet in snippets]).to(device)
            nats, labels = self._nats(torch.cat(hidden).detach(), targets), len(targets)
        return Compared(squares, teacher, len(given), nats, labels)

    def _teacher(self, snippets: Sequence[Snippet]) -> torch.Tensor:
        """The teacher's states [N, D] at the places of all snippets, in their order.

        Old pieces vary in number far more than new tokens do, so a few of like length are read together: the padding
        of a whole batch took a third of the teacher's time.
        """
        order = sorted(range(len(snippets)), key=lambda at: len(snippets[at].old))
        found: dict[int, torch.Tensor] = {}
        for first in range(0, len(order), _ALIKE):
            few = order[first : first + _ALIKE]
            states, _ = self._states([snippets[at].old for at in few], self.goal.old_prefix, whole=False)
            found |= {at: _picked(states[row : row + 1], [snippets[at].old_at]) for row, at in enumerate(few)}
        return torch.cat([found[at] for at in range(len(snippets))])

    def _states(self, texts: Sequence[Any], prefix: int, *, whole: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """States [B, L, D] behind the chosen layer, in fp32; with `whole` the last ones too."""
        longest = 1 + max(len(ids) for ids in texts)
        # padding is on the right, where a causal model cannot see it; its states are not read
        given = torch.full((len(texts), longest), prefix, dtype=torch.long)
        for row, ids in enumerate(texts):
            given[row, 1 : 1 + len(ids)] = torch.from_numpy(ids).long()
        seen: list[torch.Tensor] = []

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            seen.append((output[0] if isinstance(output, tuple) else output).float())
            if not whole:
                raise _Reached

        handle = self._layer.register_forward_hook(keep) if self._layer is not None else None
        try:
            last = self.model.base_model(input_ids=given.to(self.table.rows.device), use_cache=False).last_hidden_state
        except _Reached:
            return seen[0], None
        finally:
            if handle is not None:
                handle.remove()
        return (seen[0] if seen else last.float()), last

    def _nats(self, hidden_ND: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        """Summed cross entropy of the next token, as a function of the head's new rows alone.

        Old rows are read, not moved: log-sum-exp over them is a number, and only the logits of new rows have a graph.
        """
        head = self.head
        if head is None:
            return hidden_ND.new_zeros(())
        rows = self.table.moved() if self.head_rows is None else self.head_rows
        weight, bias = head.linear.weight, head.linear.bias
        ids: Any = self.ids
        place: Any = self.table.place
        at = place[targets_N]
        fixed_parts, known_parts = [], []
        with torch.no_grad():
            step = max(1, PIECE_NUMBERS // weight.shape[0])
            for first in range(0, len(hidden_ND), step):
                hidden = hidden_ND[first : first + step]
                logits = _bent(functional.linear(hidden, weight.to(hidden.dtype), _like(bias, hidden)).float(), head)
                logits[:, ids] = -torch.inf
                fixed_parts.append(logits.logsumexp(1))
                known_parts.append(logits.gather(1, targets_N[first : first + step, None])[:, 0])
        fixed, known = torch.cat(fixed_parts), torch.cat(known_parts)
        own_bias = None if bias is None else bias[ids].float()
        moving = _bent(functional.linear(hidden_ND.float(), rows, own_bias).float(), head)
        chosen = torch.where(at >= 0, moving.gather(1, at.clamp(min=0)[:, None])[:, 0], known)
        return (torch.logaddexp(fixed, moving.logsumexp(1)) - chosen).sum()


@dataclass(frozen=True)
class Compared:
    """Sums over `places`: squared difference and square of the teacher's states, each a mean over dimensions; nats over
    `labels`."""

    squares: torch.Tensor
    teacher: torch.Tensor
    places: int
    nats: torch.Tensor
    labels: int


def _bent(logits: torch.Tensor, head: Head) -> torch.Tensor:
    """What the model does to its logits, in operations that have a gradient."""
    scaled = logits if head.bend.scale == 1.0 else logits * head.bend.scale
    return scaled if head.bend.cap is None else head.bend.cap * torch.tanh(scaled / head.bend.cap)


def _like(bias: torch.Tensor | None, other: torch.Tensor) -> torch.Tensor | None:
    return None if bias is None else bias.to(other.dtype)


def _picked(states_BLD: torch.Tensor, places: Sequence[Any]) -> torch.Tensor:
    """States [N, D] at the places of each row, one further on for the prefix."""
    return torch.cat([states_BLD[row, torch.from_numpy(at).long() + 1] for row, at in enumerate(places)])


def _tied(model: Any) -> bool:
    head = model.get_output_embeddings()
    return head is None or head.weight is model.get_input_embeddings().weight


def _layer(model: Any, number: int | None) -> nn.Module | None:
    """The layer behind which states are compared; None where those behind the final norm are."""
    if number is None:
        return None
    layers = layers_of(model)
    if not 1 <= number <= len(layers):
        raise ConfigError(
            f"{type(model).__name__} has {len(layers)} layers, and no number {number}",
            where="layer",
            hint="leave `--layer` out for the last states",
        )
    return layers[number - 1]
