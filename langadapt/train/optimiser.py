"""AdamW with the decay rules of language models and learning-rate factors for tables and new rows."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from langadapt.core.types import Slice
from langadapt.train import lowbit
from langadapt.train.footprint import AVERAGE_BYTES, MOMENT_BYTES
from langadapt.train.sliced_layers import looked_up_ids, table_ids
from langadapt.train.slices import ALL_WHOLE, Hold, Parts

if TYPE_CHECKING:
    from langadapt.train.ema import Average

Ints = np.ndarray[Any, np.dtype[np.int64]]
_KEYS = {"mean": "exp_avg", "square": "exp_avg_sq"}


@dataclass(frozen=True)
class AdamSettings:
    """`tables_factor` multiplies the learning rate of the tables, `new_rows_factor` that of the rows of new tokens.

    `moments` is how the two averages are kept; `rounds`: weights are bf16 and rounded stochastically; `compiled`: so is
    the step of low-bit moments.
    """

    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    clip: float = 1.0
    new_rows_factor: float = 1.0
    tables_factor: float = 1.0
    moments: lowbit.Moments = "fp32"
    rounds: bool = False
    compiled: bool = False

    @property
    def lowbit(self) -> bool:
        """Is torchao needed?"""
        return self.moments != "fp32" or self.rounds


class Optimiser:
    """Moves the parameters it was given and no other; everything it keeps can be written down and read back."""

    def __init__(
        self,
        model: nn.Module,
        movable: set[str],
        settings: AdamSettings,
        *,
        old_rows: int | None,
        new_rows: Ints | None = None,
        parts: Parts = ALL_WHOLE,
    ) -> None:
        """`old_rows` is the number of rows the base model had, None if the model got no new ones.

        `new_rows` names the new ones where they are not simply those after the old ones. `parts` says which of the
        `movable` parameters stand for a part of a tensor, and which are not to move as wholes.
        """
        self.settings = settings
        # of what moves; kept in checkpoints beside it
        self.average: Average | None = None
        self.parts = parts
        self.parameters = {name: value for name, value in model.named_parameters() if name in movable}
        for name, value in model.named_parameters():
            value.requires_grad_(name in movable)
        self._masters = {part.master: part for part in parts.sliced}
        self._held = self._holds(parts.held)
        # in the stage of now; other stages move them
        self._still: list[Hold] = []
        tables, looked_up = table_ids(model), looked_up_ids(model)
        groups: dict[str, list[nn.Parameter]] = {"matrices": [], "tables": [], "rest": []}
        for value in self.parameters.values():
            # Norms, biases, tables and positions are not decayed: a row that is rarely seen would only shrink
            matrix = value.ndim >= 2 and id(value) not in looked_up
            kind = "tables" if id(value) in tables else "matrices" if matrix else "rest"
            groups[kind].append(value)
        self._faster: list[tuple[nn.Parameter, slice | torch.Tensor]] = []
        for name, value in self.parameters.items():
            rows = self._new_rows(name, value, old_rows, new_rows) if id(value) in tables else None
            if rows is not None:
                self._faster.append((value, rows))
        described: list[dict[str, Any]] = [
            {"params": groups["matrices"], "weight_decay": settings.weight_decay, "factor": 1.0},
            {"params": groups["tables"], "weight_decay": 0.0, "factor": settings.tables_factor},
            {"params": groups["rest"], "weight_decay": 0.0, "factor": 1.0},
        ]
        self._adam: torch.optim.Optimizer = (
            lowbit.make_adam(
                [group for group in described if group["params"]],
                betas=settings.betas,
                epsilon=settings.epsilon,
                rounds=settings.rounds,
            )
            if settings.lowbit
            else torch.optim.AdamW(described, lr=0.0, betas=settings.betas, eps=settings.epsilon, fused=True)
        )

    def _new_rows(
        self, name: str, value: nn.Parameter, old_rows: int | None, new_rows: Ints | None
    ) -> slice | torch.Tensor | None:
        """Where the rows of new tokens are in a table, or in the part of one that moves; None: nowhere."""
        part = self._masters.get(name)
        if part is not None and part.slice.axis == 0:
            ids = part.slice.ids
            new = np.isin(ids, new_rows) if new_rows is not None else ids >= (old_rows or 2**31)
            return torch.from_numpy(np.flatnonzero(new)).to(value.device) if new.any() else None
        if not _reaches(value.shape[0], old_rows, new_rows):
            return None
        return slice(old_rows or 0, None) if new_rows is None else torch.from_numpy(new_rows)

    def _holds(self, places: Mapping[str, Slice]) -> list[Hold]:
        return [Hold(self.parameters[name], part) for name, part in sorted(places.items())]

    def only(self, names: Collection[str] | None, still: Mapping[str, Slice] | None = None) -> None:
        """From now on only these of its parameters move, None means all; moments of the others stand still.

        Places of them that are `still` keep the values that they have now.
        """
        for name, value in self.parameters.items():
            value.requires_grad_(names is None or name in names)
        self._still = self._holds(still or {})
        self.forget()

    def prepare(self) -> None:
        """Make the moments of what moves now, so that their memory is taken before the first step."""
        for value in self.parameters.values():
            if value.requires_grad and not self._adam.state[value]:
                self._new_state(value)

    def _new_state(self, value: nn.Parameter) -> None:
        settings, state = self.settings, self._adam.state[value]
        # torchao wants the count on the CPU, torch's fused step beside the weight
        state["step"] = torch.zeros((), device="cpu" if settings.lowbit else value.device)
        for name, key in _KEYS.items():
            state[key] = lowbit.new_moment(value, settings.moments, signed=name == "mean")

    def gradient_norm(self) -> torch.Tensor:
        """Norm over all gradients of what moves, before clipping."""
        for hold in (*self._held, *self._still):
            hold.drop_gradient()
        gradients = [value.grad for value in self.parameters.values() if value.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def step(self, learning_rate: float, gradient_norm: torch.Tensor) -> None:
        """Clip, move, and forget the gradients. Rounding draws from torch's default stream: the caller sets it."""
        moving = [value for value in self.parameters.values() if value.grad is not None]
        torch.nn.utils.clip_grads_with_norm_(moving, self.settings.clip, gradient_norm)
        for group in self._adam.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(learning_rate * group["factor"])
            else:
                group["lr"] = learning_rate * group["factor"]
        self.prepare()
        factor = self.settings.new_rows_factor
        faster = [each for each in self._faster if each[0].grad is not None] if factor != 1.0 else []
        # AdamW without decay moves a weight by lr x (a direction that does not depend on lr), so multiplying what
        # the step did is the same as a larger learning rate; it costs a copy of the new rows only.
        before = [table.detach()[rows].clone() for table, rows in faster]
        if self.settings.lowbit:
            lowbit.move(self._adam, moving[0].device, compiled=self.settings.compiled)
        else:
            self._adam.step()
        for (value, places), old in zip(faster, before, strict=True):
            table = value.detach()
            table[places] = table[places].clone().sub_(old).mul_(factor).add_(old)
        self.stand_still()
        self.refresh()
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        self._adam.zero_grad(set_to_none=True)

    def stand_still(self) -> None:
        """After values were moved: put back what stands still in this stage; `refresh` belongs after it.

        Not where a moving average is shown or written: it remembers what moved in other stages.
        """
        for hold in self._still:
            hold.put_back()

    def refresh(self) -> None:
        """After values of `parameters` changed: put back what is held, write parts through to their tensors."""
        for hold in self._held:
            hold.put_back()
        for part in self._masters.values():
            part.write_through()

    def moved(self) -> dict[str, int]:
        """How many steps each parameter has taken; those that never moved are left out."""
        counts = {name: self._adam.state.get(value, {}).get("step") for name, value in sorted(self.parameters.items())}
        return {name: int(count) for name, count in counts.items() if count is not None and count > 0}

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Everything a checkpoint needs, by name: `weight/...`, and `mean/...`, `square/...` of what has moved."""
        for name, value in sorted(self.parameters.items()):
            yield f"weight/{name}", value.detach()
        for name in self.moved():
            for kind, key in _KEYS.items():
                for suffix, part in lowbit.parts(self._adam.state[self.parameters[name]][key]).items():
                    yield f"{kind}/{name}{suffix}", part
        if self.average is not None:
            yield from self.average.tensors()

    def expect(self, moved: Mapping[str, int]) -> set[str]:
        """Make room for what `tensors` gave when these parameters had moved; returns its names.

        The counts are kept: the bias correction depends on them.
        """
        names = {f"weight/{name}" for name in self.parameters}
        for name, steps in moved.items():
            value = self.parameters[name]
            self._new_state(value)
            self._adam.state[value]["step"].fill_(float(steps))
            for kind, key in _KEYS.items():
                names |= {f"{kind}/{name}{suffix}" for suffix in lowbit.parts(self._adam.state[value][key])}
        return names

    def put_back(self, name: str, tensor: torch.Tensor) -> bool:
        """Restore one tensor of `tensors`, after `expect`; False if it has another shape."""
        kind, _, rest = name.partition("/")
        parameter, _, suffix = rest.partition("/")
        value = self.parameters[parameter]
        here = value.detach()
        if kind != "weight":
            here = lowbit.parts(self._adam.state[value][_KEYS[kind]])[f"/{suffix}" if suffix else ""]
        if here.shape != tensor.shape:
            return False
        here.copy_(tensor)
        if kind == "weight" and parameter in self._masters:
            self._masters[parameter].write_through()
        return True

    def checkpoint_bytes(self) -> int:
        """Size of `tensors` when everything has moved."""
        beside = MOMENT_BYTES[self.settings.moments] + (AVERAGE_BYTES if self.average is not None else 0)
        return round(sum(value.numel() * (value.element_size() + beside) for value in self.parameters.values()))

    def norms(self) -> Mapping[str, float]:
        """Norm of each gradient; for the incident report."""
        return {
            name: float(value.grad.norm()) for name, value in sorted(self.parameters.items()) if value.grad is not None
        }


def _reaches(rows: int, old_rows: int | None, new_rows: Ints | None) -> bool:
    """Does a table of so many rows have new ones?"""
    if new_rows is not None:
        return len(new_rows) > 0 and rows > int(new_rows[-1])
    return old_rows is not None and rows > old_rows
