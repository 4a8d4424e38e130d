"""Every way of training beside the usual one: killed anywhere it ends in the same bytes, and it does what it says."""

import json
import resource
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from langadapt.core import interrupt
from langadapt.core.artifact import partial_folder
from langadapt.core.errors import ConfigError, LangadaptError, ResourceError
from tests.faults.test_train_faults import (
    FORK,
    Case,
    files_of,
    kill_at_random,
    make_case,
    run_here,
    stop_after,
    stopped,
    target,
)

STAGES = [{"share": 0.4, "strategy": "embeddings", "learning_rate_factor": 5.0}, {"strategy": "full"}]
MODES: dict[str, dict[str, Any]] = {
    "wsd-branch-recompute": {"schedule": "wsd", "keep_branch": True, "gradient_checkpointing": "on"},
    "stages": {"stages": STAGES},
    "ema-icl": {"ema": 0.7, "ema_every": 3, "icl_probe": True},
    "ema-live-lowbit": {"ema": 0.7, "ema_every": 3, "ema_mode": "live", "moments": "8bit", "weights": "bf16"},
}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, medium: Path) -> Case:
    return make_case(tmp_path_factory.mktemp("usual"), medium)


def weights(place: Path) -> dict[str, torch.Tensor]:
    return load_file(place / "model.safetensors")


