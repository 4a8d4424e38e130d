"""Metrics in the form of other tools, of a run that ended and of one that has not."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from langadapt.core.errors import ConfigError, DataError, OutputError
from langadapt.report.metrics import as_csv, columns_of, find_record, rows_of, write_csv, write_tensorboard
from tests.cli.conftest import Run

LINES = [
    {"step": 0, "tokens": 0, "probes": {"hu": 2.5, "en": 1.0}},
    {"step": 1, "tokens": 64, "loss": 3.5, "learning_rate": 0.0001, "grad_norm": 1.25},
    {"step": 2, "tokens": 128, "skipped": "the loss is not finite"},
    {"step": 3, "tokens": 192, "loss": 3.123456789012345, "learning_rate": 1e-05, "grad_norm": 0.5},
    {"step": 3, "tokens": 192, "probes": {"hu": 2.25, "en": 1.03}},
]


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "run.partial"
    place.mkdir()
    torn = '{"step": 4, "tok'  # a running process is writing this one
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES) + torn)
    return place


def test_one_row_a_step_with_its_probes_and_no_digit_lost(folder: Path) -> None:
    rows = rows_of(find_record(folder))
    assert columns_of(rows) == [
        "step", "tokens", "loss", "learning_rate", "grad_norm", "skipped", "probe/en", "probe/hu",
    ]  # fmt: skip
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [row["step"] for row in read] == ["0", "1", "2", "3"]
    assert read[0]["loss"] == "" and read[0]["probe/hu"] == "2.5"
    assert read[2]["skipped"] == "the loss is not finite" and read[2]["loss"] == ""
    assert float(read[3]["loss"]) == LINES[3]["loss"] and float(read[3]["probe/en"]) == 1.03


def test_tensorboard_reads_what_is_written(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows, out = rows_of(find_record(folder)), tmp_path / "logs" / "run"
    write_tensorboard(rows, out, overwrite=False)
    found = EventAccumulator(str(out)).Reload()
    assert set(found.Tags()["scalars"]) == {
        "train/loss", "train/tokens", "train/learning_rate", "train/grad_norm", "probe/en", "probe/hu",
    }  # fmt: skip
    assert [(event.step, event.value) for event in found.Scalars("train/loss")] == [
        (1, 3.5),
        (3, pytest.approx(3.1234567)),
    ]
    assert [event.step for event in found.Scalars("probe/hu")] == [0, 3]
    with pytest.raises(OutputError, match="not empty"):
        write_tensorboard(rows, out, overwrite=False)
    write_tensorboard(rows[:2], out, overwrite=True)
    assert len(list(out.iterdir())) == 1
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError):
        write_tensorboard(rows, out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"


def test_without_tensorboard_the_extra_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="tensorboard") as caught:
        write_tensorboard(rows_of(find_record(folder)), tmp_path / "out", overwrite=False)
    assert caught.value.exit_code == 2 and "langadapt[tensorboard]" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


def test_what_is_no_record_is_refused_and_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no metrics"):
        find_record(tmp_path / "nothing")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "metrics.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(DataError, match="no record of a training run"):
        rows_of(find_record(tmp_path / "odd"))
    mine = tmp_path / "mine.csv"
    mine.write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        write_csv(rows_of(find_record(folder)), mine, overwrite=False)
    assert mine.read_text() == "mine"
    write_csv(rows_of(find_record(folder)), mine, overwrite=True)
    assert mine.read_text().startswith("step,")


def test_the_command_on_a_run_that_goes_on(folder: Path, call: Run) -> None:
    done = call("export-metrics", "run")
    assert done.code == 0, done.err
    assert done.out.splitlines()[1] == "0,0,,,,,1.0,2.5"
    told = json.loads(call("export-metrics", "run.partial", "--json").out)
    assert [row["step"] for row in told["rows"]] == [0, 1, 2, 3] and told["schema"] == "langadapt/metrics/1"
    assert call("export-metrics", "run", "--out", "new/run.csv").out.strip() == "new/run.csv"
    assert call("export-metrics", "run", "--out", "new/run.csv").code == 4
    assert call("export-metrics", "run", "--format", "tensorboard").code == 2
    assert call("export-metrics", "a.txt").code == 3
