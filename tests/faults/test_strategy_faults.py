"""Training a part of a model is killed, poisoned, starved and handed what belongs to another run or model."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import langadapt
from langadapt.core import interrupt
from langadapt.core.artifact import open_artifact, partial_folder
from langadapt.core.errors import ConfigError, DataError, LangadaptError, OutputError, ResourceError
from langadapt.core.inputs import digest_of
from langadapt.steps.verify_shield import verify_shield
from tests.faults.test_calibrate_faults import keeping
from tests.faults.test_train_faults import (
    STEPS,
    Case,
    files_of,
    finish,
    kill_at_random,
    poison_step_14,
    run_here,
    start,
    stopped,
)
from tests.fixtures.measured import given_statistics
from tests.fixtures.tiny import tiny_corpus, tiny_model

# One of each kind of part: rows and columns, columns and values, whole matrices, columns of a factor.
KINDS: dict[str, dict[str, Any]] = {
    "subnetwork": {"top_rate": 0.2},
    "ssu": {},
    "hft": {},
    "shielded-lora": {"rank": 4},
}
MEASURED = ("subnetwork", "ssu", "shielded-lora")


@pytest.fixture(autouse=True)
def _no_signal_left() -> Iterator[None]:
    interrupt._seen.clear()
    yield
    interrupt._seen.clear()


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, data in two languages, statistics. Read only."""
    folder = tmp_path_factory.mktemp("strategies")
    (folder / "model").symlink_to(tiny)
    corpora = {lang: str(tiny_corpus(folder / "text", lang, 60)) for lang in ("hu", "en")}
    langadapt.mix(
        out=folder / "data", model=tiny, corpora=corpora, replay={"en": 0.25}, block_tokens=32,
        document_separator="<|endoftext|>",
    )  # fmt: skip
    given_statistics(folder / "statistics", tiny)
    return folder


def case_of(place: Path, out: Path, strategy: str, *, measures: bool = False, **options: Any) -> Case:
    """An uninterrupted run of a strategy, and what it was given; `measures`: statistics are made of the data."""
    config: dict[str, Any] = {
        "model": str(place / "model"), "data": str(place / "data"), "steps": STEPS, "batch_tokens": 128,
        "micro_batch_blocks": 2, "learning_rate": 3e-3, "checkpoint_steps": 5, "probe_every": 10, "compute": "fp32",
        "strategy": strategy, "strategy_options": KINDS.get(strategy, {}) | options,
    }  # fmt: skip
    if measures:
        config |= {"calibration_tokens": 1500, "steps": 4}
    elif strategy in MEASURED:
        config["statistics"] = str(place / "statistics")
    langadapt.cpt(out=out, **config)
    return Case(config, files_of(out))


@pytest.fixture(scope="module")
def half(place: Path) -> Case:
    """Half of the columns, drawn at random."""
    return case_of(place, place / "half", "random")


@pytest.mark.parametrize("strategy", KINDS)
def test_kill_at_random_moments_whatever_part_moves(place: Path, tmp_path: Path, strategy: str) -> None:
    (tmp_path / "run").mkdir()
    kill_at_random(tmp_path / "run", case_of(place, tmp_path / "reference", strategy), 1)
    found = verify_shield(str(place / "model"), str(tmp_path / "run" / "out"))
    assert found.broken == 0 and sum(drift.moved for drift in found.drifts.values()) > 100


def test_kill_9_while_a_strategy_measures_and_while_it_chooses(place: Path, tmp_path: Path) -> None:
    """Four times something is committed before training: two states, the finished language, the choice."""
    (tmp_path / "run").mkdir()
    case = case_of(place, tmp_path / "reference", "ssu", measures=True)
    told = []
    # of the first run the second state is lost; the next goes on behind the first one, and loses the choice
    for count in ("2", "3"):
        run = start(tmp_path / "run", case, "--kill", "manifest-durable", count, job=keeping)
        assert run.end() == -signal.SIGKILL
        told.append(run.log.read_text())
    kept = partial_folder(tmp_path / "run" / "out")
    assert (kept / "statistics" / "en" / "done").is_dir() and not (kept / "choice").exists()
    run = start(tmp_path / "run", case, job=keeping)
    assert run.end() == 0, run.log.with_suffix(".err").read_text()
    assert files_of(tmp_path / "run" / "out") == case.reference
    assert all("measure en " in text for text in told) and "measure en " not in run.log.read_text()


