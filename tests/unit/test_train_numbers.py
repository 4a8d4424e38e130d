"""Schedule, budget, loss and optimiser, each against a slow and obvious version of itself."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.types import Block
from langadapt.train.batches import collate, count_labels
from langadapt.train.budget import default_learning_rate, plan_budget
from langadapt.train.checkpoint import _write_file
from langadapt.train.loss import IGNORED, cross_entropy
from langadapt.train.optimiser import AdamSettings, Optimiser
from langadapt.train.schedule import Schedule


def test_schedule_warms_up_linearly_and_ends_at_the_final_share() -> None:
    schedule = Schedule(peak=2.0, steps=101, warmup_steps=10, final_share=0.1)
    assert [schedule.at(step) for step in range(10)] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert schedule.at(10) == pytest.approx(2.0)
    assert schedule.at(55) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.5))))
    assert schedule.at(100) == pytest.approx(0.2)
    falling = [schedule.at(step) for step in range(10, 101)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 1), (1, 0), (2, 2), (3, 2)])
def test_schedule_of_a_very_short_run_is_finite_and_positive(steps: int, warmup: int) -> None:
    schedule = Schedule(peak=1.0, steps=steps, warmup_steps=warmup)
    assert all(0 < schedule.at(step) <= 1 for step in range(steps))


@pytest.mark.parametrize(
    ("parameters", "rate"),
    [(1000, 3e-4), (135_000_000, 3e-4), (1_000_000_000, 1e-4), (7 * 10**9, 5e-5), (10**12, 5e-5)],
)
def test_default_learning_rate_at_the_known_sizes(parameters: int, rate: float) -> None:
    assert default_learning_rate(parameters) == pytest.approx(rate)


def test_default_learning_rate_lies_between() -> None:
    halfway = math.exp((math.log(135e6) + math.log(1e9)) / 2)
    assert default_learning_rate(round(halfway)) == pytest.approx(math.sqrt(3e-4 * 1e-4), rel=0.03)  # two digits


def sources(tokens: int, share: float = 0.8) -> dict[str, dict[str, object]]:
    return {
        "hu": {"role": "target", "tokens": tokens, "share_tokens": share},
        "en": {"role": "replay", "tokens": 50_000, "share_tokens": 1 - share},
    }


def budget(tokens_there: int = 1_000_000, **wishes: object):  # type: ignore[no-untyped-def]
    given = {
        "parameters": 135_000_000, "block_tokens": 256, "tokens": None, "steps": None, "batch_tokens": None,
        "warmup_steps": None, "max_epochs": 4.0,
    } | wishes  # fmt: skip
    return plan_budget(sources(tokens_there), **given)  # type: ignore[arg-type]


def test_by_default_the_target_is_read_once() -> None:
    plan = budget()
    assert plan.epochs["hu"] == pytest.approx(1.0, abs=0.01)
    assert plan.batch_tokens == 2048 and plan.steps == 610 and plan.tokens == plan.steps * plan.batch_tokens


def test_a_small_corpus_is_repeated_until_there_are_enough_steps_but_not_more_than_allowed() -> None:
    assert budget(20_000).steps == 60
    few = budget(10_000)
    assert few.steps == 48 and few.epochs["hu"] == pytest.approx(4.0, abs=0.1)


def test_the_batch_grows_with_the_budget_up_to_what_suits_the_size_of_the_model() -> None:
    assert budget(10**9).batch_tokens == 65_536
    assert budget(10**9, parameters=10**9).batch_tokens == 262_144


def test_tokens_and_steps_fix_the_budget() -> None:
    assert budget(tokens=97_280).steps == 95
    assert budget(steps=95).tokens == 95 * 1024
    both = budget(steps=50, tokens=102_400)
    assert (both.steps, both.batch_tokens) == (50, 2048)
    assert budget(steps=95).warmup_steps == 5


def test_a_budget_beyond_the_epochs_names_the_largest_one() -> None:
    with pytest.raises(ConfigError) as caught:
        budget(tokens=6_000_000)
    assert "4.8 times" in caught.value.message
    largest = int(str(caught.value.hint).split("--tokens ")[1].split("`")[0])
    assert budget(tokens=largest, batch_tokens=8192).epochs["hu"] <= 4.0
    with pytest.raises(ConfigError):
        budget(tokens=largest + 2 * 8192, batch_tokens=8192)


@pytest.mark.parametrize("wishes", [{"max_epochs": 17}, {"tokens": 0}, {"warmup_steps": 100, "steps": 10},
                                    {"steps": 10, "tokens": 99_999, "batch_tokens": 1024}])  # fmt: skip
def test_wishes_that_contradict_each_other_are_refused(wishes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        budget(**wishes)


def test_a_corpus_too_small_for_one_step_is_refused() -> None:
    with pytest.raises(DataError, match="too few tokens"):
        budget(20, steps=5)


def test_the_loss_is_the_sum_over_labels_divided_by_the_given_count() -> None:
    random = torch.Generator().manual_seed(1)
    logits = (torch.randn(2, 7, 11, generator=random) * 4).requires_grad_()
    labels = torch.randint(11, (2, 7), generator=random)
    labels[0, 3] = labels[1, 6] = IGNORED
    expected = 0.0
    for row in range(2):
        for place in range(7):
            if labels[row, place] != IGNORED:
                values = logits[row, place].detach().double()
                expected += float(values.exp().sum().log() - values[labels[row, place]])
    loss = cross_entropy(logits, labels, 23)
    assert float(loss.detach()) == pytest.approx(expected / 23, rel=1e-6)
    loss.backward()
    again = logits.detach().clone().requires_grad_()
    reference = nn.functional.cross_entropy(again.view(-1, 11), labels.view(-1), reduction="sum", ignore_index=IGNORED)
    (reference / 23).backward()
    assert again.grad is not None and logits.grad is not None
    assert torch.allclose(logits.grad, again.grad, atol=1e-7)
    assert torch.all(logits.grad[0, 3] == 0) and torch.all(logits.grad[1, 6] == 0)


def test_the_loss_in_pieces_is_the_loss_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = torch.randn(3, 5, 7), torch.randint(7, (3, 5))
    at_once = cross_entropy(logits.clone().requires_grad_(), labels, 15)
    monkeypatch.setattr("langadapt.train.loss.PIECE_NUMBERS", 14)
    assert torch.allclose(at_once, cross_entropy(logits.requires_grad_(), labels, 15), rtol=1e-6)


def block(tokens: list[int], starts: list[int]) -> Block:
    return Block(tokens, starts, "hu", 0, 0)


@pytest.mark.parametrize("layout", ["positions", "4d", "rows"])
def test_every_layout_has_the_same_labels_and_the_count_is_exact(layout) -> None:  # type: ignore[no-untyped-def]
    blocks = [block([1, 5, 6, 1, 7, 8, 9, 1], [0, 3, 7]), block([4, 4, 1, 2, 3, 3, 3, 3], [2])]
    batch = collate(blocks, layout, torch.device("cpu"))
    labels = batch.labels_BL[batch.labels_BL != IGNORED]
    assert sorted(labels.tolist()) == sorted([5, 6, 1, 7, 8, 9, 1, 4, 1, 2, 3, 3, 3, 3])
    assert len(labels) == count_labels(blocks)
    ids = batch.inputs["input_ids"]
    followed = [(int(ids[place]), int(batch.labels_BL[place]))
                for place in map(tuple, (batch.labels_BL != IGNORED).nonzero().tolist())]  # fmt: skip
    expected = [pair for one in blocks for pair in zip(one.tokens, one.tokens[1:], strict=False)]
    assert sorted(followed) == sorted(expected), "a label is the token after its input"
    if layout != "rows":
        assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 3, 0], [0, 1, 0, 1, 2, 3, 4, 5]]


class Little(nn.Module):
    """A table, a matrix, a norm and a head of its own."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 4)
        self.matrix = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 6, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table

    def get_output_embeddings(self) -> nn.Linear:
        return self.head


