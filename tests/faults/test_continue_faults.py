"""Running again with something changed (rows 10, 11), and a disk that is full for what no result needs (row 21)."""

import errno
import json
import os
import resource
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import langadapt
from langadapt.core import interrupt
from langadapt.core import io as files
from langadapt.core.artifact import open_artifact, partial_folder
from langadapt.core.errors import Interrupted, LangadaptError, OutputError
from langadapt.core.io import append_json_line, read_json_lines, sha256_file
from langadapt.core.progress import Note
from langadapt.core.validate import validate
from langadapt.core.verb import load, perform
from langadapt.train import journal as journals
from langadapt.train.journal import Journal
from tests.fixtures.tiny import tiny_corpus, tiny_model

STOPPED = 4


def mixed(place: Path, model: Path, texts: int = 60) -> str:
    text = str(tiny_corpus(place / "text", "hu", texts))
    made = langadapt.mix(
        out=place / "data", model=model, corpora={"hu": text}, block_tokens=32, document_separator="<|endoftext|>"
    )
    return str(made.path)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> dict[str, Any]:
    data = mixed(tmp_path_factory.mktemp("data"), tiny)
    return {
        "model": str(tiny), "data": data, "steps": 8, "batch_tokens": 128, "micro_batch_blocks": 2,
        "learning_rate": 3e-3, "checkpoint_steps": 2, "compute": "fp32",
    }  # fmt: skip


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]) -> Path:
    return Path(langadapt.cpt(out=tmp_path_factory.mktemp("reference") / "out", **settings).path)


@pytest.fixture(autouse=True)
def _no_signal() -> Iterator[None]:
    interrupt._seen.clear()
    yield
    interrupt._seen.clear()


def hashed(place: Path) -> dict[str, str]:
    names = [*open_artifact(place).manifest["files"], "artifact.json"]
    return {name: sha256_file(place / name) for name in names}


def train(out: Path, values: dict[str, Any], said: list[str] | None = None) -> None:
    def listen(event: object) -> None:
        if isinstance(event, Note) and said is not None:
            said.append(f"{event.level}: {event.text}")

    langadapt.cpt(out=out, listener=listen, **values)


