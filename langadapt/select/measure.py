"""Fills the statistics of a language: text goes through the model once, and hooks add up what they see.

Hooks see values, not which tokens they belong to: that is handed to them as a matrix of weights, [2, tokens], with a 1
where a token counts, in the row of its half. A product with it is a masked sum over tokens for both halves at once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from langadapt.core.errors import DataError, LangadaptError
from langadapt.model.anatomy import Anatomy, Matrix, Neurons, Norm
from langadapt.select.statistics import HALVES, LanguageStatistics
from langadapt.select.wiring import Wiring, look, not_finite

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    Ints = np.ndarray[Any, np.dtype[np.int32]]
    Bools = np.ndarray[Any, np.dtype[np.bool_]]

# Tokens read at once. On a CPU more is not faster (see `model/score.py`); a GPU wants more.
BATCH_TOKENS = {"cpu": 1024, "cuda": 4096}
_KINDS = ("positive", "sums", "squares", "active", "taylor", "inputs", "norms")
_Key = tuple[str, str | int]


@dataclass(frozen=True, slots=True)
class Window:
    """What the model reads at once: `ids`, and of each whether it counts (specials and padding do not)."""

    ids: "Ints"
    counts: "Bools"


class Meter:
    """Adds up the activity of one model; `start` begins a language, `add` reads text, `found` gives the statistics.

    Sums over one batch are made in fp32 and added in fp64. `taylor` needs a backward pass for every batch.
    """

    def __init__(self, model: "PreTrainedModel", parts: Anatomy, *, taylor: bool = False) -> None:
        self._model = model.eval().requires_grad_(False)
        self._parts, self._taylor = parts, taylor
        self._wiring: Wiring | None = None
        self._weights: torch.Tensor | None = None
        self._scratch: dict[tuple[int, ...], torch.Tensor] = {}
        self._checked = False
        self.start()

    @property
    def wiring(self) -> Wiring | None:
        """What the model was seen to be; None before the first text."""
        return self._wiring

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self._model.device
        return device

    @property
    def tokens(self) -> int:
        """Tokens that counted since `start`."""
        return int(self._tokens.sum())

    def start(self, before: LanguageStatistics | None = None, windows: int = 0) -> None:
        """Begin a language, or go on after `windows` windows whose statistics are `before`."""
        self.windows = windows
        self._tokens = np.zeros(HALVES, dtype=np.int64) if before is None else before.tokens.copy()
        self._totals: dict[_Key, torch.Tensor] = {}
        for kind in _KINDS:
            for key, value in ({} if before is None else getattr(before, kind)).items():
                self._totals[kind, key] = torch.from_numpy(value).double().to(self._model.device)

    def add(self, batch: Sequence[Window]) -> int:
        """Read windows; returns how many tokens counted. The first batch is read without hooks too, and compared.

        LangadaptError if its logits differ in a bit: then hooks change what they measure. DataError: gradients of
        neurons are asked for, and there are none.
        """
        ids, weights = self._laid_out(batch)
        if self._wiring is None:
            self._wiring = look(self._model, self._parts, ids[0].tolist())
            if self._taylor and not self._wiring.neurons:
                raise no_gradients(self._wiring.why_none)
        bare = None if self._checked else self._read(ids, logits=True)
        self._weights = weights.reshape(HALVES, -1)
        with self._hooks(self._wiring):
            found = self._read(ids, logits=bare is not None or self._taylor)
            if self._taylor and found is not None:
                _learn(found, ids, weights.sum(0))
        self._weights = None
        if bare is not None and (found is None or not _same_bits(bare, found)):
            raise LangadaptError(
                "internal: the logits of this model differ when its activations are watched",
                hint="give `--device cpu`, or another `--compute`",
            )
        self._checked = True
        counted = weights.sum(dim=(1, 2)).long().cpu().numpy()
        self._tokens += counted
        self.windows += len(batch)
        return int(counted.sum())

    def found(self, lang: str) -> LanguageStatistics:
        """The statistics so far. DataError if an activation was not a finite number."""
        kinds: dict[str, dict[Any, Any]] = {kind: {} for kind in _KINDS}
        for (kind, key), total in self._totals.items():
            values = total.cpu().numpy()
            if not np.isfinite(values).all():
                raise not_finite(f"`{kind}` of {key}")
            kinds[kind][key] = values.astype(np.int64) if kind == "positive" else values
        return LanguageStatistics(lang, self._tokens.copy(), **kinds)

    def _laid_out(self, batch: Sequence[Window]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids [windows, longest], padded on the right where a causal model cannot see it, and weights [2, ...]."""
        longest = max(len(window.ids) for window in batch)
        ids = np.zeros((len(batch), longest), dtype=np.int64)
        weights = np.zeros((HALVES, len(batch), longest), dtype=np.float32)
        for row, window in enumerate(batch):
            ids[row, : len(window.ids)] = window.ids
            weights[(self.windows + row) % HALVES, row, : len(window.ids)] = window.counts
        device = self._model.device
        return torch.from_numpy(ids).to(device), torch.from_numpy(weights).to(device)

    def _read(self, ids: torch.Tensor, *, logits: bool) -> torch.Tensor | None:
        """A pass through the model; without `logits` its head is left out."""
        with torch.enable_grad() if self._taylor else torch.inference_mode():
            if not logits:
                self._model.base_model(input_ids=ids, use_cache=False)
                return None
            found: torch.Tensor = self._model(input_ids=ids, use_cache=False).logits
            return found

    @contextmanager
    def _hooks(self, wiring: Wiring) -> Iterator[None]:
        modules = dict(self._model.named_modules())
        handles = [modules[group[0].module].register_forward_pre_hook(self._on_input(group)) for group in wiring.shared]
        for norm, axis in wiring.norms:
            handles.append(modules[norm.module].register_forward_pre_hook(self._on_norm(norm, axis)))
        for one in wiring.neurons:
            handles.append(modules[one.gate.module].register_forward_hook(self._on_gate(one, wiring)))
            if self._taylor:
                handles.append(modules[one.down.module].register_forward_pre_hook(self._on_down(one)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    # Every hook returns None: what a hook returns takes the place of the module's result.

    def _on_input(self, group: tuple[Matrix, ...]) -> Callable[..., None]:
        def hook(module: Any, given: tuple[torch.Tensor, ...]) -> None:
            values = _flat(given[0])
            squares = self._sum(torch.mul(values, values, out=self._room(values)))
            for matrix in group:
                self._count("inputs", matrix.weight, squares)

        return hook

    def _on_norm(self, norm: Norm, axis: int) -> Callable[..., None]:
        def hook(module: Any, given: tuple[torch.Tensor, ...]) -> None:
            values = given[0].detach().movedim(axis, 1)
            if values.ndim == 3:
                values = _flat(values)
                squares = torch.mul(values, values, out=self._room(values))
            else:  # [windows, tokens, heads, size]: a norm of each head has one weight for all of them
                squares = values.float().square().flatten(0, 1).flatten(1, -2).mean(1)
            self._count("norms", norm.weight, self._sum(squares))

        return hook

    def _on_gate(self, one: Neurons, wiring: Wiring) -> Callable[..., None]:
        def hook(module: Any, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
            values = _flat(result)[:, one.gate_offset : one.gate_offset + one.width]
            room = self._room(values)
            self._count("sums", one.layer, self._sum(values))
            if wiring.by_sign:
                self._count("positive", one.layer, self._sum(torch.gt(values, 0, out=room)))
            self._count("squares", one.layer, self._sum(torch.mul(values, values, out=room)))
            if wiring.act is not None:
                self._count("active", one.layer, self._sum(wiring.act(values)))

        return hook

    def _on_down(self, one: Neurons) -> Callable[..., None]:
        def hook(module: Any, given: tuple[torch.Tensor, ...]) -> None:
            neurons = given[0]
            if not neurons.requires_grad:
                # the first layer's are where the graph begins: no parameter has a gradient
                neurons.requires_grad_(True)
            values = neurons.detach()

            def back(gradient: torch.Tensor) -> None:
                self._count("taylor", one.layer, self._sum(_flat(gradient * values).abs_()))

            neurons.register_hook(back)  # type: ignore[no-untyped-call]

        return hook

    def _room(self, values: torch.Tensor) -> torch.Tensor:
        """Memory for values [tokens, width] in fp32, used again: taking it anew costs more than the sum."""
        shape = tuple(values.shape)
        if shape not in self._scratch:
            self._scratch[shape] = torch.empty(shape, device=values.device)
        return self._scratch[shape]

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sums [2, width] of values [tokens, width] over the tokens of each half that count."""
        if self._weights is None:
            raise LangadaptError("internal: a hook ran outside a batch")
        return self._weights @ values

    def _count(self, kind: str, key: str | int, values: torch.Tensor) -> None:
        total = self._totals.get((kind, key))
        self._totals[kind, key] = values.double() if total is None else total.add_(values)


def no_gradients(why: str) -> DataError:
    """The error where gradients of neurons are asked for, and there are none."""
    return DataError(
        f"{why}: it has no neurons whose gradients could be measured",
        hint="leave `--taylor` out; choose by columns or layers: `ssu`, `layers`",
    )


def _flat(values: torch.Tensor) -> torch.Tensor:
    """Values [tokens, width] in fp32, without a gradient."""
    return values.detach().reshape(-1, values.shape[-1]).float()


def _learn(logits: torch.Tensor, ids: torch.Tensor, counts: torch.Tensor) -> None:
    """Go back from the cross entropy of the next tokens that count: their sum, so that no token weighs by its batch."""
    wanted = counts[:, 1:].bool()
    rows = logits[:, :-1][wanted].float()
    torch.nn.functional.cross_entropy(rows, ids[:, 1:][wanted], reduction="sum").backward()  # type: ignore[no-untyped-call]


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal, and NaN equal to NaN."""
    if torch.equal(one, other):
        return True
    return one.shape == other.shape and bool(one.isnan().any()) and torch.equal(one.nan_to_num(), other.nan_to_num())


def batches(windows: Iterator[Window], tokens: int) -> Iterator[list[Window]]:
    """Windows in order, together while their padded size is at most `tokens` (or one window)."""
    batch: list[Window] = []
    longest = 0
    for window in windows:
        longest = max(longest, len(window.ids))
        if batch and longest * (len(batch) + 1) > tokens:
            yield batch
            batch, longest = [], len(window.ids)
        batch.append(window)
    if batch:
        yield batch