@pytest.mark.parametrize("tied", [True, False])
def test_optimiser_against_adamw_written_out_number_by_number(tied: bool) -> None:
    """AdamW in plain Python (Loshchilov & Hutter 2019, algorithm 2), clipping and the factor of new rows included."""
    random = torch.Generator().manual_seed(3)
    model = Little(tied)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    settings = AdamSettings(weight_decay=0.1, betas=(0.9, 0.95), clip=1.0, new_rows_factor=5.0)
    optimiser = Optimiser(model, {name for name, _ in model.named_parameters()}, settings, old_rows=4)
    tables = {"table.weight", "head.weight"}
    weights = {name: value.detach().double().flatten().tolist() for name, value in model.named_parameters()}
    means = {name: [0.0] * len(values) for name, values in weights.items()}
    squares = {name: [0.0] * len(values) for name, values in weights.items()}
    for step, rate in enumerate([1e-2, 2e-2, 5e-3, 1e-2], 1):
        gradients = {name: torch.randn(value.shape, generator=random) for name, value in model.named_parameters()}
        for name, value in model.named_parameters():
            value.grad = gradients[name].clone()
        norm = optimiser.gradient_norm()
        plain_norm = math.sqrt(sum(x * x for value in gradients.values() for x in value.double().flatten().tolist()))
        assert float(norm) == pytest.approx(plain_norm, rel=1e-6)
        optimiser.step(rate, norm)
        shrink = min(1.0, 1.0 / (plain_norm + 1e-6))
        for name in weights:
            decay = 0.1 if name == "matrix.weight" else 0.0
            for place, gradient in enumerate(gradients[name].double().flatten().tolist()):
                g = gradient * shrink
                means[name][place] = 0.9 * means[name][place] + 0.1 * g
                squares[name][place] = 0.95 * squares[name][place] + 0.05 * g * g
                mean, square = means[name][place] / (1 - 0.9**step), squares[name][place] / (1 - 0.95**step)
                own = rate * 5.0 if name in tables and place // 4 >= 4 else rate
                old = weights[name][place]
                weights[name][place] = old - own * decay * old - own * mean / (math.sqrt(square) + 1e-8)
    for name, value in model.named_parameters():
        assert value.detach().flatten().tolist() == pytest.approx(weights[name], abs=2e-6), name