@pytest.mark.parametrize(("ratio", "tables"), [(0.0, "train"), (0.0, "freeze"), (1.0, "train"), (1.0, "new-rows")])
def test_a_shield_of_nothing_and_of_all(place: Path, tmp_path: Path, ratio: float, tables: str) -> None:
    """All of the body moves or none of it; a model without new tokens has nothing left to train then."""
    given = {"model": place / "model", "data": place / "data", "steps": 3, "batch_tokens": 64, "strategy": "random"}
    options = {"ratio": ratio, "tables": tables}
    if (ratio, tables) == (1.0, "new-rows"):
        with pytest.raises(ConfigError, match="nothing would move"):
            langadapt.cpt(out=tmp_path / "out", **given, strategy_options=options)
        assert not (tmp_path / "out").exists()
        return
    made = langadapt.cpt(out=tmp_path / "out", **given, strategy_options=options)
    drifts = verify_shield(str(place / "model"), str(made.path)).drifts
    body = {name: drift for name, drift in drifts.items() if "embed" not in name}
    table = drifts["model.embed_tokens.weight"]
    assert all((drift.may_move, drift.broken) == (drift.of if ratio == 0 else 0, 0) for drift in body.values())
    assert all(bool(drift.moved) == (ratio == 0) for drift in body.values())
    assert bool(table.moved) == (tables == "train") and table.may_move < table.of, "special rows stay"


