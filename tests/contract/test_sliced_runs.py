"""Whole runs of `cpt` in which parts of tensors move: the files differ from the base's there and nowhere else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import langadapt
from langadapt.core import interrupt
from langadapt.core.artifact import Artifact, partial_folder
from langadapt.core.errors import DataError, Interrupted, LangadaptError
from langadapt.core.progress import Advanced, Event, Progress
from langadapt.core.types import Movable, Slice
from langadapt.model.anatomy import anatomy
from langadapt.model.load import load_model
from langadapt.model.tables import table_names
from langadapt.select.selection import selection_of
from langadapt.train.trainable import Trainable, make_trainable
from tests.fixtures.tiny import tiny_corpus, tiny_model

SHAPES: dict[str, dict[str, Any]] = {
    "tied llama stored in bf16": {"dtype": "bfloat16"},
    "tied gpt2, transposed layers with biases": {"arch": "gpt2"},
    "untied qwen2 with biases stored in fp16": {"arch": "qwen2", "tied": False, "dtype": "float16"},
    "phi, head with a bias": {"head_bias": True},
    "gemma2, scaled and capped": {"arch": "gemma2", "dtype": "bfloat16"},
}
COLUMNS: dict[str, Any] = {"strategy": "random", "strategy_options": {"unit": "columns"}}
NEURONS: dict[str, Any] = {
    "strategy": "random",
    "strategy_options": {"unit": "neurons", "ratio": 0.9, "tables": "freeze"},
}
# A run of this has momentum, decay and clipped gradients.
USUAL: dict[str, Any] = {"steps": 4, "batch_tokens": 64, "learning_rate": 5e-3, "weight_decay": 0.1, "clip": 0.1}


def train(folder: Path, base: Path, name: str = "out", **changes: Any) -> Artifact:
    data = folder / "data"
    if not data.exists():
        text = str(tiny_corpus(folder / "text", "hu", 20))
        langadapt.mix(out=data, model=base, corpora={"hu": text}, block_tokens=32, document_separator="<s>")
    return langadapt.cpt(out=folder / name, model=base, data=data, **(USUAL | changes))


def bits(value: torch.Tensor) -> torch.Tensor:
    return value.contiguous().view({4: torch.int32, 2: torch.int16}[value.element_size()])


def chosen(base: Path, seed: int = 0) -> dict[str, Slice]:
    """Half of the inputs of each matrix, most of the norms and biases, some rows of the tables."""
    model, random = load_model(base), np.random.default_rng(seed)

    def some(length: int, count: int) -> Any:
        return np.sort(random.choice(length, count, replace=False)).astype(np.int32)

    slices = {
        each.weight: Slice(each.input_axis, some(each.inputs, each.inputs // 2)) for each in anatomy(model).matrices
    }
    tables = table_names(model).among(dict(model.named_parameters()))
    rows = some(len(model.get_input_embeddings().weight), 30)
    for name, value in model.named_parameters():
        if name in tables:
            slices[name] = Slice(0, rows)
        elif value.ndim == 1:
            slices[name] = Slice(0, some(len(value), len(value) * 3 // 4))
    return slices


def let_move(monkeypatch: pytest.MonkeyPatch, movable: Movable) -> None:
    """Whatever the strategy is called, this is what it chooses."""

    def select(look: Any, *strategy: Any) -> tuple[Any, Movable]:
        return selection_of(movable, look.parameters, method="random", options={}, found={}), movable

    monkeypatch.setattr("langadapt.steps._cpt_choice.select_with", select)


def stored(name: str, tensors: dict[str, torch.Tensor]) -> str:
    return name if name in tensors else name.partition(".")[2]


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_but_the_chosen_places_differs_in_the_files(
    tmp_path: Path, shape: str, compute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_model(tmp_path / "base", **SHAPES[shape])
    slices = chosen(base)
    let_move(monkeypatch, Movable(frozenset(), slices))
    made = train(tmp_path, base, compute=compute)
    before, after = load_file(base / "model.safetensors"), load_file(made.path / "model.safetensors")
    free = {stored(name, before): part for name, part in slices.items()}
    moved = 0
    for name, value in before.items():
        differ = bits(after[name]) != bits(value)
        if name in free:
            moved += int(differ.sum())
            differ.index_fill_(free[name].axis, torch.from_numpy(free[name].ids).long(), False)
        assert not differ.any(), name
    shield = json.loads((made.path / "shield.json").read_text())
    assert shield["total"] == made.facts["shield"] and shield["total"]["broken"] == 0
    assert shield["total"]["moved"] == moved > 0.8 * shield["total"]["may_move"]
    assert made.facts["trained_parameters"] == shield["total"]["may_move"]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_folder_is_the_model_that_was_trained(tmp_path: Path, shape: str) -> None:
    base = tiny_model(tmp_path / "base", **SHAPES[shape])
    subject = make_trainable(load_model(base), Movable(frozenset(), chosen(base)), seed=0, folder=base, compute="fp32")
    with torch.no_grad():
        for part in subject.parts.sliced:
            part.moving.mul_(1.5)
            part.round(
                load_file(base / "model.safetensors")[stored(part.name, load_file(base / "model.safetensors"))].dtype
            )
    ids = torch.tensor([[5, 300, 17, 42, 3]])
    expected = subject.model.eval()(ids).logits.detach()
    out = tmp_path / "out"
    out.mkdir()
    subject.write(base, out, [], progress=Progress())
    found = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()(ids).logits.detach()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("options", [COLUMNS, NEURONS], ids=["columns", "neurons"])
def test_stopped_and_gone_on_with_it_is_the_same_folder(tmp_path: Path, options: dict[str, Any]) -> None:
    base = tiny_model(tmp_path / "base", width=64, dtype="bfloat16")
    whole = train(tmp_path, base, "whole", compute="bf16", **options)

    def stop(event: Event) -> None:
        if isinstance(event, Advanced) and event.task == "training" and event.done == 2:
            interrupt._seen.append(15)

    try:
        with pytest.raises(Interrupted):
            train(tmp_path, base, "again", listener=stop, compute="bf16", checkpoint_steps=1, **options)
    finally:
        interrupt._seen.clear()
    kept = sorted((partial_folder(tmp_path / "again") / "checkpoints").iterdir())[-1]
    tensors = load_file(kept / "trained-00000.safetensors")
    # weight and two moments of what moves, and of a table that is trained whole
    held = 4 * 64 if options is COLUMNS else 0
    assert sum(each.numel() * 4 for each in tensors.values()) == 12 * (whole.facts["trained_parameters"] + held)
    again = train(tmp_path, base, "again", compute="bf16", checkpoint_steps=1, **options)
    for name in ("model.safetensors", "metrics.jsonl", "probes.json", "shield.json"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_other_ways_to_compute_it_shield_as_well(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", width=64)
    plain = train(tmp_path, base, "plain", compute="fp32", **COLUMNS)
    again = train(tmp_path, base, "recomputed", compute="fp32", gradient_checkpointing="on", **COLUMNS)
    assert (again.path / "model.safetensors").read_bytes() == (plain.path / "model.safetensors").read_bytes()
    for name, more in {"8bit": {"moments": "8bit"}, "narrow": {"moments": "8bit", "weights": "bf16"},
                       "ema": {"ema": 0.5, "ema_every": 2}}.items():  # fmt: skip
        made = train(tmp_path, base, name, **COLUMNS, **more)
        assert made.facts["shield"] == plain.facts["shield"] | {"moved": made.facts["shield"]["moved"]}
        assert made.facts["shield"]["moved"] > 0.9 * plain.facts["shield"]["moved"], name


def test_a_branch_of_another_selection_is_refused(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    course = {"schedule": "constant", "warmup_steps": 1}
    train(tmp_path, base, "one", keep_branch=True, compute="fp32", **course, **COLUMNS)
    again = {"branch_from": str(tmp_path / "one"), "steps": 6, "compute": "fp32"}
    train(tmp_path, base, "same", **course, **COLUMNS, **again)
    with pytest.raises(DataError, match="other rows, columns or values may move"):
        train(tmp_path, base, "other", seed=1, **course, **COLUMNS, **again)


def test_an_adapter_in_a_shield_leaves_the_base_where_it_may_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also -0.0, which adding nothing would make 0.0."""
    base = tiny_model(tmp_path / "base", dtype="bfloat16")
    tensors = load_file(base / "model.safetensors")
    for value in tensors.values():
        if value.ndim == 2:
            value[::3, ::2] = -0.0
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    slices = {name: part for name, part in chosen(base).items() if "norm" not in name}
    adapter = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
    movable = Movable(frozenset(), slices, adapter=adapter, keep_adapter=True)
    let_move(monkeypatch, movable)
    made = train(tmp_path, base, strategy="lora")
    assert made.facts["shield"]["broken"] == 0
    assert made.facts["shield"]["moved"] > 0.7 * made.facts["shield"]["may_move"]
    assert made.facts["shield"]["may_move"] == sum(
        len(part.ids) * (tensors[name].numel() // tensors[name].shape[part.axis]) for name, part in slices.items()
    )
    assert (made.path / "adapter" / "adapter_model.safetensors").is_file()


def test_a_shield_that_did_not_hold_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_model(tmp_path / "base")
    real = Trainable.write

    def write(self: Trainable, base: Path, out: Path, *more: Any, **named: Any) -> Any:
        done = real(self, base, out, *more, **named)
        tensors = load_file(out / "model.safetensors")
        part = next(each for each in self.parts.sliced if each.name.endswith("up_proj.weight"))
        still = next(at for at in range(32) if at not in part.slice.ids)
        bits(tensors[part.name])[0, still] ^= 1
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        return done

    monkeypatch.setattr(Trainable, "write", write)
    with pytest.raises(LangadaptError, match=r"1 shielded values of 1 tensors.*up_proj") as caught:
        train(tmp_path, base, compute="fp32", **COLUMNS)
    assert caught.value.exit_code == 1 and not (tmp_path / "out").exists()
