"""Token distillation against a slow oracle: two plain forward passes, one place after the other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from langadapt.core.errors import ConfigError, DataError
from langadapt.core.types import Block, Snippet
from langadapt.model.load import load_model
from langadapt.train.distill import Distiller, Goal
from langadapt.train.head import find_head
from langadapt.train.new_rows import NewRows
from langadapt.train.optimiser import AdamSettings, Optimiser
from langadapt.train.refine import make_distiller
from tests.fixtures.tiny import tiny_model

NEW = (300, 305, 340)


def array(*ids: int) -> Any:
    return np.array(ids, dtype=np.int32)


# New tokens stand for [40, 41], [42, 43, 44] and [45]; places are those that end at the same byte.
SNIPPETS = (
    Snippet(array(20, 300, 21), array(20, 40, 41, 21), array(1, 2), array(2, 3)),
    Snippet(array(305, 340, 22, 23, 300), array(42, 43, 44, 45, 22, 23, 40, 41), array(0, 1, 2, 3, 4),
            array(2, 3, 4, 5, 7)),
)  # fmt: skip


def oracle(folder: Path, layer: int | None) -> tuple[float, dict[int, torch.Tensor]]:
    """Mean squared difference over all places and dimensions, and its gradient by row of the input table."""
    model = load_model(folder)
    total, count = torch.zeros(()), 0
    for snippet in SNIPPETS:
        states = []
        for ids in (snippet.new, snippet.old):
            found = model(input_ids=torch.tensor([[1, *ids.tolist()]]), output_hidden_states=True).hidden_states
            states.append(found[-1 if layer is None else layer][0])
        for new, old in zip(snippet.new_at, snippet.old_at, strict=True):
            for dimension in range(states[0].shape[1]):
                total = total + (states[0][1 + new, dimension] - states[1][1 + old, dimension].detach()) ** 2
                count += 1
    (total / count).backward()
    gradient = model.get_input_embeddings().weight.grad
    return float(total.detach()) / count, {id: gradient[id] for id in NEW}


def distiller(folder: Path, **goal: Any) -> Distiller:
    return make_distiller(folder, NEW, Goal(prefix=1, old_prefix=1, **goal), torch.device("cpu"))


def loss_of(made: Distiller, micro: int = 2) -> torch.Tensor:
    """As the loop adds it up."""
    objective = made.objective(lambda at: SNIPPETS[at])
    blocks = [Block(SNIPPETS[at].new.tolist(), (), "", 0, at) for at in range(2)]
    places = objective.count(blocks)
    losses = [objective.loss(blocks[first : first + micro], places) for first in range(0, 2, micro)]
    return torch.stack(losses).sum()


@pytest.mark.parametrize("layer", [None, 1])
@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma2", "opt"])
def test_loss_and_gradient_equal_the_oracle(tmp_path: Path, arch: str, layer: int | None) -> None:
    # `gemma2` scales the rows that it looks up, `opt` projects them
    folder = tiny_model(tmp_path / "m", arch=arch)
    expected, gradients = oracle(folder, layer)
    for micro in (1, 2):
        made = distiller(folder, layer=layer)
        loss = loss_of(made, micro)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
        assert made.table.rows.grad is not None
        for row, id in enumerate(NEW):
            assert torch.allclose(made.table.rows.grad[row], gradients[id], rtol=1e-4, atol=1e-7), (micro, id)


def test_nothing_but_the_new_rows_has_a_gradient_or_a_moment(tiny: Path) -> None:
    made = distiller(tiny)
    before = {name: value.clone() for name, value in made.named_parameters()}
    optimiser = Optimiser(made, set(made.moving), AdamSettings(weight_decay=0.0), old_rows=None)
    loss_of(made).backward()
    assert [name for name, value in made.named_parameters() if value.grad is not None] == ["table.rows"]
    optimiser.step(1e-2, optimiser.gradient_norm())
    assert optimiser.checkpoint_bytes() == 3 * 32 * 12
    moved = [name for name, value in made.named_parameters() if not torch.equal(value, before[name])]
    assert moved == ["table.rows"]


def test_a_row_that_no_snippet_of_a_step_holds_does_not_begin_to_move(tiny: Path) -> None:
    made = make_distiller(tiny, (*NEW, 350), Goal(1, 1), torch.device("cpu"))
    optimiser = Optimiser(made, set(made.moving), AdamSettings(weight_decay=0.0), old_rows=None)
    before = made.table.rows.detach().clone()
    for _ in range(3):
        loss_of(made).backward()
        optimiser.step(1e-2, optimiser.gradient_norm())
    assert torch.equal(made.table.rows[3], before[3])
    assert (made.table.rows[:3] != before[:3]).any(1).all()


@pytest.mark.parametrize("arch", ["llama", "gemma2"])
def test_the_table_gives_what_the_model_gave_before_anything_moved(tmp_path: Path, arch: str) -> None:
    folder = tiny_model(tmp_path / "m", arch=arch, dtype="bfloat16")
    ids = torch.tensor([[1, 300, 7, 340, 305, 8]])
    expected = load_model(folder).base_model(input_ids=ids).last_hidden_state
    made = distiller(folder)
    kept = {value.dtype for name, value in made.model.named_parameters() if "proj" in name}
    assert kept == {torch.bfloat16}, "what is frozen stays in the dtype of its file"
    assert torch.allclose(made.model.base_model(input_ids=ids).last_hidden_state, expected, atol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("arch", ["llama", "gemma2"])
def test_the_next_token_of_the_head_equals_the_oracle(tmp_path: Path, arch: str, tied: bool) -> None:
    """Plain cross entropy over all logits; the hidden states are numbers, so only the head's rows learn."""
    folder = tiny_model(tmp_path / "m", arch=arch, tied=tied)
    model = load_model(folder)
    weight = model.get_output_embeddings().weight.detach().clone().requires_grad_(True)
    total, labels, cap = torch.zeros(()), 0, getattr(model.config, "final_logit_softcapping", None)
    for snippet in SNIPPETS:
        ids = [1, *snippet.new.tolist()]
        hidden = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0].detach()
        for place, token in enumerate(ids[1:]):
            logits = weight @ hidden[place]
            logits = logits if cap is None else cap * torch.tanh(logits / cap)
            total, labels = total - logits.log_softmax(0)[token], labels + 1
    (0.5 * total / 7).backward()  # 7 places
    only, both = distiller(folder), distiller(folder, next_token=0.5)
    assert (both.head_rows is None) == tied
    first, second = loss_of(only), loss_of(both)
    assert float((second - first).detach()) == pytest.approx(0.5 * float(total.detach()) / 7, rel=1e-4)
    first.backward(), second.backward()
    got = both.table.rows.grad - only.table.rows.grad if both.head_rows is None else both.head_rows.grad
    assert torch.allclose(got, weight.grad[list(NEW)], rtol=1e-3, atol=1e-6)
    if not tied:
        assert torch.equal(both.table.rows.grad, only.table.rows.grad)
    measured = both.measure(SNIPPETS, 1)
    assert measured["nats"] == pytest.approx(float(total.detach()), rel=1e-4) and measured["labels"] == labels


