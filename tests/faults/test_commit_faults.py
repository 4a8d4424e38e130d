"""Kill the process at every stage of a commit, race two processes for one place, fill the disk."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from langadapt.core import artifact as artifacts
from langadapt.core.artifact import MANIFEST, is_artifact, open_artifact, partial_folder
from langadapt.core.errors import OutputError, ResourceError
from langadapt.core.io import fsync_path
from langadapt.core.lock import Lock
from tests.faults.toy import STAGES, make

ROOT = Path(__file__).parents[2]


def launch(out: Path, value: int = 1, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults.toy", str(out), str(value), *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("stage", STAGES)
def test_kill_at_each_stage_then_the_same_command_finishes(tmp_path: Path, stage: str) -> None:
    out, reference = tmp_path / "out", tmp_path / "reference"
    make(reference)
    killed = launch(out, 1, "--kill", stage)
    killed.wait(30)
    assert killed.returncode == -9
    if stage in ("renamed", "swept"):
        open_artifact(out).verify()
    else:
        assert not out.exists(), "a killed run must not leave something that looks finished"
    again = launch(out)
    assert again.wait(30) == 0
    assert (out / MANIFEST).read_bytes() == (reference / MANIFEST).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "reference"], "left-overs were swept"


def test_the_second_process_is_told_who_holds_the_output(tmp_path: Path) -> None:
    holder = launch(tmp_path / "out", 1, "--pause", "written")
    assert holder.stdout is not None and holder.stdout.readline() == "paused\n"
    second = launch(tmp_path / "out")
    _, told = second.communicate(timeout=30)
    assert second.returncode == 4
    assert f"process {holder.pid}" in told
    holder.kill()
    holder.wait()
    assert launch(tmp_path / "out").wait(30) == 0, "the kernel frees the lock of a killed holder"


def test_a_waiting_process_reuses_what_the_first_made(tmp_path: Path) -> None:
    holder = launch(tmp_path / "out", 1, "--pause", "locked")
    assert holder.stdout is not None and holder.stdout.readline() == "paused\n"
    waiting = subprocess.Popen(
        [sys.executable, "-c", f"from pathlib import Path; from tests.faults.toy import make;"
         f"print(make(Path({str(tmp_path / 'out')!r}), wait=True).state)"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(0.5)
    assert waiting.poll() is None
    holder.kill()
    assert waiting.wait(30) == 0


def test_the_lock_survives_its_file_being_replaced(tmp_path: Path) -> None:
    with Lock(tmp_path / "x.lock"), pytest.raises(OutputError), Lock(tmp_path / "x.lock"):
        pass
    with Lock(tmp_path / "x.lock"):
        assert (tmp_path / "x.lock").exists()
    assert not (tmp_path / "x.lock").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    make(tmp_path / "before")

    def full(path: Path, content: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(artifacts, "write_durably", full)
    with pytest.raises(ResourceError, match="no space left") as caught:
        make(tmp_path / "out")
    assert caught.value.exit_code == 5
    monkeypatch.undo()
    assert not is_artifact(tmp_path / "out")
    assert not list(tmp_path.glob("*.tmp-*"))
    assert make(tmp_path / "out").artifact.facts == {"value": 1}
    open_artifact(tmp_path / "before").verify()


def test_files_are_durable_before_the_manifest_and_the_manifest_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(artifacts, "fsync_path", lambda path: (order.append(path.name), fsync_path(path))[1])
    monkeypatch.setattr(artifacts, "stage", lambda name: order.append(f"<{name}>"))
    make(tmp_path / "out")
    durable = order.index("<files-durable>")
    assert order.index("value.txt") < durable and order.index("double.txt") < durable
    assert order.index("<manifest-durable>") < order.index("<renamed>") < order.index(tmp_path.name)


def test_a_read_only_parent_is_refused_before_any_work(tmp_path: Path) -> None:
    parent = tmp_path / "locked"
    parent.write_text("a file where a folder should be")
    with pytest.raises(OutputError):
        make(parent / "out")


def test_a_kill_while_the_partial_folder_is_removed_leaves_nothing_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts.shutil, "rmtree", lambda *arguments, **options: None)
    make(tmp_path / "out")
    assert not partial_folder(tmp_path / "out").exists()
    assert list(tmp_path.glob("out.tmp-*")), "the removal was not tried, so this test shows nothing"
    monkeypatch.undo()
    assert make(tmp_path / "out").state == "up to date"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
