"""Learning rates of body, tables and new rows, where tensors move as wholes and where only parts of them do."""

from pathlib import Path

import numpy as np
import pytest
import torch

from langadapt.core.types import Movable, Slice
from langadapt.model.load import load_model
from langadapt.train.ema import Average, Averaging
from langadapt.train.optimiser import AdamSettings, Optimiser
from langadapt.train.trainable import Trainable, make_trainable
from tests.fixtures.tiny import tiny_model

RATE = 0.01
INPUT, HEAD, GATE = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.gate_proj.weight"
NORM = "model.norm.weight"
ROWS = 358
NEW = 10


def ids(*places: int) -> np.ndarray:
    return np.array(places, dtype=np.int32)


def prepared(folder: Path, movable: Movable, weight_decay: float = 0.0) -> tuple[Trainable, Optimiser]:
    subject = make_trainable(load_model(folder), movable, seed=0, folder=folder, compute="fp32")
    settings = AdamSettings(weight_decay=weight_decay, clip=1e9, new_rows_factor=5.0, tables_factor=0.5)
    optimiser = Optimiser(
        subject.model, set(subject.names), settings, old_rows=ROWS - NEW, parts=subject.parts
    )  # fmt: skip
    return subject, optimiser


def step(optimiser: Optimiser) -> None:
    """A gradient of 1 moves every number of Adam's first step by its learning rate."""
    for value in optimiser.parameters.values():
        value.grad = torch.ones_like(value)
    optimiser.step(RATE, optimiser.gradient_norm())


def now(subject: Trainable, name: str) -> torch.Tensor:
    """The model's own tensor, which holds what moves of it."""
    parts = {part.name: part.whole for part in subject.parts.sliced}
    return (parts[name] if name in parts else subject.model.get_parameter(name)).detach()


def moved(subject: Trainable, before: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """By how many learning rates each number has gone down."""
    return (before[name] - now(subject, name)) / RATE


WHOLE = Movable(frozenset({INPUT, HEAD, GATE, NORM}))
# new rows and old ones; columns of a matrix; single values of a norm
FEW = Movable(
    frozenset({HEAD}), {INPUT: Slice(0, ids(3, 4, 349, 357)), GATE: Slice(1, ids(0, 7)), NORM: Slice(0, ids(5))}
)
# most rows, so that the others are held
MOST = Movable(frozenset({NORM}), {INPUT: Slice(0, np.arange(20, ROWS, dtype=np.int32)), GATE: Slice(0, ids(2))})


@pytest.mark.parametrize("movable", [WHOLE, FEW, MOST], ids=["whole", "few", "most"])
def test_each_group_moves_at_its_rate(tiny_untied: Path, movable: Movable) -> None:
    subject, optimiser = prepared(tiny_untied, movable)
    base = load_model(tiny_untied)
    before = {name: value.detach().clone() for name, value in base.named_parameters()}
    rows = before[INPUT].shape[0]
    assert rows == ROWS
    step(optimiser)
    for name in (INPUT, HEAD, GATE, NORM):
        expected = torch.zeros_like(before[name])
        factor = 0.5 if name in (INPUT, HEAD) else 1.0
        if name in movable.slices:
            part = movable.slices[name]
            expected.index_fill_(part.axis, torch.from_numpy(part.ids).long(), factor)
        elif name in movable.names:
            expected.fill_(factor)
        if name in (INPUT, HEAD):
            # both factors hold for a new row: it is a row of a table
            expected[rows - NEW :] *= 5.0
        assert torch.allclose(moved(subject, before, name), expected, atol=1e-3), name


def test_positions_are_no_tokens(tmp_path: Path) -> None:
    """GPT-2's table of positions is looked up like that of tokens: it moves as the body does, and is not decayed."""
    names = frozenset({"transformer.wte.weight", "transformer.wpe.weight"})
    subject, optimiser = prepared(tiny_model(tmp_path / "gpt2", arch="gpt2"), Movable(names), 0.1)
    before = {name: value.detach().clone() for name, value in subject.model.named_parameters()}
    step(optimiser)
    assert torch.allclose(moved(subject, before, "transformer.wpe.weight"), torch.tensor(1.0), atol=1e-3)
    tokens = moved(subject, before, "transformer.wte.weight")
    assert torch.allclose(tokens[: ROWS - NEW], torch.tensor(0.5), atol=1e-3)
    assert torch.allclose(tokens[ROWS - NEW :], torch.tensor(2.5), atol=1e-3)
    assert all(group["weight_decay"] == 0.0 for group in optimiser._adam.param_groups if group["params"])


@pytest.mark.parametrize("mode", ["export", "live"])
@pytest.mark.parametrize("movable", [FEW, MOST], ids=["few", "most"])
def test_an_average_reaches_the_model_and_what_is_shielded_keeps_its_bits(
    tiny_untied: Path, movable: Movable, mode: str
) -> None:
    subject, optimiser = prepared(tiny_untied, movable)
    before = {name: value.detach().clone() for name, value in load_model(tiny_untied).named_parameters()}
    average = Average(optimiser, Averaging(0.75, 1, mode))  # type: ignore[arg-type]
    step(optimiser)
    average.take(1)
    if mode == "export":
        assert moved(subject, before, GATE).max() == pytest.approx(1.0, abs=1e-3)
        with average.shown():
            assert moved(subject, before, GATE).max() == pytest.approx(0.25, abs=1e-3)
        assert moved(subject, before, GATE).max() == pytest.approx(1.0, abs=1e-3)
        average.finish()
    assert moved(subject, before, GATE).max() == pytest.approx(0.25, abs=1e-3)
    for name in (INPUT, GATE):
        found, places = now(subject, name), torch.from_numpy(movable.slices[name].ids).long()
        still = torch.ones(found.shape[movable.slices[name].axis], dtype=torch.bool)
        still[places] = False
        others = still.nonzero().flatten()
        axis = movable.slices[name].axis
        assert torch.equal(found.index_select(axis, others), before[name].index_select(axis, others)), name
    # what is kept beside costs what moves, not the model
    assert sum(value.numel() for value in average.values.values()) == sum(
        value.numel() for value in optimiser.parameters.values()
    )
