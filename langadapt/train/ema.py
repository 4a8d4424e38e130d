"""A moving average of what moves: written in place of the weights, or put back into them now and then.

Every `every` steps a <- beta a + (1 - beta) w, with a = w before the first step and no correction of that start: what
the average is for is to stay near it. Averages are fp32, of the parameters that move, so with slices they cost a slice.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn

from langadapt.core.errors import ConfigError

Mode = Literal["export", "live"]
# Begins the names of averages in a checkpoint.
PREFIX = "average/"


class Wishes(Protocol):
    """The options of a run that say how to average."""

    @property
    def ema(self) -> float: ...
    @property
    def ema_every(self) -> int: ...
    @property
    def ema_mode(self) -> Mode: ...


@dataclass(frozen=True)
class Averaging:
    """`export`: the average is what is probed and written; `live`: weights become the average every `every` steps."""

    beta: float
    every: int
    mode: Mode


def averaging_of(wishes: Wishes, steps: int) -> Averaging | None:
    """None when nothing is averaged. ConfigError if a run of so many steps would never come to it."""
    if wishes.ema == 0.0:
        return None
    if wishes.ema_every > steps:
        raise ConfigError(
            f"`ema_every` is {wishes.ema_every:,}, the run has {steps:,} steps: nothing would be averaged",
            hint=f"give at most {steps}; the average reaches back about ema_every / (1 - ema) steps",
        )
    return Averaging(wishes.ema, wishes.ema_every, wishes.ema_mode)


class Moving(Protocol):
    """What is averaged: an optimiser's parameters by name; `refresh` tells what is made of them that they moved.

    `stand_still` puts back what must not move now.
    """

    parameters: dict[str, nn.Parameter]

    def stand_still(self) -> None: ...
    def refresh(self) -> None: ...


class Average:
    """The averages of what moves, by name, as they are now."""

    def __init__(self, moving: Moving, averaging: Averaging) -> None:
        self._moving, self.averaging = moving, averaging
        self.values = {name: value.detach().to(torch.float32, copy=True) for name, value in moving.parameters.items()}
        self._restored: set[str] = set()

    @torch.no_grad()
    def take(self, step: int) -> None:
        """After step number `step` (from 1): average if it is one of those, and in `live` mode move the weights."""
        if step % self.averaging.every:
            return
        for name, value in self._moving.parameters.items():
            # of two equal numbers it makes that number again: places that are held stay what they are
            self.values[name].lerp_(value.float(), 1.0 - self.averaging.beta)
            if self.averaging.mode == "live":
                value.copy_(self.values[name])
        if self.averaging.mode == "live":
            self._moving.stand_still()
            self._moving.refresh()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside the block the model computes with the averages; afterwards with its weights, bit for bit."""
        parameters = self._moving.parameters
        own = {name: value.data for name, value in parameters.items()}
        for name, value in parameters.items():
            value.data = self.values[name].to(value.dtype)
        self._moving.refresh()
        try:
            yield
        finally:
            for name, value in parameters.items():
                value.data = own[name]
            self._moving.refresh()

    @torch.no_grad()
    def finish(self) -> None:
        """The weights become what is to be written."""
        if self.averaging.mode == "export":
            for name, value in self._moving.parameters.items():
                value.copy_(self.values[name])
            self._moving.refresh()

    def around(self, other: Callable[[], AbstractContextManager[None]]) -> Callable[[], AbstractContextManager[None]]:
        """`other`, and inside it what would be written."""
        if self.averaging.mode == "live":
            return other

        @contextmanager
        def both() -> Iterator[None]:
            with other(), self.shown():
                yield

        return both

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """What a checkpoint needs, by name."""
        for name, value in sorted(self.values.items()):
            yield PREFIX + name, value

    def put_back(self, name: str, tensor: torch.Tensor) -> bool:
        """Restore one of `tensors`; False if it is none."""
        found = self.values.get(name.removeprefix(PREFIX))
        if found is None or found.shape != tensor.shape:
            return False
        found.copy_(tensor)
        self._restored.add(name.removeprefix(PREFIX))
        return True

    @torch.no_grad()
    def settle(self) -> None:
        """After a checkpoint was restored: averages that it did not hold begin at its weights, as those of a branch."""
        for name, value in self._moving.parameters.items():
            if name not in self._restored:
                self.values[name].copy_(value)
        self._restored.clear()