def test_a_loss_that_is_not_a_number_moves_no_part(tmp_path: Path, half: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    poison_step_14(monkeypatch)
    with pytest.raises(LangadaptError, match="not finite at step 14"):
        run_here(tmp_path / "out", half, [])
    monkeypatch.undo()
    assert (partial_folder(tmp_path / "out") / "incident-000014" / "incident.json").is_file()
    finish(tmp_path, half)


def test_an_unfinished_run_of_another_choice_is_not_gone_on_with(
    place: Path, tmp_path: Path, half: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another ratio, another strategy, a selection in place of it: refused, and nothing is touched."""
    stopped(tmp_path / "out", half, [], monkeypatch, 7)
    langadapt.select(place / "model", method="random", out=tmp_path / "selection")
    kept = digest_of(partial_folder(tmp_path / "out"))
    same = {"strategy": "full", "strategy_options": {}}
    for changes in (
        {"strategy_options": {"ratio": 0.25}},
        {"strategy": "hft", "strategy_options": {}},
        same | {"selection": str(tmp_path / "selection")},
    ):
        with pytest.raises(OutputError, match="unfinished run with other settings") as refused:
            run_here(tmp_path / "out", half, [], **changes)
        assert refused.value.exit_code == 4
    assert digest_of(partial_folder(tmp_path / "out")) == kept
    finish(tmp_path, half)


def test_a_branch_of_another_choice_is_refused(place: Path, tmp_path: Path, half: Case) -> None:
    """As many columns, but other ones: nothing but the places tells them apart."""
    first, other = (
        str(langadapt.select(place / "model", method="random", seed=seed, out=tmp_path / f"seed-{seed}").path)
        for seed in (1, 2)
    )
    given = {"strategy": "full", "strategy_options": {}, "schedule": "wsd"}
    run_here(tmp_path / "kept", half, [], **given, selection=first, keep_branch=True)
    later = {"branch_from": str(tmp_path / "kept"), "steps": 30}
    with pytest.raises(DataError, match="other rows, columns or values may move") as refused:
        run_here(tmp_path / "out", half, [], **given, **later, selection=other)
    assert refused.value.exit_code == 3 and not (tmp_path / "out").exists()
    run_here(tmp_path / "same", half, [], **given, **later, selection=first)


def test_a_checkpoint_with_a_place_too_few_is_refused(
    place: Path, tmp_path: Path, half: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a bug or another version would leave it: whole by its digests, but of other columns."""
    stopped(tmp_path / "out", half, [], monkeypatch, 7)
    newest = partial_folder(tmp_path / "out") / "checkpoints" / "step-000007"
    cut_one_place(newest)
    with pytest.raises(DataError, match=r"differ in `\w+/.*q_proj") as refused:
        run_here(tmp_path / "out", half, [])
    assert "step-000007" in str(refused.value) and not (tmp_path / "out").exists()


def cut_one_place(checkpoint: Path) -> None:
    """Take the last column of every tensor of a part, and make the manifest fit."""
    import json

    from langadapt.core.io import pretty_json, sha256_file
    from langadapt.core.manifest import checksum

    for path in checkpoint.glob("*.safetensors"):
        tensors = load_file(path)
        cut = {name: value[..., :-1].contiguous() if "q_proj" in name else value for name, value in tensors.items()}
        save_file(cut, path)
    manifest = json.loads((checkpoint / "artifact.json").read_text())
    for name, entry in manifest["files"].items():
        entry |= {"bytes": (checkpoint / name).stat().st_size, "sha256": sha256_file(checkpoint / name)}
    del manifest["checksum"]
    manifest["checksum"] = checksum(manifest)
    (checkpoint / "artifact.json").write_text(pretty_json(manifest))


def test_memory_and_disk_that_run_out(tmp_path: Path, half: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*values: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("langadapt.train.objective.loss_of", fail)
        with pytest.raises(ResourceError, match="64 tokens at once"):
            run_here(tmp_path / "out", half, [])
    with monkeypatch.context() as patch:
        patch.setattr("langadapt.train.checkpoint.free_disk_bytes", lambda folder: 1000)
        with pytest.raises(ResourceError, match=r"needs .* of disk"):
            run_here(tmp_path / "out", half, [])
    assert not (tmp_path / "out").exists() and not partial_folder(tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["model.layers.0.self_attn.q_proj.weight", "model.layers.1.input_layernorm.weight"])
def test_weights_that_are_no_numbers(tmp_path: Path, where: str) -> None:
    """Named before anything is chosen, measured or trained."""
    model = tiny_model(tmp_path / "model")
    data = langadapt.mix(
        out=tmp_path / "data", model=model, corpora={"hu": str(tiny_corpus(tmp_path / "text", "hu", 30))},
        block_tokens=32, document_separator="<s>",
    )  # fmt: skip
    tensors = load_file(model / "model.safetensors")
    tensors[where].view(-1)[3] = float("nan")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    text = {"hu": str(tmp_path / "text" / "hu.jsonl")}
    with pytest.raises(DataError, match=f"`{where}` holds NaN or infinity"):
        langadapt.select(model, method="magnitude", out=tmp_path / "out")
    with pytest.raises(DataError, match="are not finite numbers"):
        langadapt.calibrate(model, text, tokens=400, window_tokens=32, compute="fp32", out=tmp_path / "out")
    with pytest.raises(DataError, match=r"are not finite numbers \((what|`taylor` of)"):
        langadapt.calibrate(
            model, text, tokens=400, window_tokens=32, compute="fp32", taylor=True, out=tmp_path / "out"
        )
    run = {"steps": 2, "batch_tokens": 64, "out": tmp_path / "out"}
    with pytest.raises(DataError, match=f"`{where}` holds NaN or infinity"):
        langadapt.cpt(model, data, strategy="random", **run)
    with pytest.raises(DataError, match="computes NaN or infinity"):
        langadapt.cpt(model, data, strategy="embeddings", **run)
    assert not (tmp_path / "out").exists()


def test_a_row_that_no_text_reads_and_that_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing shows it: it would be trained, and refused when it is written. Under a shield it stays as it is."""
    model = tiny_model(tmp_path / "model", tied=False, padded_rows=8)
    text = str(tiny_corpus(tmp_path / "text", "hu", 30))
    data = langadapt.mix(
        out=tmp_path / "data", model=model, corpora={"hu": text}, block_tokens=32, document_separator="<s>"
    )
    tensors = load_file(model / "model.safetensors")
    tensors["model.embed_tokens.weight"][-1, 3] = float("nan")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    run: dict[str, Any] = {"steps": 2, "batch_tokens": 64, "compute": "fp32"}
    with monkeypatch.context() as patch:
        patch.setattr("langadapt.train.session.fit", None)  # whoever trains first is found out
        for strategy in ("full", "embeddings", "random"):
            with pytest.raises(DataError, match=r"`model\.embed_tokens\.weight` holds NaN or infinity"):
                langadapt.cpt(model, data, strategy=strategy, out=tmp_path / "out", **run)
    options = {"layers": "-1:", "tables": "freeze"}
    made = langadapt.cpt(model, data, strategy="layers", strategy_options=options, out=tmp_path / "out", **run)
    drifts = verify_shield(str(model), str(made.path)).drifts
    assert drifts["model.embed_tokens.weight"].moved == 0 and sum(drift.moved for drift in drifts.values()) > 100


def test_a_model_that_was_changed_after_it_was_measured(place: Path, tmp_path: Path) -> None:
    """One value is another: statistics and selection are of another model, whatever its shapes are."""
    other = Path(shutil.copytree(place / "model", tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] += 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    langadapt.select(place / "model", method="random", out=tmp_path / "selection")
    given = {"data": place / "data", "steps": 2, "batch_tokens": 64}
    for more in (
        {"strategy": "ssu", "statistics": place / "statistics"},
        {"selection": tmp_path / "selection"},
    ):
        with pytest.raises(DataError, match="of another model than") as refused:
            langadapt.cpt(other, out=tmp_path / "out", **given, **more)
        assert refused.value.exit_code == 3 and digest_of(other)[:12] in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_places_that_are_written_wrong_are_found_before_the_result_is_there(
    tmp_path: Path, half: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison at the end of a run is no formality: a bug that moves one shielded value fails it."""
    from langadapt.train import trainable

    write = trainable.write_model

    def wrong(base: Path, out: Path, *rest: Any, **more: Any) -> None:
        write(base, out, *rest, **more)
        tensors = load_file(out / "model.safetensors")
        tensors["model.norm.weight"].view(torch.int32)[5] ^= 1
        before = load_file(base / "model.safetensors")
        tensors["model.layers.0.self_attn.q_proj.weight"] = before["model.layers.0.self_attn.q_proj.weight"] + 1e-3
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(trainable, "write_model", wrong)
    with pytest.raises(LangadaptError, match="shielded values") as failed:
        run_here(tmp_path / "out", half, [])
    assert failed.value.exit_code == 1 and not (tmp_path / "out").exists()
    monkeypatch.undo()
    finish(tmp_path, half)


def test_the_record_of_a_shielded_run_is_part_of_its_digests(place: Path, half: Case) -> None:
    assert {"selection/moves.safetensors", "selection/selection.json", "shield.json"} <= half.reference.keys()
    assert open_artifact(place / "half").facts["shield"]["broken"] == 0