def steps_of(place: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


@pytest.mark.parametrize("mode", MODES)
def test_kill_at_random_moments_in_every_mode(tmp_path: Path, medium: Path, mode: str) -> None:
    kill_at_random(tmp_path, make_case(tmp_path, medium, **MODES[mode]), 3)


def test_recomputed_activations_change_no_bit_although_there_is_dropout(
    tmp_path: Path, case: Case, notes: list[str]
) -> None:
    run_here(tmp_path / "out", case, notes, gradient_checkpointing="on")
    assert any("computed again" in note for note in notes)
    assert files_of(tmp_path / "out") == case.reference
    assert not any("computed again" in note for note in _notes_of_auto(tmp_path, case))


def _notes_of_auto(folder: Path, case: Case) -> list[str]:
    notes: list[str] = []
    run_here(folder / "auto", case, notes)
    return notes


def test_activations_are_recomputed_by_itself_when_memory_would_not_do(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langadapt.train.faster.free_memory", lambda device: 1000)
    run_here(tmp_path / "out", case, notes)
    assert any("computed again" in note for note in notes)
    assert files_of(tmp_path / "out") == case.reference


@pytest.mark.parametrize(
    ("compute", "units", "told"), [("bf16", set[str](), 1), ("bf16", {"amx_bf16"}, 0), ("fp32", set[str](), 0)]
)
def test_bf16_that_the_processor_emulates_is_told(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch,
    compute: str, units: set[str], told: int,
) -> None:  # fmt: skip
    monkeypatch.setattr("langadapt.model.compute.cpu_features", lambda path: frozenset(units))
    run_here(tmp_path / "out", case, notes, compute=compute, steps=2)
    assert sum("emulates bf16" in note for note in notes) == told


def test_a_pinned_checkpoint_that_is_damaged_costs_time_but_no_byte(
    tmp_path: Path, medium: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(tmp_path, medium, schedule="wsd", keep_branch=True)
    stopped(tmp_path / "out", case, notes, monkeypatch, 22)
    kept = partial_folder(tmp_path / "out") / "checkpoints"
    assert sorted(path.name for path in kept.glob("step-*[0-9]")) == ["step-000019", "step-000020", "step-000022"]
    file = next((kept / "step-000019").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-3] + b"abc")
    run_here(tmp_path / "out", case, notes)
    assert any("that of step 19 is needed too" in note for note in notes)
    assert files_of(tmp_path / "out") == case.reference


def test_in_a_stage_only_its_weights_move_and_the_moments_of_the_others_stand_still(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(tmp_path / "out", case, notes, monkeypatch, 9, stages=STAGES)
    place = partial_folder(tmp_path / "out") / "checkpoints" / "step-000009"
    base = weights(Path(case.config["model"]))
    saved = {}
    for file in place.glob("*.safetensors"):
        saved |= load_file(file)
    moments = {name.partition("/")[2] for name in saved if name.startswith("mean/")}
    assert moments == {"model.embed_tokens.weight"}
    assert json.loads((place / "state.json").read_text())["moved"] == {"model.embed_tokens.weight": 9}
    for name, value in base.items():
        assert torch.equal(saved[f"weight/{name}"], value) == (name != "model.embed_tokens.weight"), name
    run_here(tmp_path / "out", case, notes, stages=STAGES)
    after = weights(tmp_path / "out")
    assert all(not torch.equal(after[name], base[name]) for name in base)
    rates = [line["learning_rate"] for line in steps_of(tmp_path / "out")]
    assert rates[9] / rates[10] > 4, "the factor of the first stage ends with it"


def test_a_stage_with_an_adapter_is_refused(tmp_path: Path, case: Case, notes: list[str]) -> None:
    with pytest.raises(ConfigError, match="`lora` cannot be the strategy of a stage"):
        run_here(tmp_path / "out", case, notes, stages=[{"share": 0.5, "strategy": "lora"}, {}])


@pytest.mark.parametrize("rate", [1e9, 1.0])
def test_a_learning_rate_that_is_far_too_high_stops_the_run(
    tmp_path: Path, case: Case, notes: list[str], rate: float
) -> None:
    with pytest.raises(LangadaptError, match=r"not finite|guessing|ruins|forgetting") as caught:
        run_here(tmp_path / "out", case, notes, learning_rate=rate, max_forgetting=1e9)
    assert caught.value.exit_code == 1 and "--learning-rate" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


def test_a_plateau_of_high_losses_stops_with_an_incident(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langadapt.train.spikes._FEWEST", 5)
    monkeypatch.setattr("langadapt.train.spikes.PATIENCE", 6)
    from langadapt.train import loop

    real, losses = loop._accumulate, iter([5.0, *[3.0] * 10, *[3.5] * 20])
    monkeypatch.setattr(loop, "_accumulate", lambda *values: (real(*values), next(losses))[1])
    with pytest.raises(LangadaptError, match="for 6 steps in a row at step 16") as caught:
        run_here(tmp_path / "out", case, notes)
    place = partial_folder(tmp_path / "out") / "incident-000016"
    assert caught.value.where == str(place) and "40:64" in str(caught.value.hint)
    report = json.loads((place / "incident.json").read_text())
    assert report["losses_before"]["16"] == 3.5 and report["positions"] == [60, 61, 62, 63]


def poison(monkeypatch: pytest.MonkeyPatch, *bad: int) -> None:
    """The loss of these steps (from 0) is not a number, in every process that comes by them."""
    from langadapt.train import loop

    real = loop._accumulate

    def poisoned(model: Any, blocks: Any, step: int, settings: Any) -> float:
        loss = real(model, blocks, step, settings)
        return float("nan") if step in bad else loss

    monkeypatch.setattr(loop, "_accumulate", poisoned)


def test_bad_steps_can_be_left_out_and_the_ledger_says_so(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 3, 12)
    run_here(tmp_path / "one", case, notes, on_bad_step="skip")
    stop_after(monkeypatch, 14)
    with pytest.raises(LangadaptError):
        run_here(tmp_path / "two", case, notes, on_bad_step="skip")
    monkeypatch.undo()
    poison(monkeypatch, 3, 12)
    interrupt._seen.clear()
    run_here(tmp_path / "two", case, notes, on_bad_step="skip")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    account = json.loads((tmp_path / "one" / "ledger.json").read_text())
    assert account["steps_not_learned"] == [4, 13] and account["balance_tokens"] == 0
    assert [line["step"] for line in steps_of(tmp_path / "one")] == [n for n in range(1, 25) if n not in (4, 13)]


def test_text_can_be_left_out_from_a_checkpoint_on(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 12)
    with pytest.raises(LangadaptError, match="not finite at step 13") as caught:
        run_here(tmp_path / "run one", case, notes)
    monkeypatch.undo()
    kept = partial_folder(tmp_path / "run one") / "checkpoints" / "step-000010"
    command = shlex.split(str(caught.value.hint).split("`")[-4])
    assert command == ["--branch-from", str(kept), "-o", 'skip_positions=["48:52"]']
    left_out = {"batch_tokens": None, "warmup_steps": None, "skip_positions": ["48:52"], "branch_from": str(kept)}
    run_here(tmp_path / "two", case, notes, **left_out)
    account = json.loads((tmp_path / "two" / "ledger.json").read_text())
    assert account["skipped_positions"] == ["48:52"] and account["balance_tokens"] == 0
    # the usual run, but without those blocks from the beginning
    run_here(tmp_path / "three", case, notes, skip_positions=["48:52"])
    assert (tmp_path / "two" / "model.safetensors").read_bytes() == (
        tmp_path / "three" / "model.safetensors"
    ).read_bytes()


def test_text_can_be_left_out_of_a_run_with_stages_too(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be branched from, so no branch is offered."""
    poison(monkeypatch, 12)
    with pytest.raises(LangadaptError, match="not finite at step 13") as caught:
        run_here(tmp_path / "one", case, notes, stages=STAGES)
    monkeypatch.undo()
    assert "branch" not in str(caught.value.hint) and "48:52" in str(caught.value.hint)
    run_here(tmp_path / "two", case, notes, stages=STAGES, skip_positions=["48:52"])


def test_memory_that_is_short_is_told_before_a_weight_moves(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from langadapt.train import loop, objective

    def fail(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total ...")

    monkeypatch.setattr(objective, "loss_of", fail)
    monkeypatch.setattr(loop, "measure", lambda *_: pytest.fail("the rehearsal comes first"))
    with pytest.raises(ResourceError, match="64 tokens at once") as caught:
        run_here(tmp_path / "out", case, notes)
    assert caught.value.exit_code == 5 and "micro_batch_blocks" in str(caught.value.hint)


def limited(out: Path, config: Path, log: Path) -> None:
    from langadapt.train import loop

    real = loop._rehearse

    def rehearse(*values: Any) -> None:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 30_000_000, now + 30_000_000))
        real(*values)

    loop._rehearse = rehearse
    target(out, config, log, [])


def test_the_real_allocator_running_out_is_exit_5(tmp_path: Path, case: Case) -> None:
    config, log = tmp_path / "config.json", tmp_path / "log"
    # 512 blocks at once: 24 MB of logits, and more for everything else
    config.write_text(
        json.dumps(case.config | {"batch_tokens": 32 * 512, "micro_batch_blocks": 512, "steps": 2, "max_epochs": 16})
    )
    process = FORK.Process(target=limited, args=(tmp_path / "out", config, log))
    process.start()
    process.join(120)
    said = log.with_suffix(".err").read_text()
    assert process.exitcode == 5, said
    assert "out of memory with 16,384 tokens at once" in said and "micro_batch_blocks" in said


def test_compiling_without_a_compiler_is_refused(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ResourceError, match="needs a C") as caught:
        run_here(tmp_path / "out", case, notes, compile=True)
    assert caught.value.exit_code == 5


def test_lowbit_without_torchao_names_the_extra(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(ConfigError, match="torchao") as caught:
        run_here(tmp_path / "out", case, notes, moments="8bit")
    assert "langadapt[lowbit]" in str(caught.value.hint)


@pytest.mark.parametrize("options", [{"weights": "bf16", "compute": "fp32"}, {"moments": "4bit", "strategy": "lora"},
                                     {"stages": STAGES, "strategy": "embeddings"}])  # fmt: skip
def test_options_that_exclude_each_other_are_refused(
    tmp_path: Path, case: Case, notes: list[str], options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        run_here(tmp_path / "out", case, notes, **options)
    assert not (tmp_path / "out").exists()


def test_bf16_weights_come_out_near_those_of_fp32(tmp_path: Path, case: Case, notes: list[str]) -> None:
    run_here(tmp_path / "bf16", case, notes, weights="bf16", moments="4bit")
    shutil.copytree(Path(case.config["data"]).parent / "reference", tmp_path / "fp32")
    ends = [steps_of(tmp_path / name)[-1]["loss"] for name in ("bf16", "fp32")]
    assert ends[0] == pytest.approx(ends[1], rel=0.1)
