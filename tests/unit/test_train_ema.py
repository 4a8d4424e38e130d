"""The average of what moves: closed forms, what is shown and written, and what goes together with it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import langadapt
from langadapt.core.errors import ConfigError
from langadapt.core.types import Slice
from langadapt.model.load import load_model, load_tokenizer
from langadapt.train.ema import Average, Averaging, Mode
from langadapt.train.footprint import Kept, Shape, Work, memory_bytes
from langadapt.train.optimiser import AdamSettings, Optimiser
from langadapt.train.probe import Probe

RATE = 0.01


class Two(nn.Module):
    """A matrix that moves and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.moves = nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(1)))
        self.still = nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(2)))


def pushed(beta: float, every: int, mode: Mode, steps: int) -> tuple[Two, Optimiser, Average]:
    """A constant gradient of 1: Adam without decay then moves every number by exactly the learning rate a step."""
    model = Two()
    settings = AdamSettings(weight_decay=0.0, clip=1e9)
    optimiser = Optimiser(model, {"moves", "still"}, settings, old_rows=None)
    optimiser.average = average = Average(optimiser, Averaging(beta, every, mode))
    for step in range(1, steps + 1):
        model.moves.grad = torch.ones_like(model.moves)
        optimiser.step(RATE, optimiser.gradient_norm())
        average.take(step)
    return model, optimiser, average


@pytest.mark.parametrize(("beta", "every", "steps"), [(0.9, 1, 7), (0.5, 3, 10), (0.99, 2, 6)])
def test_after_constant_gradients_it_has_the_closed_form(beta: float, every: int, steps: int) -> None:
    start = Two().moves.detach()
    model, _, average = pushed(beta, every, "export", steps)
    assert torch.allclose(model.moves.detach(), start - RATE * steps, atol=1e-5)
    # w_k = w_0 - d k, so a_k = w_0 - d (k - beta (1 - beta^k) / (1 - beta)), with d = every x rate after k updates
    updates = steps // every
    moved = every * RATE * (updates - beta * (1 - beta**updates) / (1 - beta))
    assert torch.allclose(average.values["moves"], start - moved, atol=1e-5)


def test_beta_0_is_the_weights_and_beta_near_1_stays_at_the_start() -> None:
    model, _, average = pushed(0.0, 1, "export", 5)
    assert torch.equal(average.values["moves"], model.moves.detach())
    _, _, average = pushed(1.0 - 1e-9, 1, "export", 5)
    assert torch.allclose(average.values["moves"], Two().moves, atol=1e-6)


@pytest.mark.parametrize("mode", ["export", "live"])
def test_what_does_not_move_keeps_its_bits(mode: Mode) -> None:
    model, _, average = pushed(0.3, 1, mode, 9)
    before = Two().still.detach()
    assert torch.equal(model.still.detach(), before) and torch.equal(average.values["still"], before)
    average.finish()
    assert torch.equal(model.still.detach(), before)


@pytest.mark.parametrize("mode", ["export", "live"])
def test_what_stands_still_in_a_stage_is_averaged_with_what_moved_before(mode: Mode) -> None:
    """Three steps in which all moves, then three in which row 1 stands still: its bits stay, its average catches up."""
    model, optimiser, average = pushed(0.5, 2, mode, 3)
    there, before = model.moves.detach()[1].clone(), average.values["moves"][1].clone()
    optimiser.only(None, {"moves": Slice(0, np.array([1], dtype=np.int32))})
    for step in range(4, 7):
        model.moves.grad = torch.ones_like(model.moves)
        optimiser.step(RATE, optimiser.gradient_norm())
        average.take(step)
        assert torch.equal(model.moves.detach()[1], there) and not torch.equal(model.moves.detach()[0], there)
    with average.shown():
        pass
    expected = there + (before - there) * 0.25
    assert torch.allclose(average.values["moves"][1], expected, atol=1e-6)
    average.finish()
    assert torch.allclose(model.moves.detach()[1], expected if mode == "export" else there, atol=1e-6)


def test_live_weights_go_on_from_the_average() -> None:
    model, _, average = pushed(0.75, 2, "live", 6)
    # each time two steps ahead, then three quarters of the way back
    expected = Two().moves.detach() - 3 * 0.25 * 2 * RATE
    assert torch.allclose(model.moves.detach(), expected, atol=1e-5)
    assert torch.equal(model.moves.detach(), average.values["moves"])


def test_it_is_shown_inside_the_block_only_and_written_at_the_end() -> None:
    model, optimiser, average = pushed(0.9, 1, "export", 4)
    refreshed: list[float] = []
    optimiser.refresh = lambda: refreshed.append(float(model.moves.detach()[0, 0]))  # type: ignore[method-assign]
    own = model.moves.detach().clone()
    with pytest.raises(KeyboardInterrupt), average.shown():
        assert torch.equal(model.moves.detach(), average.values["moves"])
        raise KeyboardInterrupt
    assert torch.equal(model.moves.detach(), own)
    assert refreshed == [float(average.values["moves"][0, 0]), float(own[0, 0])]
    average.finish()
    assert torch.equal(model.moves.detach(), average.values["moves"]) and len(refreshed) == 3


def test_the_price_is_four_bytes_a_number_that_moves() -> None:
    shape, work = Shape(10_000_000, 4_000_000, 1000, 64, 2, True), Work(128, 4, 2, "fp32")
    plain, averaged = Kept(), Kept(averaged=True)
    assert memory_bytes(shape, work, averaged) - memory_bytes(shape, work, plain) == 4 * 4_000_000
    _, optimiser, average = pushed(0.9, 1, "export", 1)
    size = optimiser.checkpoint_bytes()
    optimiser.average = None
    assert size - optimiser.checkpoint_bytes() == sum(4 * value.numel() for value in average.values.values())


