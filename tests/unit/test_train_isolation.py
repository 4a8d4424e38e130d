"""Documents in one block: the proof accepts what isolates, and refuses a model that leaks."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from langadapt.core.errors import DataError
from langadapt.core.types import Block
from langadapt.model.load import load_model
from langadapt.train.batches import collate
from langadapt.train.head import forward
from langadapt.train.isolation import prove_isolation
from langadapt.train.loop import Settings, _accumulate
from langadapt.train.schedule import Schedule
from langadapt.train.stages import make_course
from tests.fixtures.tiny import TINY_VOCABULARY, tiny_model

ROWS = TINY_VOCABULARY - 10


def proof(model: nn.Module, block_tokens: int = 32):  # type: ignore[no-untyped-def]
    return prove_isolation(model, vocabulary=ROWS, block_tokens=block_tokens, separator=1)


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2", "gemma2"])
def test_usual_families_isolate_by_positions(tmp_path: Path, arch: str) -> None:
    found = proof(load_model(tiny_model(tmp_path / "m", arch=arch)))
    assert found.layout == "positions" and found.largest_difference < 1e-5


def test_a_packed_block_gives_the_logits_of_each_document_alone(tiny: Path) -> None:
    """The claim of the proof, shown on the training path itself with a real block that begins inside a document."""
    model = load_model(tiny)
    tokens, starts = [7, 8, 9, 1, 20, 21, 22, 23, 1, 1, 30, 31], [3, 8, 9]
    packed = forward(model, collate([Block(tokens, starts, "", 0, 0)], "positions", torch.device("cpu")))[0]
    for first, last in [(0, 3), (3, 8), (8, 9), (9, 12)]:
        alone = model(input_ids=torch.tensor([tokens[first:last]])).logits[0]
        assert torch.allclose(packed[first:last], alone, atol=1e-5)


class Recurrent(nn.Module):
    """Causal, but deaf to positions and masks: each token sees the running mean of all tokens before it."""

    def __init__(self, *, causal: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(ROWS, 8)
        self.causal = causal

    def forward(self, input_ids: torch.Tensor, position_ids: Any = None, attention_mask: Any = None) -> Any:
        x = self.table(input_ids)
        if self.causal:
            x = x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[None, :, None]
        else:
            x = x + x.mean(1, keepdim=True)
        return SimpleNamespace(logits=x @ self.table.weight.T)


def test_a_model_that_ignores_masks_gets_one_document_a_row() -> None:
    found = proof(Recurrent())
    assert found.layout == "rows" and len(found.refused) == 2


def test_a_model_whose_outputs_depend_on_later_tokens_is_refused() -> None:
    with pytest.raises(DataError, match="cannot be kept apart") as caught:
        proof(Recurrent(causal=False))
    assert caught.value.exit_code == 3


class TooNarrow(nn.Module):
    """Isolates documents, but packed ones lose what they have alone: only the second assertion can see it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: torch.Tensor, position_ids: Any = None, attention_mask: Any = None) -> Any:
        logits = self.inner(input_ids=input_ids, position_ids=position_ids, attention_mask=attention_mask).logits
        packed = position_ids is not None and bool((position_ids[:, 1:] < position_ids[:, :-1]).any())
        return SimpleNamespace(logits=logits * 1.5 if packed else logits)


def test_a_mask_that_isolates_but_changes_the_logits_is_not_accepted(tiny: Path) -> None:
    found = proof(TooNarrow(load_model(tiny)))
    assert found.layout == "rows" and "positions: logits differ" in found.refused[0]


def test_bloom_falls_back_to_rows() -> None:
    """It has no position ids and builds its own bias from the mask: only one document a row is safe."""
    import transformers

    config = transformers.BloomConfig(vocab_size=ROWS, hidden_size=16, n_layer=2, n_head=2)
    with torch.random.fork_rng(devices=[]):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert proof(model).layout == "rows"


def test_micro_batches_add_up_to_the_mean_over_all_labels_of_the_step(tiny: Path) -> None:
    """The oracle reads one document at a time, sums -ln p of every label in plain Python, divides once at the end."""
    tokens = [
        [7, 8, 9, 1, 20, 21, 22, 23],
        [1, 5, 6, 7, 8, 9, 10, 11],
        [40, 41, 1, 50, 51, 1, 60, 61],
        [*range(70, 78)],
    ]
    starts: list[list[int]] = [[3], [0], [2, 5], []]
    blocks = [Block(ids, begins, "", 0, 0) for ids, begins in zip(tokens, starts, strict=True)]
    model = load_model(tiny)
    total, count = torch.zeros(()), 0
    for ids, begins in zip(tokens, starts, strict=True):
        edges = sorted({0, *begins, len(ids)})
        for first, last in pairwise(edges):
            spread = model(input_ids=torch.tensor([ids[first:last]])).logits[0].log_softmax(-1)
            for place in range(first, last):
                if place + 1 < len(ids):
                    total = total - spread[place - first, ids[place + 1]]
                    count += 1
    assert count == 4 * 7
    (total / count).backward()
    expected = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    for micro in (1, 2, 3, 4):
        model.zero_grad()
        course = make_course(Schedule(1e-3, 10, 1), ())
        settings = Settings(course, 4, 8, micro, "fp32", "positions", 0, 0.1, 5, 5)
        loss = _accumulate(model, blocks, 0, settings)
        assert loss == pytest.approx(float(total.detach()) / count, rel=1e-5)
        for name, value in model.named_parameters():
            assert value.grad is not None
            assert torch.allclose(value.grad, expected[name], atol=2e-6), (micro, name)