@pytest.fixture
def begun(tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output that was stopped after four steps."""
    add = Journal.add_step

    def counted(self: Journal, step: int, *rest: Any) -> None:
        add(self, step, *rest)
        if step == STOPPED:
            interrupt.request(signal.SIGTERM)

    monkeypatch.setattr(Journal, "add_step", counted)
    with pytest.raises(Interrupted):
        train(tmp_path / "out", settings)
    monkeypatch.undo()
    interrupt._seen.clear()
    return tmp_path / "out"


CHANGED = {
    "steps": 9,
    "batch_tokens": 256,
    "micro_batch_blocks": 1,
    "learning_rate": 1e-3,
    "schedule": "constant",
    "weight_decay": 0.3,
    "clip": 0.5,
    "strategy": "embeddings",
    "compute": "bf16",
    "seed": 5,
}


def test_another_setting_is_refused_and_named(begun: Path, settings: dict[str, Any]) -> None:
    """Row 10: the message says which key, what it was, and what it is; nothing of the begun run is touched."""
    before = {path: path.stat().st_mtime_ns for path in partial_folder(begun).rglob("*") if path.is_file()}
    for key, value in CHANGED.items():
        with pytest.raises(OutputError, match=rf"unfinished run .*`{key}` was .*, is {value}") as refused:
            train(begun, settings | {key: value})
        assert refused.value.exit_code == 4 and "--overwrite" in str(refused.value.hint)
    assert {path: path.stat().st_mtime_ns for path in partial_folder(begun).rglob("*") if path.is_file()} == before


def test_other_inputs_are_refused_and_named(begun: Path, settings: dict[str, Any], tmp_path: Path, tiny: Path) -> None:
    other = tiny_model(tmp_path / "model", seed=1)
    with pytest.raises(OutputError, match="input `model` has other content"):
        train(begun, settings | {"model": str(other)})
    with pytest.raises(OutputError, match="input `data` has other content"):
        train(begun, settings | {"data": mixed(tmp_path, tiny, 50)})


def test_other_data_or_tokenizer_behind_the_same_path_is_refused(
    begun: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    """What counts is the content: a tokenizer that was changed in its place is another model."""
    tokens = json.loads((Path(settings["model"]) / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokens["model"]["merges"]
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in Path(settings["model"]).iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    tokens["model"]["merges"].reverse()
    (copy / "tokenizer.json").write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(LangadaptError, match=r"input `model` has other content|another tokenizer") as refused:
        train(begun, settings | {"model": str(copy)})
    assert refused.value.exit_code in (3, 4)


def test_another_version_of_the_step_is_refused_and_named(begun: Path, settings: dict[str, Any]) -> None:
    verb = load("cpt")
    newer = replace(verb, schema=verb.schema + 1)
    with pytest.raises(OutputError, match=f"version {verb.schema} of `cpt`, now {newer.schema}"):
        perform(newer, validate(verb.config, settings), begun)


RUNTIME = {
    "checkpoint_steps": 3, "keep_checkpoints": 1, "max_forgetting": 0.5, "threads": 1, "device": "cpu",
    "gradient_checkpointing": "on", "deterministic": False,
}  # fmt: skip


def test_what_cannot_change_the_result_may_change(begun: Path, settings: dict[str, Any], reference: Path) -> None:
    from langadapt.core.config import runtime_fields
    from langadapt.steps.cpt import Config

    # without the probe whose bound it is, that one is refused
    assert runtime_fields(Config) - {"max_icl_loss"} == RUNTIME.keys(), "a new field of this kind belongs into the test"
    said: list[str] = []
    train(begun, settings | RUNTIME, said)
    assert f"info: going on after step {STOPPED}" in said
    assert hashed(begun) == hashed(reference)


def test_another_micro_batch_is_another_run_with_nearly_the_same_weights(
    tmp_path: Path, settings: dict[str, Any], reference: Path
) -> None:
    """Row 11: only the order of additions differs, so weights agree to rounding, not as training moved them."""
    train(tmp_path / "out", settings | {"micro_batch_blocks": 4})
    base = load_file(Path(settings["model"]) / "model.safetensors")
    one, other = (load_file(place / "model.safetensors") for place in (reference, tmp_path / "out"))
    assert hashed(reference)["artifact.json"] != hashed(tmp_path / "out")["artifact.json"]
    for name, value in one.items():
        moved = float(np.abs(value - base[name]).max())
        assert float(np.abs(value - other[name]).max()) < 0.02 * moved, name


def full(*given: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_too_full_for_the_metrics_does_not_stop_training(
    tmp_path: Path, settings: dict[str, Any], reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 21: lines wait in memory, checkpoints hold them, and the result is the same bytes."""
    calls = 0

    def sometimes(path: Path, value: object) -> None:
        nonlocal calls
        calls += 1
        if 3 <= calls <= 7:
            full()
        append_json_line(path, value)

    said: list[str] = []
    monkeypatch.setattr(journals, "append_json_line", sometimes)
    train(tmp_path / "out", settings, said)
    assert calls > 8 and hashed(tmp_path / "out") == hashed(reference)
    assert sum("its lines wait in memory" in text for text in said) == 1


def test_a_disk_that_stays_too_full_for_metrics_and_times_does_not_stop_training(
    tmp_path: Path, settings: dict[str, Any], reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(journals, "append_json_line", full)
    monkeypatch.setattr("langadapt.core.artifact.append_json_line", full)
    train(tmp_path / "out", settings, said)
    assert hashed(tmp_path / "out") == hashed(reference)
    assert sum("no space left for `timings.jsonl`" in text for text in said) == 1
    assert not (tmp_path / "out" / "timings.jsonl").exists()


def test_a_line_that_fits_in_part_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_json_line(path, {"n": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        for _ in range(2):
            with pytest.raises(OSError) as caught:
                append_json_line(path, {"n": "a longer line than there is room for"})
            assert files.is_full(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    append_json_line(path, {"n": 2})
    assert list(read_json_lines(path)) == [{"n": 1}, {"n": 2}]


def test_the_record_of_a_run_may_have_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.recipe.record import Record

    said: list[str] = []
    record = Record(tmp_path, said.append)
    record.event("started")
    monkeypatch.setattr("langadapt.recipe.record.append_json_line", full)
    record.event("lost")
    record.whole()
    monkeypatch.undo()
    record.event("finished")
    assert [line["event"] for line in read_json_lines(tmp_path / "run.jsonl")] == ["started", "finished"]
    assert len(said) == 1 and "its record has gaps" in said[0]
