"""Every verb that writes: killed, interrupted, out of disk, its place taken, its files damaged."""

import os
import random
import resource
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from langadapt.core import artifact as artifacts
from langadapt.core import interrupt
from langadapt.core.artifact import MANIFEST, Artifact, Identity, Output, open_artifact, partial_folder, writing
from langadapt.core.errors import DataError, Interrupted, LangadaptError, OutputError, ResourceError
from langadapt.core.progress import Event, Progress
from tests.fixtures.built import Step, build, tree

VERBS = (
    "prepare",
    "extend-vocab",
    "init-embeddings",
    "mix",
    "cpt",
    "evaluate",
    "report",
    "calibrate",
    "select",
    "cpt-part",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> dict[str, Step]:
    return build(tmp_path_factory.mktemp("built"), tiny)


def left_behind(folder: Path) -> list[str]:
    """Temporary folders and locks; a partial folder is what a run goes on with."""
    return sorted(path.name for path in folder.iterdir() if ".tmp-" in path.name)


def kill_child_at(step: Step, place: Path, stage: str) -> int:
    """Run the step in a forked child that dies by SIGKILL at a stage of its commit; returns how the child ended."""
    child = os.fork()
    if child == 0:
        artifacts.stage = lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == stage else None
        try:
            step.run(place)
        finally:
            os._exit(99)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


# Training in a forked child would hang in torch: `cpt` is killed in test_train_faults.py and test_strategy_faults.py.
@pytest.mark.parametrize("verb", [verb for verb in VERBS if not verb.startswith("cpt")])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_kill_9_while_the_result_is_committed(built: dict[str, Step], tmp_path: Path, verb: str) -> None:
    step, place = built[verb], tmp_path / "out"
    for stage in ("written", "manifest-durable"):
        assert kill_child_at(step, place, stage) == signal.SIGKILL
        assert not place.exists()
    assert step.run(place).artifact.path == place
    assert (place / MANIFEST).read_bytes() == step.manifest
    assert not left_behind(tmp_path) and not partial_folder(place).exists()


class StopAt:
    """Asks for an end at the n-th report of progress, as a signal that arrives there would."""

    def __init__(self, number: int) -> None:
        self.number, self.seen = number, 0

    def __call__(self, event: Event) -> None:
        self.seen += 1
        if self.seen == self.number:
            interrupt.request(signal.SIGTERM)


@pytest.fixture
def flag() -> Iterator[None]:
    with interrupt.signals_as_flag():
        yield
    interrupt._seen.clear()


@pytest.mark.parametrize("verb", VERBS)
def test_a_signal_anywhere_then_the_same_command(built: dict[str, Step], tmp_path: Path, verb: str, flag: None) -> None:
    step = built[verb]
    counter = StopAt(0)
    step.run(tmp_path / "counted", Progress(counter))
    moments = sorted({1, max(1, counter.seen // 2), counter.seen})
    for moment in moments:
        place = tmp_path / f"out-{moment}"
        interrupt._seen.clear()
        try:
            step.run(place, Progress(StopAt(moment)))
        except Interrupted:
            assert not place.exists()
        interrupt._seen.clear()
        step.run(place)
        assert (place / MANIFEST).read_bytes() == step.manifest
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_is_taken_is_refused_untouched(built: dict[str, Step], tmp_path: Path, verb: str) -> None:
    step = built[verb]
    other = Path(shutil.copytree(step.place, tmp_path / "other"))
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="other settings") as refused:
        step.run(other, seed=12345)
    assert refused.value.exit_code == 4
    with pytest.raises(OutputError, match="not an artifact"):
        step.run(stranger)
    assert {name: digest for name, digest in tree(tmp_path).items() if not name.endswith(".lock")} == before


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file may grow past `size` bytes: the kernel answers EFBIG, as a full disk answers ENOSPC."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("verb", VERBS)
def test_the_disk_is_full_at_each_file_in_turn(built: dict[str, Step], tmp_path: Path, verb: str) -> None:
    """A limit just below the size of each of the largest files makes each of them the one that fails."""
    step, place = built[verb], tmp_path / "out"
    sizes = sorted({entry["bytes"] for entry in open_artifact(step.place).manifest["files"].values()}, reverse=True)
    for size in sizes[:3]:
        with files_of_at_most(max(0, size - 1)), pytest.raises(ResourceError) as full:
            step.run(place)
        assert full.value.exit_code == 5 and "space" in str(full.value)
        assert not place.exists() and not left_behind(tmp_path)
    step.run(place)
    assert (place / MANIFEST).read_bytes() == step.manifest


@pytest.mark.parametrize("verb", VERBS)
def test_odd_places(built: dict[str, Step], tmp_path: Path, verb: str) -> None:
    """Row 22: a file where the folder should be, below a file, a link to nothing."""
    step = built[verb]
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "link"):
        with pytest.raises(OutputError) as refused:
            step.run(place)
        assert refused.value.exit_code == 4
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "nowhere").exists()


def test_a_folder_that_may_not_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)
    who, done = Identity("report", "report", 1, {}, {}), Identity("report", "report", 1, {"seed": 2}, {})
    with writing(closed / "done", done, inputs={}, progress=Progress()) as (_, out):
        assert isinstance(out, Output)
        made = out.commit({})
    # The folders above are root's alone: somebody else gets there by a descriptor that is open already
    before = Path.cwd()
    os.chdir(closed)
    os.seteuid(65534)
    try:
        with (
            pytest.raises(OutputError, match="permission denied"),
            writing(Path("out"), who, inputs={}, progress=Progress()),
        ):
            pytest.fail("the work began")
        # what is finished there is finished
        with writing(Path("done"), done, inputs={}, progress=Progress()) as (state, there):
            assert state == "up to date" and isinstance(there, Artifact) and there.digest == made.digest
        with (
            pytest.raises(OutputError, match="made by `report` with other settings"),
            writing(Path("done"), who, inputs={}, progress=Progress()),
        ):
            pytest.fail("the work began")
    finally:
        os.seteuid(0)
        os.chdir(before)
    assert [path.name for path in closed.iterdir()] == ["done"]


