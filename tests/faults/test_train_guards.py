"""What ends a run in words: forgetting, weights out of range, a disk that is too small."""

from pathlib import Path

import pytest

from langadapt.core.artifact import open_artifact, partial_folder
from langadapt.core.errors import LangadaptError, ResourceError
from langadapt.train.checkpoint import most_at_once
from tests.faults.test_train_faults import Case, files_of, make_case, run_here, stopped


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Case:
    return make_case(tmp_path_factory.mktemp("usual"), tiny)


def test_the_forgetting_guard_stops_and_can_be_widened(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([1.0, 1.05, 1.2, 1.2, 1.3])
    monkeypatch.setattr("langadapt.train.probe.bits_per_byte", lambda scores: next(values))
    with pytest.raises(LangadaptError, match=r"from 1.000 to 1.200 .* \(\+20.0%\) at step 20") as caught:
        run_here(tmp_path / "out", case, notes)
    assert caught.value.exit_code == 1 and "--max-forgetting 0.21" in str(caught.value.hint)
    assert any("(+5.0%) at step 10" in note for note in notes)
    run_here(tmp_path / "out", case, notes, max_forgetting=0.5)
    assert "going on after step 20" in notes
    assert open_artifact(tmp_path / "out").facts["probes"]["en"] == {"start": 1.0, "end": 1.3}


def test_what_the_guard_stops_goes_on_from_there_although_no_checkpoint_fell_due(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([1.0, 1.2, 1.2, 1.2])
    monkeypatch.setattr("langadapt.train.probe.bits_per_byte", lambda scores: next(values))
    with pytest.raises(LangadaptError, match=r"at step 10: .*the last checkpoint is kept"):
        run_here(tmp_path / "out", case, notes, checkpoint_steps=20)
    run_here(tmp_path / "out", case, notes, checkpoint_steps=20, max_forgetting=0.5)
    assert "going on after step 10" in notes
    names = case.reference.keys() - {"artifact.json", "metrics.jsonl", "probes.json"}
    assert {name: files_of(tmp_path / "out")[name] for name in names} == {name: case.reference[name] for name in names}


def test_a_ruined_model_takes_the_place_of_no_checkpoint(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([1.0, 1.0, 2.5] * 2)
    monkeypatch.setattr("langadapt.train.probe.Probe.__call__", lambda self: {"hu": next(values)})
    for every, kept in ((5, "the last checkpoint is kept"), (20, "no checkpoint had been written")):
        out = tmp_path / str(every)
        with pytest.raises(LangadaptError, match=f"from 1.000 to 2.500 .* at step 14: .*ruins the model; {kept}"):
            run_here(out, case, notes, checkpoint_steps=every, probe_every=7, keep_checkpoints=1)
        places = list((partial_folder(out) / "checkpoints").glob("step-*"))
        assert [place.name for place in places] == (["step-000010"] if every == 5 else [])


def test_weights_too_large_to_be_measured_end_in_words(tmp_path: Path, case: Case, notes: list[str]) -> None:
    with pytest.raises(LangadaptError, match=r"`drift` is not finite at step 1") as caught:
        run_here(tmp_path / "out", case, notes, steps=1, learning_rate=1e30, warmup_steps=0)
    assert "learning-rate" in str(caught.value.hint)


@pytest.mark.parametrize(("keep", "due", "most"), [(2, 0, 1), (2, 1, 2), (2, 2, 3), (2, 9, 3), (1, 9, 2)])
def test_disk_is_wanted_for_the_checkpoints_that_there_will_be(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch, keep: int, due: int, most: int
) -> None:
    """As many as the price counts: one of them is being written."""
    assert most_at_once(keep, due) == most
    seen = []
    monkeypatch.setattr("langadapt.train.checkpoint.free_disk_bytes", lambda folder: seen.append(1) or 1000)
    with pytest.raises(ResourceError, match=f"the result and {most} checkpoint") as caught:
        run_here(tmp_path / "out", case, notes, keep_checkpoints=keep, checkpoint_steps=2, steps=2 * due + 1)
    assert seen and ("keep_checkpoints=1" in str(caught.value.hint)) == (most > 2)


@pytest.mark.parametrize("keep", [2, 1])
def test_a_checkpoint_that_a_stopped_run_has_left_takes_disk_too(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    """No checkpoint falls due: the one that is there and the one of a second stop lie side by side."""
    out, few = tmp_path / "out", {"keep_checkpoints": keep, "checkpoint_steps": 24}
    stopped(out, case, notes, monkeypatch, 3, **few)
    (left,) = (partial_folder(out) / "checkpoints").glob("step-*")
    monkeypatch.setattr("langadapt.train.checkpoint.free_disk_bytes", lambda folder: 1000)
    with pytest.raises(ResourceError, match="the result and 2 checkpoints") as caught:
        run_here(out, case, notes, **few)
    assert "keep_checkpoints" not in str(caught.value.hint), "it would not help"
    assert left.is_dir(), "what was trained is kept"
    monkeypatch.undo()
    run_here(out, case, notes, **few)
    assert "going on after step 3" in notes


def test_a_full_disk_is_told_before_the_first_step(
    tmp_path: Path, case: Case, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langadapt.train.checkpoint.free_disk_bytes", lambda folder: 1000)
    with pytest.raises(ResourceError, match=r"needs .* of disk"):
        run_here(tmp_path / "out", case, notes)
    assert not (tmp_path / "out").exists()
    assert not partial_folder(tmp_path / "out").exists(), "there is nothing to go on with"
