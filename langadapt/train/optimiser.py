"""AdamW with the decay rules of language models and a learning-rate factor for new rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class AdamSettings:
    """`new_rows_factor` multiplies the learning rate of the rows from `old_rows` on, in the tables only."""

    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    clip: float = 1.0
    new_rows_factor: float = 1.0


class Optimiser:
    """Moves the parameters it was given and no other; everything it keeps can be written down and read back."""

    def __init__(self, model: nn.Module, movable: set[str], settings: AdamSettings, *, old_rows: int | None) -> None:
        """`old_rows` is the number of rows the base model had, None if the model got no new ones."""
        self.settings = settings
        self.parameters = {name: value for name, value in model.named_parameters() if name in movable}
        for name, value in model.named_parameters():
            value.requires_grad_(name in movable)
        tables = _tables(model)
        groups: dict[str, list[nn.Parameter]] = {"matrices": [], "rest": []}
        for name, value in self.parameters.items():
            # Norms, biases and tables are not decayed: a row that is rarely seen would only shrink
            decayed = value.ndim >= 2 and id(value) not in tables
            groups["matrices" if decayed else "rest"].append(self.parameters[name])
        self._tables = [
            value
            for value in self.parameters.values()
            if old_rows is not None and id(value) in tables and value.shape[0] > old_rows
        ]
        self._old_rows = old_rows or 0
        self._adam = torch.optim.AdamW(
            [
                {"params": groups["matrices"], "weight_decay": settings.weight_decay},
                {"params": groups["rest"], "weight_decay": 0.0},
            ],
            lr=0.0,
            betas=settings.betas,
            eps=settings.epsilon,
            fused=True,
        )

    def gradient_norm(self) -> torch.Tensor:
        """Norm over all gradients, before clipping."""
        gradients = [value.grad for value in self.parameters.values() if value.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def step(self, learning_rate: float, gradient_norm: torch.Tensor) -> None:
        """Clip, move, and forget the gradients."""
        torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), self.settings.clip, gradient_norm)
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        factor = self.settings.new_rows_factor
        faster = self._tables if factor != 1.0 else []
        # AdamW without decay moves a weight by lr x (a direction that does not depend on lr), so multiplying what
        # the step did is the same as a larger learning rate; it costs a copy of the new rows only.
        before = [table.detach()[self._old_rows :].clone() for table in faster]
        self._adam.step()
        for table, old in zip(faster, before, strict=True):
            new = table.detach()[self._old_rows :]
            new.sub_(old).mul_(factor).add_(old)
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        self._adam.zero_grad(set_to_none=True)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Everything a checkpoint needs, by name: `weight/...`, `mean/...`, `square/...`."""
        for name, value in sorted(self.parameters.items()):
            yield f"weight/{name}", value.detach()
        for name, value in sorted(self.parameters.items()):
            state = self._adam.state[value]
            yield f"mean/{name}", state["exp_avg"]
            yield f"square/{name}", state["exp_avg_sq"]

    def names(self) -> set[str]:
        """Names that `tensors` yields."""
        return {f"{kind}/{name}" for kind in ("weight", "mean", "square") for name in self.parameters}

    def put_back(self, name: str, tensor: torch.Tensor) -> None:
        """Restore one tensor of `tensors`."""
        kind, _, parameter = name.partition("/")
        value = self.parameters[parameter]
        if kind == "weight":
            value.detach().copy_(tensor)
        else:
            key = {"mean": "exp_avg", "square": "exp_avg_sq"}[kind]
            self._adam.state[value][key] = tensor.to(value.device)

    def set_steps(self, steps: int) -> None:
        """Tell the optimiser how many steps lie behind it (the bias correction depends on it)."""
        for value in self.parameters.values():
            self._adam.state[value]["step"] = torch.tensor(float(steps), device=value.device)

    def norms(self) -> Mapping[str, float]:
        """Norm of each gradient; for the incident report."""
        return {
            name: float(value.grad.norm()) for name, value in sorted(self.parameters.items()) if value.grad is not None
        }


def _tables(model: nn.Module) -> set[int]:
    """Identities of the parameters that are tables: every nn.Embedding, and the head."""
    found = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        found |= {id(value) for value in head.parameters()}
    return found