def test_a_teacher_with_a_table_of_its_own(tiny: Path) -> None:
    """The teacher's ids are rows of its table: with the same rows in another order nothing changes."""
    expected, gradients = oracle(tiny, None)
    table = load_model(tiny).get_input_embeddings().weight.detach().flip(0)
    turned = [
        Snippet(each.new, (table.shape[0] - 1 - each.old).astype(np.int32), each.new_at, each.old_at)
        for each in SNIPPETS
    ]
    made = make_distiller(tiny, NEW, Goal(1, table.shape[0] - 2, old_table=table), torch.device("cpu"))
    found = made.compare(turned)
    assert float(found.squares.detach()) / found.places == pytest.approx(expected, rel=1e-5)
    (found.squares / found.places).backward()
    assert made.table.rows.grad is not None
    assert torch.allclose(made.table.rows.grad[0], gradients[NEW[0]], rtol=1e-4, atol=1e-7)


def test_rows_stand_still_where_the_head_reads_most(tiny: Path) -> None:
    """The oracle: eigenvectors of the second moments of the last states, by the model itself."""
    made, model = distiller(tiny), load_model(tiny)
    with torch.no_grad():
        read = [model.base_model(input_ids=torch.tensor([[1, *each.new.tolist()]])) for each in SNIPPETS]
    states = torch.cat([found.last_hidden_state[0, 1:] for found in read]).double()
    values, vectors = torch.linalg.eigh(states.T @ states)
    share = made.hold_still(SNIPPETS, 1, 5)
    assert share == pytest.approx(float(values[-5:].sum() / values.sum()), rel=1e-4)
    before = made.table.moved().detach().clone()
    assert torch.equal(before, made.table.rows), "nothing has moved, so nothing differs"
    with torch.no_grad():
        made.table.rows.add_(torch.linspace(-1, 1, 3 * 32).view(3, 32))
    with torch.autocast("cpu", torch.bfloat16):
        change = made.table.moved().detach() - before
    plain = made.table.rows.detach() - before
    expected = plain - (plain @ vectors[:, -5:].float()) @ vectors[:, -5:].float().T
    assert torch.allclose(change, expected, atol=1e-4) and float(change.norm()) > 1
    assert float((change @ vectors[:, -5:].float()).abs().max()) < 1e-4
    loss_of(made).backward()
    assert made.table.rows.grad is not None
    assert float((made.table.rows.grad @ vectors[:, -5:].float()).abs().max()) < 1e-5


def test_dropout_is_off_while_rows_move(tmp_path: Path) -> None:
    made = distiller(tiny_model(tmp_path / "m", arch="gpt2"))
    made.train()
    assert not any(module.training for module in made.modules())


def test_what_cannot_be_refined_is_refused(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="2 layers, and no number 3"):
        distiller(tiny, layer=3)
    with pytest.raises(ConfigError, match="no plain product"):
        Distiller(load_model(tiny), NEW, Goal(1, 1, next_token=1.0), None)

    class Strange(torch.nn.Embedding):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) + 1

    with pytest.raises(DataError, match="more than look up and scale"):
        NewRows(Strange(8, 4), torch.tensor([6, 7]))
    assert find_head(load_model(tiny)) is not None