def test_what_is_not_movable_gets_no_gradient_and_does_not_move() -> None:
    model = Little(tied=False)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimiser = Optimiser(model, {"table.weight"}, AdamSettings(), old_rows=None)
    for _ in range(3):
        out = model.head(model.norm(model.matrix(model.table(torch.tensor([1, 2])))))
        out.square().sum().backward()
        assert model.matrix.weight.grad is None
        optimiser.step(0.1, optimiser.gradient_norm())
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]) == (name != "table.weight"), name


def test_optimiser_state_survives_a_round_trip_bit_for_bit() -> None:
    def run(steps: list[int], optimiser: Optimiser, model: Little) -> None:
        for step in steps:
            random = torch.Generator().manual_seed(step)
            for value in model.parameters():
                value.grad = torch.randn(value.shape, generator=random)
            optimiser.step(0.01, optimiser.gradient_norm())

    names = {name for name, _ in Little(True).named_parameters()}
    first = Little(True)
    start = {key: value.clone() for key, value in first.state_dict().items()}
    one = Optimiser(first, names, AdamSettings(new_rows_factor=5.0), old_rows=4)
    run([1, 2], one, first)
    saved = {name: tensor.clone() for name, tensor in one.tensors()}
    run([3, 4], one, first)
    second = Little(True)
    second.load_state_dict(start)
    two = Optimiser(second, names, AdamSettings(new_rows_factor=5.0), old_rows=4)
    assert set(saved) == two.expect(one.moved() | dict.fromkeys(names, 2))
    for name, tensor in saved.items():
        two.put_back(name, tensor)
    run([3, 4], two, second)
    for (name, value), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(value, other), name


def test_checkpoint_files_are_what_the_safetensors_library_reads(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 5), "a/é": torch.randn(7), "scalar": torch.tensor(2.5), "none": torch.zeros(0, 4)}
    _write_file(tmp_path / "x.safetensors", tensors)
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
