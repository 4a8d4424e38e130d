"""calibrate is killed, stopped and finds damaged work; running the same command again must give the same bytes."""

import signal
from pathlib import Path
from typing import Any

import pytest

import langadapt
from langadapt.core import interrupt
from langadapt.core.artifact import partial_folder
from langadapt.core.errors import Interrupted
from langadapt.core.progress import Event, Note
from langadapt.select.measure import Meter
from langadapt.steps import _measuring
from tests.faults.test_train_faults import Case, Run, files_of, target
from tests.faults.test_train_faults import start as start_run
from tests.fixtures.tiny import tiny_corpus, tiny_model


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Wide enough that the order of sums decides the last bits; five batches a language."""
    folder = tmp_path_factory.mktemp("calibrate")
    corpora = {lang: str(tiny_corpus(folder / "text", lang)) for lang in ("hu", "en")}
    config = {
        "model": str(tiny_model(folder / "model", width=128)), "corpora": corpora, "tokens": 5000, "window_tokens": 128,
        "compute": "fp32",
    }  # fmt: skip
    langadapt.calibrate(out=folder / "reference", **config)
    return Case(config, files_of(folder / "reference", "statistics"))


def keeping(*given: Any) -> None:
    """In a process of its own: what was measured is kept after every batch."""
    _measuring.KEEP_SECONDS = 0.0
    target(*given)


def start(folder: Path, case: Case, *extra: str) -> Run:
    return start_run(folder, case, *extra, verb="calibrate", job=keeping)


def finish(folder: Path, case: Case) -> list[str]:
    """Run the same command again; it must end with the bytes of the uninterrupted run. Returns what it said."""
    interrupt._seen.clear()
    heard: list[Event] = []
    langadapt.calibrate(out=folder / "out", listener=heard.append, **case.config)
    assert files_of(folder / "out", "statistics") == case.reference
    assert not partial_folder(folder / "out").exists()
    return [event.text for event in heard if isinstance(event, Note)]


def test_kill_9_between_two_states_and_while_the_result_is_committed(tmp_path: Path, case: Case) -> None:
    # five states and the finished language are committed for each: the eighth is in the second one
    assert start(tmp_path, case, "--kill", "manifest-durable", "8").end() == -signal.SIGKILL
    run = start(tmp_path, case, "--kill", "manifest-durable", "6")
    assert run.end() == -signal.SIGKILL
    assert "hu: going on after 8 windows" in run.log.read_text()
    assert not (tmp_path / "out").exists()
    assert not any("going on" in text for text in finish(tmp_path, case)), "both languages were finished"


def stop_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """SIGTERM arrives while a batch is read."""
    add, seen = Meter.add, 0

    def stopping(self: Meter, batch: Any) -> int:
        nonlocal seen
        seen += 1
        if seen == batches:
            interrupt.request(signal.SIGTERM)
        return add(self, batch)

    monkeypatch.setattr(Meter, "add", stopping)


def test_a_signal_keeps_what_was_measured(tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, 3)
    with pytest.raises(Interrupted):
        langadapt.calibrate(out=tmp_path / "out", **case.config)
    monkeypatch.undo()
    kept = partial_folder(tmp_path / "out") / "en"
    assert [path.name for path in kept.iterdir() if path.is_dir()] == ["00000024"]
    assert "en: going on after 24 windows" in finish(tmp_path, case)


@pytest.mark.parametrize("name", ["en.safetensors", "artifact.json"])
def test_a_damaged_state_is_passed_over(tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    stop_after(monkeypatch, 3)
    with pytest.raises(Interrupted):
        langadapt.calibrate(out=tmp_path / "out", **case.config)
    monkeypatch.undo()
    file = partial_folder(tmp_path / "out") / "en" / "00000024" / name
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(bytes(content))
    said = finish(tmp_path, case)
    assert any(text.startswith("what was kept of `en` is passed over") for text in said)
    assert not any("going on" in text for text in said)


def test_what_an_older_version_kept_is_measured_again(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lacks what norms read: sums that went on from it would be too small by all that had been read."""
    from langadapt.steps import _calibrate_kept

    monkeypatch.setattr(_calibrate_kept, "SCHEMA", 1)
    stop_after(monkeypatch, 8)
    with pytest.raises(Interrupted):
        langadapt.calibrate(out=tmp_path / "out", **case.config)
    monkeypatch.undo()
    assert (partial_folder(tmp_path / "out") / "en" / "done").is_dir()
    assert not any("going on" in text for text in finish(tmp_path, case))


def test_other_settings_do_not_go_on_from_it(tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.core.errors import OutputError

    stop_after(monkeypatch, 3)
    with pytest.raises(Interrupted):
        langadapt.calibrate(out=tmp_path / "out", **case.config)
    monkeypatch.undo()
    interrupt._seen.clear()
    with pytest.raises(OutputError, match="unfinished run with other settings"):
        langadapt.calibrate(out=tmp_path / "out", **{**case.config, "skip_first": True})
    finish(tmp_path, case)
