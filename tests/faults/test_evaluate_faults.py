"""An evaluation that is killed leaves no output and goes on to the same bytes (reliability rows 3 and 4)."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from langadapt.core.artifact import open_artifact, partial_folder
from tests.fixtures.tiny import tiny_corpus, tiny_model


def command(folder: Path, out: str) -> list[str]:
    values = {
        "base": str(folder / "base"),
        "adapted": str(folder / "adapted"),
        "sets": {"hu": str(folder / "hu.jsonl")},
    }
    settings = {"segment_bytes": 100, "context_bytes": 100, "set_bytes": 1000, "continuations": 1, "compute": "fp32"}
    settings["document_separator"] = "<|endoftext|>"
    (folder / "config.json").write_text(json.dumps(values | settings))
    return [sys.executable, "-m", "tests.faults.launch", "evaluate", str(folder / out), str(folder / "config.json")]


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_evaluation_goes_on(tmp_path: Path, blow: signal.Signals) -> None:
    tiny_model(tmp_path / "base")
    tiny_model(tmp_path / "adapted", seed=1)
    tiny_corpus(tmp_path, "hu", 600)
    subprocess.run(command(tmp_path, "whole"), check=True, capture_output=True, timeout=120)
    victim = subprocess.Popen(command(tmp_path, "killed"), stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    for line in victim.stdout:
        if line.startswith("score adapted on hu"):
            victim.send_signal(blow)
            break
    victim.communicate(timeout=60)
    assert victim.returncode == (-9 if blow == signal.SIGKILL else 75)
    assert not (tmp_path / "killed").exists() and partial_folder(tmp_path / "killed").is_dir()
    again = subprocess.run(command(tmp_path, "killed"), check=True, capture_output=True, text=True, timeout=120)
    assert "score base on hu" not in again.stdout
    assert open_artifact(tmp_path / "killed").digest == open_artifact(tmp_path / "whole").digest