# runs


def run(out: Path, model: Path, data: Path, **more: Any) -> Path:
    same: dict[str, Any] = {
        "steps": 8, "batch_tokens": 128, "learning_rate": 3e-3, "probe_every": 4, "threads": 1, "compute": "fp32"
    }  # fmt: skip
    return Path(langadapt.cpt(out=out, model=str(model), data=str(data), **(same | more)).path)


def weights(place: Path) -> dict[str, torch.Tensor]:
    return load_file(place / "model.safetensors")


def steps_of(place: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def test_export_trains_as_if_nothing_were_averaged_and_probes_what_it_writes(
    tmp_path: Path, tiny: Path, tiny_data: Path
) -> None:
    plain = run(tmp_path / "plain", tiny, tiny_data)
    made = run(tmp_path / "ema", tiny, tiny_data, ema=0.8)
    assert steps_of(made) == steps_of(plain)
    base, last, mean = weights(tiny), weights(plain), weights(made)
    for name in base:
        far, near = (last[name] - base[name]).norm(), (mean[name] - base[name]).norm()
        assert 0 < near < far, name
    separator = 0
    probe = Probe(
        tiny_data / "probes.jsonl", load_model(made), load_tokenizer(made), prefix=separator, compute="fp32",
        progress=langadapt.core.progress.Progress(),
    )  # fmt: skip
    curves = json.loads((made / "probes.json").read_text())
    assert set(curves) == {"hu", "en"}
    for name, value in probe().items():
        assert curves[name][-1] == [8, pytest.approx(value, rel=1e-6)], name


def test_the_average_of_a_run_is_that_of_its_weights_step_by_step(tmp_path: Path, tiny: Path, tiny_data: Path) -> None:
    made = run(tmp_path / "ema", tiny, tiny_data, ema=0.6, ema_every=2, schedule="constant", steps=6)
    expected = {name: value.double() for name, value in weights(tiny).items()}
    for step in (2, 4, 6):
        # a constant rate without warm-up beyond the first step: a shorter run is the beginning of a longer one
        there = weights(run(tmp_path / f"{step}", tiny, tiny_data, schedule="constant", steps=step, warmup_steps=1))
        expected = {name: 0.6 * value + 0.4 * there[name].double() for name, value in expected.items()}
    for name, value in weights(made).items():
        assert torch.allclose(value.double(), expected[name], atol=1e-6), name


def test_tables_alone_are_averaged_where_they_alone_move(tmp_path: Path, tiny: Path, tiny_data: Path) -> None:
    before = weights(tiny)
    for mode in ("export", "live"):
        after = weights(run(tmp_path / mode, tiny, tiny_data, strategy="embeddings", ema=0.5, ema_mode=mode))
        assert {name for name in before if not torch.equal(before[name], after[name])} == {"model.embed_tokens.weight"}


def test_a_branch_may_average_what_was_not_averaged_before_and_the_other_way(
    tmp_path: Path, tiny: Path, tiny_data: Path
) -> None:
    kept = {"schedule": "wsd", "keep_branch": True, "warmup_steps": 1}
    later = {"schedule": "wsd", "steps": 12}
    plain = run(tmp_path / "plain", tiny, tiny_data, **kept)
    averaged = run(tmp_path / "averaged", tiny, tiny_data, **kept, ema=0.8)
    names = {name for file in (averaged / "branch").glob("*.safetensors") for name in load_file(file)}
    assert {name for name in names if name.startswith("average/")}
    one = run(tmp_path / "one", tiny, tiny_data, **later, branch_from=str(averaged))
    other = run(tmp_path / "other", tiny, tiny_data, **later, branch_from=str(plain))
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    fresh = run(tmp_path / "fresh", tiny, tiny_data, **later, branch_from=str(plain), ema=0.8)
    went_on = run(tmp_path / "went-on", tiny, tiny_data, **later, branch_from=str(averaged), ema=0.8)
    whole = run(tmp_path / "whole", tiny, tiny_data, **later, warmup_steps=1, ema=0.8)
    assert (went_on / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (fresh / "model.safetensors").read_bytes() != (whole / "model.safetensors").read_bytes()
    assert steps_of(fresh) == steps_of(went_on)


def test_rates_are_tried_without_an_average(tmp_path: Path, tiny: Path, tiny_data: Path) -> None:
    asked = {"lr_probe": True, "lr_probe_factors": [1.0, 3.0], "lr_probe_steps": 3}
    plain = json.loads((run(tmp_path / "plain", tiny, tiny_data, **asked) / "lr_probe.json").read_text())
    made = json.loads((run(tmp_path / "ema", tiny, tiny_data, **asked, ema=0.99) / "lr_probe.json").read_text())
    assert made == plain


def test_an_adapter_is_averaged_by_its_factors(tmp_path: Path, tiny: Path, tiny_data: Path) -> None:
    more = {"strategy": "lora", "strategy_options": {"rank": 4, "train_tables": False}}
    plain, made = (weights(run(tmp_path / f"{beta}", tiny, tiny_data, **more, ema=beta)) for beta in (0.0, 0.8))
    base = weights(tiny)
    moved = {name for name in base if not torch.equal(base[name], made[name])}
    assert moved == {name for name in base if not torch.equal(base[name], plain[name])} != set()
    assert all((made[name] - base[name]).norm() < (plain[name] - base[name]).norm() for name in moved)


def test_an_average_that_would_never_be_taken_is_refused(tmp_path: Path, tiny: Path, tiny_data: Path) -> None:
    with pytest.raises(ConfigError, match="nothing would be averaged"):
        run(tmp_path / "out", tiny, tiny_data, ema=0.9, ema_every=9)