@pytest.mark.parametrize("verb", ["cpt", "evaluate"])
def test_clock_and_host_do_not_matter(
    built: dict[str, Step], tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch, flag: None
) -> None:
    """Row 12: the clock jumps back and the run goes on under another host name."""
    step, place = built[verb], tmp_path / "out"
    counter = StopAt(0)
    step.run(tmp_path / "counted", Progress(counter))
    with pytest.raises(Interrupted):
        step.run(place, Progress(StopAt(counter.seen // 2)))
    interrupt._seen.clear()
    moments = iter(range(2_000_000_000, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(moments)))
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    step.run(place)
    assert (place / MANIFEST).read_bytes() == step.manifest


def byte_flips(folder: Path, count: int, seed: int) -> Iterator[tuple[Path, int, int]]:
    """Places to damage: a hashed file, an offset, a bit; small files get their share."""
    moments = random.Random(seed)
    names = [folder / name for name in sorted(open_artifact(folder).manifest["files"])]
    names = [path for path in names if path.stat().st_size]
    for _ in range(count):
        path = moments.choice([*names, folder / MANIFEST])
        yield path, moments.randrange(path.stat().st_size), 1 << moments.randrange(8)


READERS = {
    "prepare": ("extend-vocab", "corpus"),
    "extend-vocab": ("init-embeddings", "tokenizer"),
    "init-embeddings": ("cpt", "model"),
    "mix": ("cpt", "data"),
    "cpt": ("evaluate", "adapted"),
    "evaluate": ("report", "scores"),
    "calibrate": ("shielded", "statistics"),
    "select": ("joined", "union"),
}


@pytest.mark.parametrize("verb", READERS)
def test_a_flipped_bit_never_reaches_the_next_result(built: dict[str, Step], tmp_path: Path, verb: str) -> None:
    """Forty damaged copies of each kind are given to the verb that reads it: an error of ours, never a result."""
    reader, field = READERS[verb]
    copy = Path(shutil.copytree(built[verb].place, tmp_path / "copy"))
    given = {field: [str(copy)] if field == "union" else str(copy)}
    for number, (path, offset, bit) in enumerate(byte_flips(copy, 40, seed=20261124)):
        good = path.read_bytes()
        bad = bytearray(good)
        bad[offset] ^= bit
        facts = path.stat()
        path.write_bytes(bytes(bad))
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        began = time.monotonic()
        with pytest.raises(LangadaptError) as found:
            result = built[reader].run(tmp_path / f"out-{number}", **given)
            # `1e-05` and `1E-05` are the same manifest
            if (result.artifact.path / MANIFEST).read_bytes() == built[reader].manifest:
                raise DataError("nothing was damaged")
            pytest.fail(f"bit {bit} of byte {offset} of {path.name} was not noticed")
        assert found.value.exit_code in (3, 6), found.value
        assert time.monotonic() - began < 60
        path.write_bytes(good)
    built[reader].run(tmp_path / "good", **given)
    assert (tmp_path / "good" / MANIFEST).read_bytes() == built[reader].manifest
    assert not left_behind(tmp_path)


def test_a_finished_result_that_was_damaged_is_not_up_to_date(built: dict[str, Step], tmp_path: Path) -> None:
    """It is said, and `--overwrite` makes it again and keeps the damaged one aside."""
    from langadapt.core.validate import validate
    from langadapt.core.verb import load, perform

    step = built["report"]
    place = Path(shutil.copytree(step.place, tmp_path / "out"))
    page = place / "report.html"
    page.write_bytes(page.read_bytes().replace(b"bits", b"bids", 1))
    with pytest.raises(DataError, match="was changed after it was written"):
        step.run(place)
    verb = load(step.verb)
    perform(verb, validate(verb.config, step.values), place, overwrite=True)
    assert (place / MANIFEST).read_bytes() == step.manifest
    open_artifact(place).verify()
    assert len(list(tmp_path.glob("out.old-*"))) == 1
