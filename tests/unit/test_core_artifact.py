"""Artifacts: complete or absent, refused or continued, the same bytes for the same run."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from langadapt.core.artifact import MANIFEST, Artifact, Identity, Output, open_artifact, partial_folder
from langadapt.core.errors import DataError, OutputError
from langadapt.core.inputs import digest_of, resolve_inputs
from langadapt.core.validate import validate
from langadapt.core.verb import identity, perform
from tests.faults.toy import TOY, Config, make


def tree_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(path.relative_to(folder).as_posix().encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def test_the_artifact_is_complete_and_leaves_nothing_else(tmp_path: Path) -> None:
    result = make(tmp_path / "out", 7)
    assert result.state == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    there = open_artifact(tmp_path / "out", "toy")
    there.verify()
    assert there.facts == {"value": 7}
    assert sorted(there.manifest["files"]) == ["deep/double.txt", "value.txt"]


def test_two_identical_runs_give_identical_manifests(tmp_path: Path) -> None:
    make(tmp_path / "a", 3)
    make(tmp_path / "b", 3)
    assert (tmp_path / "a" / MANIFEST).read_bytes() == (tmp_path / "b" / MANIFEST).read_bytes()


def test_the_manifest_holds_no_time_path_or_host(tmp_path: Path) -> None:
    import socket
    import time

    text = (make(tmp_path / "out").artifact.path / MANIFEST).read_text()
    for hidden in (str(tmp_path), socket.gethostname(), time.strftime("%Y-%m-%d")):
        assert hidden not in text
    assert json.loads((tmp_path / "out" / "run.json").read_text())["host"] == socket.gethostname()


def test_running_again_is_up_to_date_and_touches_nothing(tmp_path: Path) -> None:
    make(tmp_path / "out")
    before = tree_digest(tmp_path)
    assert make(tmp_path / "out").state == "up to date"
    assert tree_digest(tmp_path) == before


def test_other_settings_are_refused_and_touch_nothing(tmp_path: Path) -> None:
    make(tmp_path / "out", 1)
    before = tree_digest(tmp_path)
    with pytest.raises(OutputError, match="other settings") as caught:
        make(tmp_path / "out", 2)
    assert caught.value.exit_code == 4
    assert "--overwrite" in str(caught.value)
    assert tree_digest(tmp_path) == before


def test_overwrite_moves_the_old_one_aside(tmp_path: Path) -> None:
    make(tmp_path / "out", 1)
    make(tmp_path / "out", 2, overwrite=True)
    old = [path for path in tmp_path.iterdir() if ".old-" in path.name]
    assert [open_artifact(path).facts["value"] for path in old] == [1]
    assert open_artifact(tmp_path / "out").facts["value"] == 2


@pytest.mark.parametrize("kind", ["file", "folder", "broken link"])
def test_what_is_not_ours_is_never_touched(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "folder":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    before = tree_digest(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="not an artifact"):
            make(out, overwrite=overwrite)
    assert tree_digest(tmp_path) == before


def test_an_unfinished_run_with_other_settings_is_refused(tmp_path: Path) -> None:
    partial = partial_folder(tmp_path / "out")
    partial.mkdir()
    (partial / "partial.json").write_text(json.dumps({"fingerprint": "something else"}))
    (partial / "checkpoints").mkdir()
    (partial / "checkpoints" / "state.json").write_text("{}")
    with pytest.raises(OutputError, match="unfinished run"):
        make(tmp_path / "out")
    assert (partial / "partial.json").is_file()


def test_a_run_that_kept_nothing_is_not_in_the_way_of_other_settings(tmp_path: Path) -> None:
    partial = partial_folder(tmp_path / "out")
    partial.mkdir()
    (partial / "partial.json").write_text(json.dumps({"fingerprint": "something else"}))
    assert make(tmp_path / "out").state == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_step_that_fails_before_it_kept_anything_leaves_nothing(tmp_path: Path) -> None:
    def fail(config: Config, out: Output) -> Artifact:
        assert (out.partial / "partial.json").is_file()
        raise DataError("too long", hint="-o value=2")

    with pytest.raises(DataError, match="too long"):
        perform(replace(TOY, run=fail), Config(value=1), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("again", [False, True])
def test_neighbours_of_the_output_that_are_not_ours_stay(tmp_path: Path, again: bool) -> None:
    plain = replace(TOY, run=lambda config, out: out.commit({}))  # it keeps nothing in `out.partial`
    if again:
        perform(plain, Config(), tmp_path / "out")
    for name in ("out.partial", "out.tmp-mine", "out.tmp-backup01"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine")
    perform(plain, Config(), tmp_path / "out")
    assert len(list(tmp_path.glob("out.*/notes.txt"))) == 3


def test_a_folder_of_somebody_is_not_used_as_partial(tmp_path: Path) -> None:
    def keep(config: Config, out: Output) -> Artifact:
        (out.partial / "piece").write_text("ours")
        return out.commit({})

    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "piece").write_text("mine")
    with pytest.raises(OutputError, match="not of langadapt"):
        perform(replace(TOY, run=keep), Config(), tmp_path / "out")
    assert (tmp_path / "out.partial" / "piece").read_text() == "mine"


def test_a_lock_file_of_somebody_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "out.lock").write_text("version = 1\n")
    with pytest.raises(OutputError, match="not a lock of langadapt"):
        make(tmp_path / "out")
    assert (tmp_path / "out.lock").read_text() == "version = 1\n"
    for left in ("", "process 12 on a-host"):  # by a kill
        (tmp_path / "out.lock").write_text(left)
        assert make(tmp_path / "out").state in ("new", "up to date")


def test_the_current_folder_is_a_place_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    assert make(Path()).state == "up to date"
    monkeypatch.chdir(tmp_path)
    for place in (Path(), Path(".."), Path("/")):
        with pytest.raises(OutputError, match="not an artifact"):
            make(place)
    with pytest.raises(DataError, match="not an artifact"):
        open_artifact(Path())


def test_an_empty_path_is_not_the_current_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an empty path"):
        perform(TOY, Config(text=""), tmp_path / "out")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "value.txt").unlink(), "no file `value.txt`"),
        (lambda out: (out / "value.txt").write_text("longer text"), "its manifest says"),
        (lambda out: (out / MANIFEST).write_text("{"), "not valid JSON"),
        (lambda out: (out / MANIFEST).write_text("[]"), "JSON object"),
        (lambda out: (out / MANIFEST).write_text("{}"), "not a manifest of this version"),
        (lambda out: (out / MANIFEST).unlink(), "not an artifact"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage, message: str) -> None:
    damage(make(tmp_path / "out").artifact.path)
    with pytest.raises(DataError, match=message) as caught:
        open_artifact(tmp_path / "out")
    assert caught.value.exit_code == 3


def test_a_flipped_bit_is_found_by_verify_only(tmp_path: Path) -> None:
    out = make(tmp_path / "out").artifact.path
    raw = bytearray((out / "value.txt").read_bytes())
    raw[0] ^= 1
    (out / "value.txt").write_bytes(bytes(raw))
    there = open_artifact(out)
    with pytest.raises(DataError, match="SHA-256 does not match"):
        there.verify()


def test_opening_another_kind_says_both(tmp_path: Path) -> None:
    make(tmp_path / "out")
    with pytest.raises(DataError, match="is a toy artifact; expected corpus"):
        open_artifact(tmp_path / "out", "corpus")


def test_the_fingerprint_sees_content_not_paths(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("same")
    (tmp_path / "b.txt").write_text("same")
    (tmp_path / "c.txt").write_text("other")

    def print_of(name: str) -> str:
        config = validate(Config, {"text": str(tmp_path / name)})
        return identity(TOY, config, resolve_inputs(config)).fingerprint

    assert print_of("a.txt") == print_of("b.txt") != print_of("c.txt")


def test_each_part_of_the_identity_changes_the_fingerprint() -> None:
    base = Identity("toy", "toy", 1, {"value": 1}, {"text": "x"})
    others = [
        Identity("toy", "other", 1, {"value": 1}, {"text": "x"}),
        Identity("toy", "toy", 2, {"value": 1}, {"text": "x"}),
        Identity("toy", "toy", 1, {"value": 2}, {"text": "x"}),
        Identity("toy", "toy", 1, {"value": 1}, {"text": "y"}),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        perform(TOY, Config(text=str(tmp_path / "nothing.txt")), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_digest_sees_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x").write_text("1")
    first = digest_of(tmp_path / "one")
    (tmp_path / "one" / ".hidden").write_text("ignored")
    assert digest_of(tmp_path / "one") == first
    (tmp_path / "one" / "x").rename(tmp_path / "one" / "y")
    assert digest_of(tmp_path / "one") != first


def test_a_result_inside_its_own_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    for place in (Path("texts/out"), Path("texts/deep/out"), tmp_path / "texts" / "out"):
        with pytest.raises(OutputError, match="inside the input `texts`"):
            perform(TOY, Config(text="texts"), place)
    monkeypatch.chdir(tmp_path / "texts")
    with pytest.raises(OutputError, match=r"inside the input `\.`"):
        perform(TOY, Config(text="."), Path("out"))
    assert [path.name for path in (tmp_path / "texts").iterdir()] == ["a.txt"]
    assert perform(TOY, Config(text="."), Path("../out")).state == "new"


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux says it for one program")
def test_the_peak_of_a_small_program_is_its_own_whoever_started_it() -> None:
    code = "from langadapt.core.host import peak_memory_bytes as peak; print(peak())"
    held = b"x" * 400_000_000  # written to, so that it is resident
    peak = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert 5_000_000 < peak < 200_000_000 < len(held)
