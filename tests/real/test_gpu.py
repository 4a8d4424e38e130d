"""What only a GPU can show: the same bytes twice and after a kill, and figures that are those of the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch

import langadapt
from langadapt.core.io import read_json_object
from tests.faults.test_train_faults import Case, files_of, finish, kill_at_random
from tests.fixtures import refined
from tests.fixtures.tiny import tiny_corpus, tiny_model

pytestmark = [pytest.mark.real, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

KINDS: dict[str, dict[str, Any]] = {
    "full in bf16": {"compute": "bf16"},
    "full in fp32": {"compute": "fp32"},
    "full, activations computed again": {"gradient_checkpointing": "on"},
    "lora": {"strategy": "lora", "strategy_options": {"rank": 4}},
    "columns": {"strategy": "random", "strategy_options": {"unit": "columns"}},
    "neurons": {"strategy": "random", "strategy_options": {"unit": "neurons", "ratio": 0.9, "tables": "freeze"}},
    "hft": {"strategy": "hft"},
    "an average": {"ema": 0.9},
    "measures first": {"strategy": "ssu", "calibration_tokens": 2000},
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model and batches that are large enough for kernels that split their sums."""
    folder = tmp_path_factory.mktemp("gpu")
    model = tiny_model(folder / "model", width=256, layers=4)
    corpora = {lang: str(tiny_corpus(folder / "text", lang, 400)) for lang in ("hu", "en")}
    data = langadapt.mix(
        out=folder / "data", model=model, corpora=corpora, replay={"en": 0.25}, block_tokens=128,
        document_separator="<|endoftext|>",
    )  # fmt: skip
    return {
        "model": str(model), "data": str(data.path), "steps": 8, "batch_tokens": 4096, "micro_batch_blocks": 16,
        "learning_rate": 1e-3, "checkpoint_steps": 3, "probe_every": 4, "device": "cuda",
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_ends_in_the_bytes_of_one_that_was_not(tmp_path: Path, given: dict[str, Any], kind: str) -> None:
    config = given | KINDS[kind]
    made = langadapt.cpt(out=tmp_path / "reference", **config)
    held = read_json_object(made.path / "run.json")["peak_device_memory_bytes"]
    assert held > 0
    case = Case(config, files_of(made.path))
    kill_at_random(tmp_path, case, 3)
    finish(tmp_path, case)


def test_statistics_are_the_same_twice_and_close_to_those_of_the_cpu(tmp_path: Path, given: dict[str, Any]) -> None:
    from safetensors.torch import load_file

    text = {"hu": str(tiny_corpus(tmp_path / "text", "hu", 60))}
    found = {
        name: langadapt.calibrate(
            out=tmp_path / name, model=given["model"], corpora=text, device=device, compute="fp32", window_tokens=128
        )
        for name, device in {"one": "cuda", "two": "cuda", "cpu": "cpu"}.items()
    }
    assert found["one"].digest == found["two"].digest
    for path in sorted(found["cpu"].path.rglob("*.safetensors")):
        here, there = load_file(path), load_file(found["one"].path / path.relative_to(found["cpu"].path))
        for name, value in here.items():
            # signs of numbers next to zero may differ
            allowed = 2.0 if "positive" in name else 1e-3 * float(value.double().abs().max())
            assert (there[name].double() - value.double()).abs().max() <= allowed, name


def test_a_gpu_scores_what_the_cpu_scores(tmp_path: Path, given: dict[str, Any]) -> None:
    corpus = langadapt.prepare(
        out=tmp_path / "hu", text=[str(tiny_corpus(tmp_path / "text", "hu", 60))], lang="hu", min_lang_probability=0.0,
        held_out_share=0.2,
    )  # fmt: skip
    text, bits = {"hu": str(corpus.path)}, {}
    for device in ("cuda", "cpu"):
        made = langadapt.evaluate(
            out=tmp_path / device, base=given["model"], adapted=given["model"], sets=text, device=device,
            compute="fp32", segment_bytes=100, context_bytes=200,
        )  # fmt: skip
        found = read_json_object(made.path / "summary.json")["languages"]["hu"]["sets"]["hu"]
        bits[device] = found["bits_per_byte"]["base"]
    assert bits["cuda"] == pytest.approx(bits["cpu"], abs=1e-4)


def test_rows_are_refined_to_the_same_bytes_with_a_teacher_and_without(tmp_path: Path) -> None:
    place = refined.place(tmp_path / "place")
    few = place.values(steps=6, device="cuda", compute="bf16")
    made = [
        langadapt.refine_embeddings(out=tmp_path / name, **few, **more).path / "model.safetensors"
        for name, more in {"one": {}, "two": {}, "three": {"teacher": str(place.base)}}.items()
    ]
    assert len({path.read_bytes() for path in made}) == 1


def test_torch_is_left_as_it_was(given: dict[str, Any], tmp_path: Path) -> None:
    langadapt.cpt(out=tmp_path / "out", **given | {"steps": 1})
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
